"""mien reads facial expressions from pictures, on your machine, with probabilities you can check.

An expression is what a face shows, not what a person feels.

    import mien
    for face in mien.read("photo.jpg"):
        print(face.expression, face.confidence, face.box)
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mien.expressions import EXPRESSIONS

if TYPE_CHECKING:
    from mien.jobs import read_folder
    from mien.reader import Face, Reader, Reading, UnreadableFile, read
    from mien.video import read_video

# From 1.29 on, ONNX Runtime's official builds report the models that they run to Microsoft unless this is set before it is
# first imported (microsoft/onnxruntime pull request 27379). mien reports nothing; who wants to sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["EXPRESSIONS", "Face", "Reader", "Reading", "UnreadableFile", "read", "read_folder", "read_video"]
_HOMES = {"read_folder": "mien.jobs", "read_video": "mien.video"}  # of the names that are not in mien.reader


def __getattr__(name: str) -> Any:
    """Load the reader, and with it ONNX Runtime, only when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'mien' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "mien.reader")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
