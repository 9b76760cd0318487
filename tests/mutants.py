"""Hostile pictures: damaged, mislabelled and lying copies of a portrait, from a seed."""

import functools
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

BOMBS = (7100, 9000, 12_000)  # px of each side; 7,071 make 50 megapixels
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = ("jpg", "png", "webp", "bmp", "gif", "tif", "ppm", "heic", "avif", "txt", "mp4", "")


@dataclass(frozen=True)
class Mutant:
    """kind: what was done to it. name: the file name that it claims."""

    kind: str
    name: str
    data: bytes


def mutants(portrait: Image.Image, count: int, *, seed: int) -> Iterator[Mutant]:
    """`count` mutants of the portrait, all kinds in turn, the same ones for the same seed."""
    random = np.random.default_rng(seed)
    originals = {name: encode(portrait, name) for name in FORMATS}
    for number in range(count):
        kind, make = list(KINDS.items())[number % len(KINDS)]
        format = FORMATS[int(random.integers(len(FORMATS)))]
        yield Mutant(kind, f"{number}.{random.choice(SUFFIXES)}", make(originals[format], random))


def encode(picture: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _flip_late(data: bytes, random: np.random.Generator) -> bytes:
    """Up to four bits, none in the first quarter: most decoders get through."""
    return _flip(data, random, first=len(data) // 4, most=4)


def _flip_anywhere(data: bytes, random: np.random.Generator) -> bytes:
    return _flip(data, random, first=0, most=64)


def _flip_header(data: bytes, random: np.random.Generator) -> bytes:
    return _flip(data[:128], random, first=0, most=8) + data[128:]


def _flip(data: bytes, random: np.random.Generator, *, first: int, most: int) -> bytes:
    changed = bytearray(data)
    for _ in range(int(random.integers(1, most + 1))):
        changed[int(random.integers(first, len(data)))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _truncate(data: bytes, random: np.random.Generator) -> bytes:
    return data[: int(random.integers(len(data)))]


def _splice(data: bytes, random: np.random.Generator) -> bytes:
    """A piece cut out, or put in twice."""
    start, end = sorted(int(place) for place in random.integers(0, len(data), 2))
    return data[:start] + data[end:] if random.random() < 0.5 else data[:end] + data[start:]


def _append(data: bytes, random: np.random.Generator) -> bytes:
    return data + random.bytes(int(random.integers(1, 4096)))


def _mislabel(data: bytes, random: np.random.Generator) -> bytes:
    """Nothing but the name is wrong."""
    return data


def _noise(data: bytes, random: np.random.Generator) -> bytes:
    """A format's signature, then anything."""
    return data[: int(random.integers(0, 24))] + random.bytes(int(random.integers(0, 2048)))


def _huge_header(data: bytes, random: np.random.Generator) -> bytes:
    """A header that promises far more pixels than the file has."""
    width, height = (int(random.integers(1, 2**k)) for k in random.integers(8, 31, 2))
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    gif = b"GIF89a" + struct.pack("<HH", width % 65536, height % 65536) + b"\x80\x00\x00"
    ppm = b"P6 %d %d 255\n" % (width, height)
    return (png, bmp, gif, ppm)[int(random.integers(4))] + random.bytes(64)


def _hostile_exif(data: bytes, random: np.random.Generator) -> bytes:
    """Whole pixels, and an EXIF block that is noise, points at itself or holds an absurd orientation."""
    loop = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"
    absurd = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + random.bytes(4) + b"\0\0\0\0"
    block = (loop, absurd, b"Exif\0\0" + random.bytes(200))[int(random.integers(3))]
    with Image.open(io.BytesIO(data)) as picture:
        return encode(picture.convert("RGB"), "JPEG", exif=block)


def _bomb(data: bytes, random: np.random.Generator) -> bytes:
    """More pixels than any limit allows, all of them there."""
    return bomb(BOMBS[int(random.integers(len(BOMBS)))])


@functools.cache
def bomb(side: int) -> bytes:
    """A PNG of few bytes and side x side black pixels, made without holding them."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 1 + (side % 8 > 0))) for _ in range(side)) + packer.flush()
    ihdr = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = ((b"IHDR", ihdr), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def many_scans(count: int, side: int = 64) -> bytes:
    """A grey progressive JPEG with `count` scans too many: each a few bytes, and a pass over all its pixels."""
    whole = encode(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    end, last = whole.rindex(b"\xff\xd9"), whole.rindex(b"\xff\xda")
    return whole[:end] + count * whole[last:end] + whole[end:]


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


KINDS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "late flips": _flip_late,
    "flips": _flip_anywhere,
    "mislabelled": _mislabel,
    "header flips": _flip_header,
    "hostile EXIF": _hostile_exif,
    "truncated": _truncate,
    "appended": _append,
    "spliced": _splice,
    "EXIF again": _hostile_exif,
    "huge header": _huge_header,
    "late flips again": _flip_late,
    "noise": _noise,
    "mislabelled again": _mislabel,
    "bomb": _bomb,
    "appended again": _append,
}
