"""Multipart bodies, whole and broken, however they are cut into chunks."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mien.web.limits import Gate, Limits, RefusedError
from mien.web.uploads import Picture, parse

HEAD = b'--x\r\nContent-Disposition: form-data; name="p"; filename="%s"\r\n\r\n'


def body(*files: tuple[bytes, bytes]) -> bytes:
    return b"".join(HEAD % name + data + b"\r\n" for name, data in files) + b"--x--\r\n"


def parsed(chunks: Sequence[bytes], limits: Limits | None = None) -> list[Picture]:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    limits = limits or Limits()
    with Gate(limits).ticket() as ticket:
        return asyncio.run(parse(stream(), b"x", limits=limits, ticket=ticket))


@given(
    st.lists(st.binary(max_size=40).filter(lambda data: b"--x" not in data), min_size=1, max_size=4),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_any_content_in_any_chunks(contents: list[bytes], cuts: list[int]) -> None:
    whole = body(*((b"a", data) for data in contents))
    edges = [0, *sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    chunks = [whole[start:end] for start, end in pairwise(edges)]
    assert [bytes(picture.data) for picture in parsed(chunks)] == contents


@given(st.integers(0, 120))
def test_a_body_that_stops_early_is_refused(length: int) -> None:
    whole = body((b"a", b"data"))[:-2]  # what ends at its last boundary is whole, with or without the line's end
    with pytest.raises(RefusedError) as refused:
        parsed([whole[: min(length, len(whole) - 2)]])
    assert (refused.value.status, refused.value.code) == (422, "multipart")


@pytest.mark.parametrize(("broken", "reason"), [
    (b"", "ends before its last boundary"),
    (b"--x--\r\n", "breaks the multipart format|holds no file"),
    (b"--y\r\n", "breaks the multipart format"),
    (b"nonsense", "breaks the multipart format"),
    (HEAD.replace(b'; filename="%s"', b"") + b"1\r\n--x--\r\n", "a part of it is no file"),
    (b"--x\r\n\r\n1\r\n--x--\r\n", "a part of it is no file"),
    (b"--x\r\nContent-Disposition\xff: form-data\r\n\r\n1\r\n--x--\r\n", "breaks the multipart format"),
])  # fmt: skip
def test_broken_bodies(broken: bytes, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as refused:
        parsed([broken])
    assert refused.value.status == 422


def test_names() -> None:
    files = parsed([body((b"", b"1"), ("ü".encode(), b"2"), (b"\xff", b"3"), (b"y" * 300, b"4"))])
    assert [picture.name for picture in files] == ["picture 1", "ü", "\ufffd", "y" * 255]
