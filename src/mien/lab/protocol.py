"""What every protocol says of the program itself: commit, command, versions. No torch."""

import hashlib
import platform
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
    """The checkout's commit, with -dirty where files differ; "unknown" outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def command_line() -> str:
    """The command as typed, absolute paths reduced to their last two parts, so that protocols carry no one's folders."""
    words = ["mien", *sys.argv[1:]]
    return " ".join("/".join(Path(word).parts[-2:]) if Path(word).is_absolute() else word for word in words)


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
