"""Who may ask: the Host and Origin of each request, and the token where one is set.

A page of another site can make a browser send requests to this machine. It cannot forge Origin, so a foreign one is
refused; and a name that it had resolve to this machine (DNS rebinding) arrives as a Host that is not ours. There are no
CORS headers: no other site may read an answer.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import time
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mien.web.limits import Limits, RefusedError
from mien.web.metrics import Metrics

GUARDED = ("/v1/", "/metrics")  # what needs the token; the page itself and /healthz hold no secret
READ = "/v1/read"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_log = logging.getLogger("mien.web")


@dataclass(frozen=True)
class Door:
    """names: host names that are ours, besides loopback ones. any_address: whether every IP address is, too, as it is
    for a server that listens beyond loopback (a rebinding attack needs a name). token: what `Authorization: Bearer`
    must carry, None for nothing.
    """

    names: frozenset[str] = frozenset()
    any_address: bool = False
    token: str | None = None

    def check(self, path: str, headers: Headers) -> None:
        """Raise RefusedError 403 for a foreign Host or Origin, 401 for a missing or wrong token."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            named = f"the Host header names {host}" if host else "there is no Host header"
            reason = f"{named}, not this server: open the address that mien printed, or start it with --name HOST"
            raise RefusedError(403, "host", reason)
        origin = headers.get("origin")
        if origin is not None and not _same_site(origin, host):
            reason = (
                f"a page of {origin} asks {host}: another site's, or a proxy between does not pass the Host header on"
            )
            raise RefusedError(403, "origin", reason)
        if self.token is not None and path.startswith(GUARDED) and not self._carries_token(headers):
            reason = "send the token that the server was started with: Authorization: Bearer TOKEN"
            raise RefusedError(401, "token", reason, headers={"WWW-Authenticate": "Bearer"})

    def _is_ours(self, host: str) -> bool:
        name = _host_name(host)
        if name is None:
            return False
        if name == "localhost" or name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.any_address or address.is_loopback

    def _carries_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        expected = (self.token or "").encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1", "replace"), expected)


class Guard:
    """ASGI middleware around the whole application: the door, the headers, the counters, and the last resort."""

    def __init__(self, app: ASGIApp, *, door: Door, limits: Limits, metrics: Metrics, paths: Collection[str]) -> None:
        self._app = app
        self._door = door
        self._limits = limits
        self._metrics = metrics
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer, body = _Answer(send), _Body(receive)
        start = time.perf_counter()
        try:
            self._door.check(scope["path"], Headers(scope=scope))
            await self._app(scope, body.receive, answer.send)
        except RefusedError as refusal:
            self._metrics.refusals.add(refusal.code)
            if "expect" not in Headers(scope=scope) and refusal.status != 408:  # who asked first is answered at once
                await body.discard(most=2 * self._limits.body, seconds=self._limits.seconds)
            await respond(refusal)(scope, receive, answer.send)
        except ClientDisconnect:
            answer.status = answer.status or 499  # nginx's code for it, counted and never sent
        except Exception as error:  # a defect of ours: say so to both sides, with nothing of the request in it
            _report(error)
            if not answer.status:
                await respond(_internal())(scope, receive, answer.send)
        self._count(scope, answer.status, time.perf_counter() - start)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.requests.add(path, str(status))
        if path == READ and status == 200:
            self._metrics.seconds.observe(seconds)


class _Body:
    """Passes a request's body on, and knows when it is all there."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._complete = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._complete = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def discard(self, *, most: int, seconds: float) -> None:
        """Forget what is left: a client that is cut off while it sends may never see the answer. most, seconds: bytes and time
        after which it is cut off all the same."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._complete and most >= 0:
                    most -= len((await self.receive()).get("body", b""))


class _Answer:
    """Passes messages on, adds the headers that every answer has, and remembers the status (0 before there is one)."""

    def __init__(self, send: Send) -> None:
        self.status = 0
        self._send = send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            _add_headers(message)
        await self._send(message)


def respond(refusal: RefusedError) -> JSONResponse:
    """The answer that a refusal is."""
    return JSONResponse(refusal.content(), refusal.status, headers=dict(refusal.headers))


def _add_headers(message: MutableMapping[str, Any]) -> None:
    headers = MutableHeaders(scope=message)
    headers.setdefault("Cache-Control", "no-store")
    for name, value in HEADERS.items():
        headers[name] = value


def _internal() -> RefusedError:
    return RefusedError(500, "internal", "an error in mien; the server's log names the place, please report it")


def _report(error: Exception) -> None:
    """Log the kind and place of an unexpected error, not its text, which may quote the request."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place else "an unknown place"
    _log.error("%s at %s", type(error).__name__, where)


def _host_name(host: str) -> str | None:
    """The name or address of a Host header, in lower case, without port and brackets; None when it is not one."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None


def _same_site(origin: str, host: str) -> bool:
    """Whether the Origin is the page that this Host serves; a proxy in front may speak https."""
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
