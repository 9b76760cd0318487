"""What every protocol says of the program itself: commit, command, versions. No torch."""

import hashlib
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("mien", "torch", "pytorch-lightning", "kornia", "onnxruntime", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Python's and the packages' versions."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def commit() -> str:
    """The checkout's commit, with -dirty where files differ; "unknown" outside a checkout, also where mien is installed in
    somebody else's."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*words: str) -> str:
    command, here = ["git", *words], Path(__file__).parent
    return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def command_line() -> str:
    """The command as typed, for a shell, absolute paths reduced to their last two parts, so that protocols carry no one's folders.
    It begins with mien, or with the name of the script that called mien."""
    program = Path(sys.argv[0])
    is_mien = program.stem == "mien" or program.parts[-2:] == ("mien", "__main__.py")
    return shlex.join(["mien" if is_mien else program.name or "python", *map(_without_folders, sys.argv[1:])])


def _without_folders(word: str) -> str:
    """A word of a command line; its path may stand behind an option (-o/a/b, --root=/a/b, NAME=/a/b)."""
    found = re.fullmatch(r"(-\w|[^=/]*=|)(.+)", word, re.DOTALL)
    if found is None or not Path(found[2]).is_absolute():
        return word
    return found[1] + "/".join(Path(found[2]).parts[-2:])


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
