"""The same picture twice: equal pixels, nearly equal ones, and mirror images, with the labels that they contradict.

Near duplicates are found by a 64-bit perceptual hash (the signs of the lowest 8x8 cosine frequencies about their
median; the idea is Zauner's pHash, 2010) and then checked on pixels: the correlation of 24x24 grey thumbnails. Two
hashes that differ in at most 7 bits agree in at least one of their 8 bytes, so comparing rows that share a byte finds
every such pair.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

THUMB = 24  # px
BITS = 6  # hashes that differ in more are not compared; must stay below 8
CORRELATION = 0.98  # of the thumbnails: what a re-compressed, resized or slightly brighter copy keeps
_CHUNK = 1024  # rows of a comparison matrix held at a time


@dataclass(frozen=True)
class Signature:
    """Of one picture. digest: BLAKE2 over its size and pixels. thumb: (24, 24) uint8 grey."""

    digest: bytes
    thumb: np.ndarray


@dataclass(frozen=True)
class NearPair:
    """Rows `first` < `second` look alike. kind: "near" or "mirrored". bits: hash distance. correlation: of the
    thumbnails."""

    kind: str
    first: int
    second: int
    bits: int
    correlation: float


@dataclass(frozen=True)
class Duplicates:
    """exact: groups of two or more rows with equal pixels, each sorted. near: pairs that are not in one exact group."""

    exact: tuple[tuple[int, ...], ...]
    near: tuple[NearPair, ...]


def signature(image: np.ndarray) -> Signature:
    """Of an RGB uint8 picture (H, W, 3)."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    grey = Image.fromarray(image).convert("L").resize((THUMB, THUMB), Image.Resampling.BOX)
    return Signature(digest.digest(), np.asarray(grey))


def find(signatures: Sequence[Signature]) -> Duplicates:
    """All duplicates among the pictures, rows counted in the order given."""
    exact = _equal([s.digest for s in signatures])
    if not signatures:
        return Duplicates((), ())
    place = {row: number for number, group in enumerate(exact) for row in group}
    # One row of each exact group stands for all of it, or copies of copies would fill the list.
    alone = np.array([r for r in range(len(signatures)) if r not in place or exact[place[r]][0] == r], np.int64)
    thumbs = np.stack([signatures[row].thumb for row in alone])
    return Duplicates(exact, tuple(_near(thumbs, alone)))


def hashes(thumbs: np.ndarray) -> np.ndarray:
    """(N, 24, 24) uint8 -> (N,) uint64 perceptual hashes."""
    count = np.arange(THUMB)
    cosines = np.cos(np.pi / THUMB * (count[None, :] + 0.5) * count[:8, None]).astype(np.float32)  # DCT-II, 8 lowest
    low = (cosines @ thumbs.astype(np.float32) @ cosines.T).reshape(len(thumbs), 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)  # the first is the mean brightness
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(-1)


def _equal(digests: Sequence[bytes]) -> tuple[tuple[int, ...], ...]:
    rows = defaultdict(list)
    for row, digest in enumerate(digests):
        rows[digest].append(row)
    return tuple(tuple(group) for group in rows.values() if len(group) > 1)


def _near(thumbs: np.ndarray, rows: np.ndarray) -> Iterator[NearPair]:
    """Pairs among the thumbnails, named by `rows`."""
    straight = hashes(thumbs)
    standard = _standardised(thumbs)
    for kind, other in (("near", thumbs), ("mirrored", thumbs[:, :, ::-1])):
        flipped = _standardised(other)
        first, second, bits = _close(straight, hashes(other))
        correlation = np.einsum("ij,ij->i", standard[first], flipped[second])
        for i in np.flatnonzero(correlation >= CORRELATION):
            yield NearPair(
                kind, int(rows[first[i]]), int(rows[second[i]]), int(bits[i]), round(float(correlation[i]), 4)
            )


def _standardised(thumbs: np.ndarray) -> np.ndarray:
    """(N, 576) float32 with mean 0 and length 1; all zero where a thumbnail is of one colour."""
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length == 0, 1, length)


def _close(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows i < j with at most BITS different bits between a[i] and b[j], and that number; sorted, each pair once."""
    keys = [np.empty(0, np.int64)]
    for byte in range(8):
        band_a, band_b = ((h >> np.uint64(8 * byte)).astype(np.uint8) for h in (a, b))
        for value in range(256):
            keys.extend(_meeting(a, b, np.flatnonzero(band_a == value), np.flatnonzero(band_b == value)))
    pairs = np.unique(np.concatenate(keys))
    first, second = pairs // len(a), pairs % len(a)
    return first, second, np.bitwise_count(a[first] ^ b[second])


def _meeting(a: np.ndarray, b: np.ndarray, rows_a: np.ndarray, rows_b: np.ndarray) -> Iterator[np.ndarray]:
    """i * N + j of the close pairs among the rows that share one byte."""
    for start in range(0, len(rows_a), _CHUNK):
        part = rows_a[start : start + _CHUNK]
        distance = np.bitwise_count(a[part][:, None] ^ b[rows_b][None, :])
        i, j = np.nonzero((distance <= BITS) & (part[:, None] < rows_b[None, :]))
        yield part[i] * len(a) + rows_b[j]
