"""How much the server takes on, and how it says no: a status and {"error": {"code", "reason", "limit"}}."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mien import images
from mien.errors import ImageError, MienError, PictureFormatError, PictureSizeError

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """body: bytes of one request. pictures: in one request. pixels: of one picture, decoded. faces: in one picture.
    seconds: from a request's first byte to its answer. requests: under way at once. memory: bytes of the bodies of all
    requests under way.
    """

    body: int = 64 * MIB
    pictures: int = 32
    pixels: int = 16_000_000
    faces: int = 100
    seconds: float = 30.0
    requests: int = 256
    memory: int = 192 * MIB  # with so many bytes and pixels, two workers stay under 1 GB: tests/test_web_fuzz.py


@dataclass(eq=False)  # not frozen: contextlib sets an exception's traceback
class RefusedError(MienError):
    """A request, or one picture of it, that is not answered. limit: the number that was exceeded, where there is one."""

    status: int
    code: str
    reason: str
    limit: int | float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.reason

    def content(self) -> dict[str, dict[str, str | int | float | None]]:
        """The JSON object that the client gets."""
        return {"error": {"code": self.code, "reason": self.reason, "limit": self.limit}}


def too_slow(limits: Limits) -> RefusedError:
    """The answer took longer than `limits.seconds`."""
    reason = f"no answer within {limits.seconds:g} s; send fewer or smaller pictures, or try again later"
    return RefusedError(503, "time", reason, limits.seconds, {"Retry-After": "5"})


def slow_upload(limits: Limits) -> RefusedError:
    """The request itself took longer than `limits.seconds` to arrive."""
    return RefusedError(408, "upload_time", f"the request did not arrive within {limits.seconds:g} s", limits.seconds)


def of_picture(error: ImageError, limits: Limits) -> RefusedError:
    """Why a picture cannot be read: 413 too many pixels, 415 no picture in a known format, 422 damaged."""
    reason = str(error).removeprefix("<bytes>: ").replace(f" or raise {images.RAISED}", "")
    if isinstance(error, PictureSizeError):
        return RefusedError(413, "pixels", reason, limits.pixels)
    if isinstance(error, PictureFormatError):
        return RefusedError(415, "format", reason)
    return RefusedError(422, "damaged", reason)


class Gate:
    """Counts what is under way, and turns away what would be too much. For one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self.bytes = 0

    def ticket(self) -> "Ticket":
        """What one request holds while it is under way."""
        return Ticket(self)


class Ticket:
    """One request's share of the gate, given back at the end of its `with` block."""

    def __init__(self, gate: Gate) -> None:
        self.bytes = 0
        self._admitted = 0
        self._gate = gate

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(self, *error: object) -> None:
        self._gate.requests -= self._admitted
        self._gate.bytes -= self.bytes

    def admit(self) -> None:
        """Take a place. Raises RefusedError 429 when all are taken."""
        gate = self._gate
        if gate.requests >= gate.limits.requests:
            reason = f"{gate.requests} requests are under way; try again in a second"
            raise RefusedError(429, "requests", reason, gate.limits.requests, {"Retry-After": "1"})
        self._admitted = 1
        gate.requests += 1

    def take(self, count: int) -> None:
        """Account for `count` more bytes of the body. Raises RefusedError 413 or 429."""
        limits = self._gate.limits
        if self.bytes + count > limits.body:
            raise too_large(limits)
        if self._gate.bytes + count > limits.memory:
            reason = "the requests under way fill the server's memory; try again in a second"
            raise RefusedError(429, "memory", reason, limits.memory, {"Retry-After": "1"})
        self.bytes += count
        self._gate.bytes += count


def too_large(limits: Limits) -> RefusedError:
    """The body is larger than `limits.body`."""
    reason = f"the request is larger than {limits.body / MIB:g} MiB; send fewer or smaller pictures"
    return RefusedError(413, "body", reason, limits.body)
