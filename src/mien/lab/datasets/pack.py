"""`mien data pack`: a dataset as tar shards (WebDataset's naming) with an index, for sets that do not fit in memory.

The reader is shards.py; `--data NAME --root PACK` then means the pack. Rows are written one after the other, so packing
needs no more memory than training from the pack does. pack.json is written last: without it there is no pack.
"""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from mien import writing
from mien.errors import DataError, UsageError
from mien.lab.datasets.dataset import FaceDataset, fingerprint
from mien.lab.datasets.face_files import FaceFiles
from mien.lab.datasets.shards import INDEX, MANIFEST, VERSION, shard_name

ROWS = 10_000  # per shard: about 50 MB of 112 px JPEGs
_COPIED = frozenset((".jpg", ".jpeg", ".png"))  # written as they are when nothing is done to them


@dataclass(frozen=True)
class Encoding:
    """How pictures are stored. side: px that both edges are resized to, None for as they are. quality: of JPEG (1-95),
    None for lossless PNG. A picture file that needs neither resizing nor cutting nor another format is copied byte by
    byte."""

    side: int | None = None
    quality: int | None = None


def pack(
    splits: Sequence[FaceDataset],
    out: Path,
    *,
    encoding: Encoding | None = None,
    protocol: str | None = None,
    fold: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the splits (of one dataset) into the folder `out`. protocol, fold: what they were loaded with, to be told
    later.

    Raises UsageError when `out` holds something or the encoding cannot be meant, and the dataset's own error for a
    picture that cannot be read (`mien data check` lists them all).
    """
    encoding = encoding or Encoding()
    _check(splits, out, encoding)
    with writing.held(writing.folder(out)), writing.named(out):
        _pack(splits, out, encoding, protocol=protocol, fold=fold, progress=progress)


def _pack(
    splits: Sequence[FaceDataset],
    out: Path,
    encoding: Encoding,
    *,
    protocol: str | None,
    fold: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    total, done = sum(map(len, splits)), 0
    for data in splits:
        with _Writer(out, data.split, len(data)) as writer:
            for row in range(len(data)):
                suffix, picture = encoded(data, row, encoding)
                writer.add(suffix, picture, int(data.labels[row]), _described(data, row))
                done += 1
                if progress is not None:
                    progress(done, total)
        _beside(data, out)
    first = splits[0]
    manifest = {"version": VERSION, "name": first.name, "protocol": protocol, "fold": fold}
    manifest["splits"] = {data.split: _about(data, encoding) for data in splits}
    writing.text(out / MANIFEST, json.dumps(manifest, indent=1))  # last: without it there is no pack


def encoded(data: FaceDataset, row: int, encoding: Encoding) -> tuple[str, bytes]:
    """("jpg" or "png", the file's bytes) of one face."""
    files = data.read
    if encoding == Encoding() and isinstance(files, FaceFiles) and files.boxes is None:
        path = files.path(row)
        if path.suffix.lower() in _COPIED:
            return "png" if path.suffix.lower() == ".png" else "jpg", path.read_bytes()
    picture = Image.fromarray(data.read(row))
    if encoding.side is not None and picture.size != (encoding.side, encoding.side):
        picture = picture.resize((encoding.side, encoding.side), Image.Resampling.BILINEAR, reducing_gap=3.0)
    file = io.BytesIO()
    if encoding.quality is None:
        picture.save(file, "PNG", compress_level=3)
        return "png", file.getvalue()
    picture.save(file, "JPEG", quality=encoding.quality)
    return "jpg", file.getvalue()


class _Writer(AbstractContextManager["_Writer"]):
    """The shards and the index of one split."""

    def __init__(self, out: Path, split: str, rows: int) -> None:
        self._out, self._split = out, split
        self._index = np.zeros(rows, INDEX)
        self._row = 0
        self._tar: tarfile.TarFile | None = None

    def add(self, suffix: str, picture: bytes, label: int, described: bytes) -> None:
        shard, position = divmod(self._row, ROWS)
        if position == 0:
            self._close()
            path = self._out / shard_name(self._split, shard)
            self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  _close closes it
        key = f"{self._row:08d}"
        offset = self._member(f"{key}.{suffix}", picture)
        self._index[self._row] = (shard, offset, len(picture), label)
        self._member(f"{key}.cls", str(label).encode())
        self._member(f"{key}.json", described)
        self._row += 1

    def _member(self, name: str, content: bytes) -> int:
        """Append a file; returns where its content begins. Equal input gives equal bytes: no times, no owners."""
        assert self._tar is not None  # add() opened it
        begins = int(self._tar.offset) + tarfile.BLOCKSIZE  # USTAR: one header block, as names are short
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))
        return begins

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if error is None:
            writing.array(self._out / f"{self._split}.index.npy", self._index)


def _check(splits: Sequence[FaceDataset], out: Path, encoding: Encoding) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(
            f"{out} is not empty: packing never overwrites; name a new folder, or remove what a stopped packing left"
        )
    if not splits or len({data.name for data in splits}) != 1:
        raise UsageError(
            f"{len(splits)} splits of {sorted({data.name for data in splits})}: expected those of one dataset"
        )
    if encoding.side is not None and encoding.side < 8:
        raise UsageError(f"side is {encoding.side} px, expected 8 or more")
    if encoding.quality is not None and not 1 <= encoding.quality <= 95:
        raise UsageError(f"JPEG quality is {encoding.quality}, expected 1 to 95; leave it out for lossless PNG")
    broken = next((name for data in splits for name in data.ids if "\n" in name or "\r" in name), None)
    if broken is not None:
        raise DataError(f"row {broken!r} has a line break in its name; rename the file")


def _described(data: FaceDataset, row: int) -> bytes:
    """What WebDataset's users find beside the picture."""
    told: dict[str, object] = {"id": data.ids[row], "label": data.classes[int(data.labels[row])]}
    told |= {name: values[row] for name, values in data.groups.items()}
    if data.votes is not None:
        told["votes"] = [round(float(share), 6) for share in data.votes[row]]
    return json.dumps(told, ensure_ascii=False).encode()


def _about(data: FaceDataset, encoding: Encoding) -> dict[str, object]:
    """Other pixels are other rows: they have another fingerprint."""
    sides = "" if encoding.side is None else f"{encoding.side} px"
    quality = "" if encoding.quality is None else f"JPEG of quality {encoding.quality}"
    stored = ", ".join(filter(None, (sides, quality)))
    return {
        "rows": len(data),
        "label_rule": data.label_rule,
        "classes": list(data.classes),
        "fingerprint": fingerprint((), data.labels, data.fingerprint, stored) if stored else data.fingerprint,
        "note": "; ".join(filter(None, (data.note, stored and f"packed as {stored}"))),
    }


def _beside(data: FaceDataset, out: Path) -> None:
    """Ids, votes and groups, each in a file of its own so that reading a pack never walks the shards."""
    with (out / f"{data.split}.ids.txt").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{name}\n" for name in data.ids)
    if data.votes is not None:
        writing.array(out / f"{data.split}.votes.npy", data.votes)
    if data.groups:
        groups = {name: list(values) for name, values in data.groups.items()}
        (out / f"{data.split}.groups.json").write_text(json.dumps(groups, ensure_ascii=False), "utf-8")
