"""The server's application: POST /v1/read, GET /v1/model, /healthz, /metrics, /openapi.json and the page."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.resources import files
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import mien
from mien import tables
from mien.cores import cores
from mien.reader import Reader
from mien.web import metrics as prometheus
from mien.web import openapi, uploads
from mien.web.guard import Door, Guard
from mien.web.limits import Gate, Limits, RefusedError, slow_upload, too_slow
from mien.web.work import Work

PAGES: dict[str, tuple[str, str]] = {  # path -> file beside this one, media type
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/drawing.js": ("drawing.js", "text/javascript"),
    "/results.js": ("results.js", "text/javascript"),
    "/sources.js": ("sources.js", "text/javascript"),
    "/tracking.js": ("tracking.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/responsible-use": ("responsible-use.html", "text/html"),
}

T = TypeVar("T")


def create_app(
    reader: Reader, *, limits: Limits | None = None, door: Door | None = None, workers: int | None = None
) -> FastAPI:
    """The application for one reader. workers: pictures searched at once, besides a large one; None for one a processor."""
    limits = limits or Limits()
    gate = Gate(limits)
    model = _describe(reader, limits)
    info = {"sha256": model["sha256"], "method": model["card"]["method"], "version": mien.__version__}
    metrics = prometheus.Metrics(gate, model=info)
    work = Work(reader, limits=limits, metrics=metrics, workers=workers or cores())
    app = FastAPI(
        title="mien",
        version=mien.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would be to http, also where a proxy speaks HTTPS for mien
        lifespan=_lifespan(work),
    )
    app.exception_handler(HTTPException)(_refuse_unknown)  # raised, so that the guard counts it
    _add_reading(app, gate, work)
    _add_information(app, model, metrics)
    _add_pages(app)
    paths = {path for route in app.routes if isinstance(path := getattr(route, "path", None), str)}
    app.add_middleware(Guard, door=door or Door(), limits=limits, metrics=metrics, paths=paths)
    app.openapi_schema = openapi.with_token(app.openapi())
    return app


def _describe(reader: Reader, limits: Limits) -> dict[str, Any]:
    """What /v1/model answers."""
    card = reader.classifier.card
    return {
        "card": asdict(card),
        "labels": list(card.head().labels),
        "sha256": reader.classifier.sha256,
        "licence": card.licence,
        "version": mien.__version__,
        "limits": asdict(limits),
    }


def _lifespan(work: Work) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batching = asyncio.create_task(work.batcher.run())
        yield
        batching.cancel()
        work.close()

    return lifespan


def _add_reading(app: FastAPI, gate: Gate, work: Work) -> None:
    @app.post("/v1/read", openapi_extra=openapi.REQUEST, responses=openapi.READ, response_class=JSONResponse)
    async def read(request: Request) -> Response:
        """Read the expressions in one or several pictures.

        The answer is what `mien read --json` prints: a row for each face, or one row that says "no face". Where some
        pictures cannot be read, their rows say why; where none can, the request fails with the first one's reason.
        """
        deadline = asyncio.get_running_loop().time() + gate.limits.seconds
        with gate.ticket() as ticket:
            receiving = uploads.receive(request, limits=gate.limits, ticket=ticket)
            pictures = await _in_time(receiving, deadline, slow_upload(gate.limits))
            rows = await _in_time(_unless_gone(request, work.rows(pictures)), deadline, too_slow(gate.limits))
        return Response(tables.to_json(rows), media_type="application/json")


async def _in_time(work: Coroutine[Any, Any, T], deadline: float, late: RefusedError) -> T:
    """The result of `work`; past the deadline (loop time, s) it is cancelled and `late` raised."""
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError:
        raise late from None


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; when the client hangs up first it is cancelled and ClientDisconnect raised."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body is read: all that can still come is the disconnect
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


def _add_information(app: FastAPI, model: dict[str, Any], metrics: prometheus.Metrics) -> None:
    @app.head("/v1/model", include_in_schema=False)
    @app.get("/v1/model", responses=openapi.GUARDED)
    async def describe_model() -> dict[str, Any]:
        """The model's card, SHA-256 and licence, and the server's limits."""
        return model

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", responses={403: openapi.GUARDED[403]})
    async def healthz() -> dict[str, str]:
        """That the server answers."""
        return {"status": "ok"}

    @app.head("/metrics", include_in_schema=False)
    @app.get("/metrics", response_class=PlainTextResponse, responses=openapi.GUARDED)
    async def show_metrics() -> Response:
        """Prometheus' text format."""
        return Response(metrics.text(), headers={"Content-Type": prometheus.CONTENT_TYPE})


def _add_pages(app: FastAPI) -> None:
    for path, (name, media_type) in PAGES.items():
        content = (files("mien.web") / name).read_bytes()
        app.add_api_route(path, _static(content, media_type), methods=["GET", "HEAD"], include_in_schema=False)


def _static(content: bytes, media_type: str) -> Any:
    async def page() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})

    return page


async def _refuse_unknown(request: Request, error: Exception) -> Response:
    """404 and 405, which is all that is raised so, in the same form as every other refusal."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        raise RefusedError(
            404, "not_found", "nothing is here; POST /v1/read reads pictures, /openapi.json tells the rest"
        )
    allowed = _allowed(request)
    reason = f"{request.method} is not for this path, which takes {allowed}"
    raise RefusedError(405, "method", reason, headers={"Allow": allowed})


def _allowed(request: Request) -> str:
    """The methods of every route of this path: GET and HEAD may be two."""
    routes = [route for route in request.app.routes if getattr(route, "path", None) == request.url.path]
    return ", ".join(sorted({method for route in routes for method in route.methods}))
