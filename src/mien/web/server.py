"""The application on a socket: started, announced, and stopped when the process is told to, what it took on finished."""

import asyncio
import ipaddress
import logging
import math
import os
import re
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from mien import terminal
from mien.errors import UsageError
from mien.web.guard import Door

BACKLOG = 1024  # connections that wait to be accepted; the limits turn requests away, not the kernel
SELDOM = 60  # s
_NO_SOCKET = "socket.accept() out of system resource"  # asyncio's word for each connection that it cannot accept
_NO_HTTP = "Invalid HTTP request received."  # uvicorn's for each request that is none
SHORTEST_TOKEN = 16  # characters; `secrets.token_urlsafe()` gives 43


def door(host: str, *, token: str | None, names: list[str]) -> Door:
    """Who may ask a server that listens on `host`. Raises UsageError for an address beyond this machine without a token.

    token: the value of MIEN_TOKEN, None where it is not set; whitespace around it, as a file's last line end, is no part of
    it. names: further host names that clients call the server by.
    """
    token = None if token is None else token.strip()
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
            raise UsageError(
                f"--name {name!r}: expected a host name alone, ASCII, without scheme or port, as in --name pc.example"
            )
    local = _is_loopback(host)
    advice = "`python -c 'import secrets; print(secrets.token_urlsafe())'` makes one"
    if token is None and not local:
        raise UsageError(
            f"--host {host} can be reached from other machines: set MIEN_TOKEN to a secret that clients must send "
            f"({advice}), or leave --host out"
        )
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise UsageError(f"MIEN_TOKEN has {len(token)} characters: expected {SHORTEST_TOKEN} or more, ASCII; {advice}")
    return Door(frozenset(name.lower() for name in names), any_address=not local, token=token)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. port 0 takes any free one. Raises UsageError when the address cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((address[0], port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host} port {port} ({reason}); choose another --host or --port") from None


def url(listening: socket.socket) -> str:
    """The address to open, e.g. "http://127.0.0.1:8000"."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"


def run(app: ASGIApp, listening: socket.socket, *, seconds: float, announce: Callable[[str], None]) -> NoReturn:
    """Serve until SIGTERM or SIGINT, then finish what was taken on, for at most a little over `seconds`, and end the process.

    announce: called with the address once requests are answered.
    """
    _keep_quiet()
    config = uvicorn.Config(
        app,
        http=_protocol(seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=math.ceil(seconds) + 2,
    )
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        _Server(config, listening, announce).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    os._exit(0)  # Python would wait for the threads, and one may be at a picture that was given up long ago


class _Server(uvicorn.Server):
    """uvicorn's server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, listening: socket.socket, announce: Callable[[str], None]) -> None:
        super().__init__(config)
        self._listening = listening
        self._announce = announce

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets requests end, a second Ctrl-C cuts them off: then uvicorn would log what each died of. It would
        also wait for their connections to be closed, from Python 3.12 on."""
        if self.should_exit:
            logging.getLogger("uvicorn.error").disabled = True
            if sig == signal.SIGINT:
                asyncio.get_running_loop().call_soon_threadsafe(self._cut_off)
        elif sig == signal.SIGINT and self.server_state.tasks:
            terminal.complain("finishing what was begun; Ctrl-C again ends at once")
        super().handle_exit(sig, frame)

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._announce(url(self._listening))


def _protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, which waits as long as a client likes for the rest of a request's head, for the rest of a body whose
    request is answered, and for an answer to be read; this one does not."""

    class Protocol(H11Protocol):
        _late: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._late = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            try:
                super().data_received(data)
            except h11.LocalProtocolError:  # not HTTP, and no refusal can be sent any more
                self.transport.close()
                return
            answered = self.cycle is not None and self.cycle.response_complete
            theirs = self.conn.their_state
            waits = theirs is h11.IDLE or (answered and theirs is h11.SEND_BODY)
            if self._late and not waits:
                self._late.cancel()
                self._late = None
            elif waits and not self._late:
                self._late = self.loop.call_later(seconds, self.transport.close)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(seconds, self.transport.abort)  # closing would wait for the client

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._unread:
                self._unread.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for timer in (self._late, self._unread):
                if timer:
                    timer.cancel()

    return Protocol


def _ignore(number: int, frame: object) -> None:
    """uvicorn handles the signal while it runs and raises it again afterwards, for whoever handled it before."""


def _keep_quiet() -> None:
    """Pillow warns about what it finds in a picture, the multipart parser about the characters around it; a server's log
    says nothing about either, and nothing a thousand times."""
    terminal.tame_pillow()
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn.error").addFilter(_is_no_advice)
    logging.getLogger("uvicorn.error").addFilter(_Seldom(_NO_HTTP))
    logging.getLogger("asyncio").addFilter(_Seldom(_NO_SOCKET))


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Whether it is not uvicorn's advice to install a WebSocket library for a request that asks for one."""
    return "WebSocket" not in record.getMessage() and "upgrade request" not in record.getMessage()


class _Seldom(logging.Filter):
    """Lets what begins so through once in SELDOM."""

    def __init__(self, beginning: str) -> None:
        super().__init__()
        self._beginning, self._last = beginning, -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith(self._beginning):
            return True
        if record.created < self._last + SELDOM:
            return False
        self._last, record.exc_info = record.created, None
        return True


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"--host {host}: no such address here ({error.strerror}); try 127.0.0.1") from None
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
