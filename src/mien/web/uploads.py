"""A multipart request's pictures, parsed as they arrive and kept in memory.

FastAPI's own UploadFile puts what is larger than a megabyte into a temporary file; here nothing ever reaches a disk.
"""

import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from mien.web.limits import Limits, RefusedError, Ticket, too_large

LONGEST_NAME = 255  # characters of a file's name that are kept
EXAMPLE = "send each picture as a file, as `curl -F pictures=@FILE` does"


@dataclass(frozen=True)
class Picture:
    """One uploaded file as sent: name for the client's own orientation, data still encoded, of which no decoder makes a copy."""

    name: str
    data: bytes


async def receive(request: Request, *, limits: Limits, ticket: Ticket) -> list[Picture]:
    """The request's files, in order, its place and each byte accounted for with `ticket`.

    Raises RefusedError: 413 too large or too many, 415 not multipart, 422 not well-formed, 429 no place.
    """
    ticket.admit()
    boundary = _boundary(request)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body:
        raise too_large(limits)
    return await parse(request.stream(), boundary, limits=limits, ticket=ticket)


async def parse(stream: AsyncIterator[bytes], boundary: bytes, *, limits: Limits, ticket: Ticket) -> list[Picture]:
    """The files of a multipart body. Raises what `receive` does."""
    form = _Form(limits)
    try:
        parser = python_multipart.MultipartParser(boundary, form.callbacks())
        async for chunk in stream:
            ticket.take(len(chunk))
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise _malformed("it breaks the multipart format") from None
    if not form.ended:
        raise _malformed("it ends before its last boundary")
    if not form.pictures:
        raise _malformed("it holds no file")
    return form.pictures


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        found = kind.decode("latin-1")[:LONGEST_NAME] or "missing"
        raise RefusedError(415, "content_type", f"the content type is {found}, expected multipart/form-data: {EXAMPLE}")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise _malformed("its content type names no boundary of 1 to 70 characters")
    return boundary


def _malformed(what: str) -> RefusedError:
    return RefusedError(422, "multipart", f"the request cannot be read: {what}")


@dataclass
class _Form:
    """What the parser reported so far."""

    limits: Limits
    pictures: list[Picture] = field(default_factory=list)
    ended: bool = False
    _disposition: bytearray = field(default_factory=bytearray)
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _file: str = ""
    _data: io.BytesIO = field(default_factory=io.BytesIO)

    def callbacks(self) -> "python_multipart.multipart.MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._open,
            "on_part_data": self._fill,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = bytearray()

    def _header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name, self._value = bytearray(), bytearray()

    def _open(self) -> None:
        _, options = parse_options_header(bytes(self._disposition))
        if b"filename" not in options:
            raise _malformed(f"a part of it is no file, as it has no filename=; {EXAMPLE}")
        if len(self.pictures) == self.limits.pictures:
            reason = f"more than {self.limits.pictures} pictures in one request; send them in several"
            raise RefusedError(413, "pictures", reason, self.limits.pictures)
        self._file = options[b"filename"].decode("utf-8", "replace")[:LONGEST_NAME]

    def _fill(self, data: bytes, start: int, end: int) -> None:
        self._data.write(memoryview(data)[start:end])

    def _close(self) -> None:
        name = self._file or f"picture {len(self.pictures) + 1}"
        self.pictures.append(Picture(name, self._data.getvalue()))  # the buffer itself
        self._data = io.BytesIO()

    def _end(self) -> None:
        self.ended = True
