"""Options that several commands have."""

import math
from pathlib import Path
from typing import Annotated

import typer

from mien.errors import UsageError

Model = Annotated[
    Path | None, typer.Option(metavar="FILE", help="An .onnx file that mien exported, instead of the bundled one.")
]
Detector = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="mtcnn finds faces; whole takes each picture for one; yunet (or yunet:FILE) is faster."
    ),
]
MinFace = Annotated[float, typer.Option(metavar="PX", help="The shortest face side to look for.")]


def pixels_of(megapixels: float) -> int:
    """Of --max-pixels. Raises UsageError for what is no number of pixels."""
    if not 1e-6 <= megapixels < math.inf:
        raise UsageError(
            f"--max-pixels {megapixels:g}: expected a finite number of megapixels, 0.000001 (one pixel) or more"
        )
    return round(megapixels * 1e6)
