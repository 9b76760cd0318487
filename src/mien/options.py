"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

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
