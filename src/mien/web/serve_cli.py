"""`mien serve`. Imports no web framework before it runs."""

import math
import os
from typing import Annotated

import typer

from mien.errors import UsageError
from mien.faces.detect import MIN_FACE, NAMES, NO_SEARCH
from mien.options import Detector, MinFace, Model, pixels_of
from mien.web.limits import MIB, Limits

_DEFAULTS = Limits()


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; one beyond this machine needs MIEN_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8000,
    model: Model = None,
    detector: Detector = NAMES[0],
    min_face: MinFace = MIN_FACE,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Pictures decoded and searched at once.", show_default="one a processor")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", metavar="HOST", help="A host name by which clients call this server.")
    ] = None,
    max_body: Annotated[int, typer.Option(metavar="MIB", min=1, help="Of one request.")] = _DEFAULTS.body // MIB,
    max_pictures: Annotated[int, typer.Option(min=1, help="In one request.")] = _DEFAULTS.pictures,
    max_pixels: Annotated[float, typer.Option(metavar="MEGAPIXELS", help="Of one picture.")] = _DEFAULTS.pixels / 1e6,
    max_faces: Annotated[int, typer.Option(min=1, help="In one picture.")] = _DEFAULTS.faces,
    max_requests: Annotated[int, typer.Option(min=1, help="Under way at once.")] = _DEFAULTS.requests,
    max_memory: Annotated[
        int | None,
        typer.Option(
            metavar="MIB",
            min=1,
            help="Of the bodies of all requests under way.",
            show_default=f"{_DEFAULTS.memory // MIB}, or --max-body where that is more",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="For one request, from its start to its answer.")] = (
        _DEFAULTS.seconds
    ),
) -> None:
    """Serve a page and an HTTP interface that read expressions; for this machine alone, unless --host says otherwise.

    Pictures are kept in memory while they are read, then forgotten; nothing
    about them is written or logged. SIGTERM stops the server once it has
    finished what it took on. Beyond this machine put it behind a proxy that
    speaks HTTPS and passes the Host header on, and name that host with --name.
    """
    if not math.isfinite(seconds):
        raise UsageError(f"--seconds {seconds:g}: expected a finite number")
    if max_memory is not None and max_memory < max_body:
        raise UsageError(f"--max-memory {max_memory}: one request may have {max_body} MiB; lower --max-body, too")
    if detector == "whole" and min_face != MIN_FACE:
        raise UsageError(f"--min-face {NO_SEARCH}")
    limits = Limits(
        body=max_body * MIB,
        pictures=max_pictures,
        pixels=pixels_of(max_pixels),
        faces=max_faces,
        seconds=seconds,
        requests=max_requests,
        memory=(max_memory or max(_DEFAULTS.memory // MIB, max_body)) * MIB,
    )
    _need_extra()
    from mien.reader import Reader
    from mien.web import app, server

    door = server.door(host, token=os.environ.get("MIEN_TOKEN") or None, names=name or [])
    application = app.create_app(
        Reader(model, detector=detector, min_face=min_face), limits=limits, door=door, workers=workers
    )
    server.run(application, server.listen(host, port), seconds=seconds, announce=_announce)


def _need_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            f'the server needs the extra serve ({error.name} is not installed); run `pip install "mien[serve]"`'
        ) from None


def _announce(address: str) -> None:
    print(f"mien listens on {address} (stop with Ctrl+C)", flush=True)
