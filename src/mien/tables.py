"""Readings as rows, one for each face: for CSV, JSON lines and Parquet, whole or as they come.

A `Sink` takes rows for as long as a job runs. `commit` writes what it was given and answers with a mark; a sink opened
with that mark later on forgets whatever came after it. That is all a killed job needs to go on.
"""

import csv
import json
import os
import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mien import images, writing
from mien.errors import UsageError
from mien.expressions import EXPRESSIONS
from mien.reader import Face, Reading

if TYPE_CHECKING:
    from mien.tracking import FrameReading, TrackedFace

Row = Mapping[str, str | int | float | None]

COLUMNS: tuple[str, ...] = (
    "source", "face", "x", "y", "width", "height", "detection_score", "expression", "confidence",
    *(f"p_{name}" for name in EXPRESSIONS), "status",
)  # fmt: skip

FRAME_COLUMNS: tuple[str, ...] = (
    "source", "frame", "time_s", "track", *COLUMNS[2:-1], "smoothed_expression", "smoothed_confidence",
    *(f"s_{name}" for name in EXPRESSIONS), "status",
)  # fmt: skip

TRACK_COLUMNS: tuple[str, ...] = (
    "source", "track", "first_s", "last_s", "frames", "expression", "share", *(f"mean_{name}" for name in EXPRESSIONS),
)  # fmt: skip

FORMATS: tuple[str, ...] = ("csv", "jsonl", "parquet")
_INTEGERS = frozenset(("face", "frame", "track"))
_TEXTS = frozenset(("source", "expression", "smoothed_expression", "status"))

_HEADS = tuple(f"source,{second},".encode() for second in ("face", "frame", "track"))  # that mien's tables begin with
_ERROR = "error:"  # what the status of a failure begins with

CHECKED = 512  # bytes of a text table that `checksum` covers: the last row, or most of it

_CSV: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}


def rows(reading: Reading) -> list[Row]:
    """One row for each face, or one that says "no face". Classes that the model lacks are None."""
    if not reading.faces:
        return [_row(source=reading.source, status=reading.status)]
    return [_face_row(reading.source, number, face, reading.status) for number, face in enumerate(reading, start=1)]


def frame_rows(reading: "FrameReading") -> list[Row]:
    """The same of a video's frame, under `FRAME_COLUMNS`: its number, its time, and each face's track. p_: the frame's
    own probabilities; s_: smoothed along the track."""
    place: Row = {"source": reading.source, "frame": reading.frame, "time_s": round(reading.time_s, 6)}
    found: list[Row] = [{**_tracked_row(reading, face), **place} for face in reading.tracked]
    return [
        {column: row.get(column) for column in FRAME_COLUMNS} for row in found or [{**place, "status": reading.status}]
    ]


def _tracked_row(reading: "FrameReading", face: "TrackedFace") -> Row:
    return {
        **_face_row(reading.source, 0, face, reading.status),
        "track": face.track,
        "smoothed_expression": face.smoothed_expression,
        "smoothed_confidence": round(face.smoothed_confidence, 6),
        **{f"s_{name}": round(value, 6) for name, value in face.smoothed.items()},
    }


def kinds(columns: Iterable[str]) -> dict[str, str]:
    """pandas' type of each column of numbers."""
    return {name: "Int64" if name in _INTEGERS else "float64" for name in columns if name not in _TEXTS}


def failure(source: str, reason: str) -> Row:
    """The row of a picture that could not be read."""
    return _row(source=source, status=f"{_ERROR} {reason}")


def to_json(table: Iterable[Row]) -> str:
    """One JSON array with an object for each row."""
    return json.dumps([_spelt_row(row) for row in table], indent=1, allow_nan=False)


def write_csv(table: Iterable[Row], path: Path, *, columns: Sequence[str] = COLUMNS) -> None:
    """Write the rows under `columns` as UTF-8; text that would pass for a formula, perhaps after apostrophes, gets
    a leading apostrophe."""
    with writing.whole(path) as partial, partial.open("w", **_CSV) as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(_harmless_row(row) for row in table)


def write(table: Iterable[Row], kind: str, folder: Path) -> Path:
    """Write a whole table as `open_sink` lays it out; where it lies. It takes the place of what mien wrote there before."""
    path = place(kind, folder)
    if kind == "csv":
        write_csv(table, path)
    elif kind == "jsonl":
        writing.text(path, "".join(map(_json_line, table)))
    else:
        sink = ParquetSink(path, mark=1)  # keeps the part that is there
        sink.rewind()
        sink.add(table)
        sink.commit()
    return path


class Sink(Protocol):
    """Where the rows of a long job go. `full` says that it would rather be committed now."""

    @property
    def full(self) -> bool: ...
    def add(self, table: Iterable[Row]) -> None: ...
    def commit(self) -> int: ...
    def close(self) -> None: ...


def open_sink(kind: str, folder: Path, *, mark: int = 0, columns: Sequence[str] = COLUMNS) -> Sink:
    """faces.csv, faces.jsonl, or the folder faces.parquet of numbered parts, in `folder`.

    mark: what the last `commit` to keep gave; 0 starts anew. Raises UsageError for an unknown kind.
    """
    check_format(kind)
    sink = ParquetSink if kind == "parquet" else LineSink
    return sink(place(kind, folder), mark=mark, columns=columns)


def place(kind: str, folder: Path) -> Path:
    """Where the table of this format lies."""
    return folder / f"faces.{kind}"


def is_foreign(path: Path) -> bool:
    """Whether something lies at `path`, a table's place, that mien did not write. What is empty was never finished."""
    if path.suffix == ".parquet":
        ours = path.is_dir() and all(map(is_part, path.iterdir())) and {"source", "status"} <= _columns_of(path)
        return path.exists() and not ours
    if not path.is_file():
        return path.exists()
    with path.open("rb") as file:
        start = file.readline(200)
    return bool(start) and not start.startswith(_HEADS if path.suffix == ".csv" else (b'{"source": ',))


def sources(path: Path) -> set[str]:
    """What the rows of mien's table at `path` are of; none where there is no table, or where it cannot be read."""
    try:
        if path.suffix == ".parquet":
            columns = _pyarrow()[1].read_table(path, columns=["source"]) if path.is_dir() else None
            return set() if columns is None else set(columns["source"].to_pylist())
        with path.open(**_CSV) as file:
            if path.suffix == ".csv":
                return {images.bare(row["source"]) for row in csv.DictReader(file)}
            return {json.loads(line)["source"] for line in file}
    except Exception:  # damaged or cut off: it is replaced all the same
        return set()


def holds_frames(path: Path) -> bool:
    """Whether mien's table at `path` is of a video's frames."""
    if path.suffix == ".parquet":
        return "frame" in _columns_of(path)
    with path.open("rb") as file:
        start = file.readline()
    return start.startswith(_HEADS[1]) if path.suffix == ".csv" else b'"frame": ' in start


def _columns_of(path: Path) -> set[str]:
    """Of the Parquet table in the folder `path`, none where its first part is damaged; those of mien's where it has no part yet
    or nothing here could read it."""
    part = path / _part(0)
    if not part.exists() or find_spec("pyarrow") is None:
        return set(COLUMNS)
    pa, parquet = _pyarrow()
    try:
        return set(parquet.read_schema(part).names)
    except (pa.ArrowInvalid, OSError):
        return set()


def is_part(path: Path) -> bool:
    """Whether the name is one that mien gives to a part of a Parquet table, finished or not."""
    return re.fullmatch(r"part-\d{6,}\.parquet|\.[0-9a-f]{16}\.partial", path.name) is not None


def own(folder: Path) -> list[Path]:
    """The tables of faces in the folder that mien wrote, in whatever format."""
    places = [place(kind, folder) for kind in FORMATS]
    return [path for path in places if path.exists() and not is_foreign(path)]


def refuse_foreign(path: Path) -> None:
    """Raises UsageError where writing a table at `path` would destroy what mien did not write."""
    if is_foreign(path):
        raise UsageError(
            f"{path} is there already, and mien did not write it: move it away, or choose another folder for -o"
        )


def check_format(kind: str) -> None:
    """Raises UsageError unless `kind` is one of `FORMATS` and what writes it is installed."""
    if kind not in FORMATS:
        raise UsageError(f"unknown format {kind!r}: expected one of {', '.join(FORMATS)}")
    if kind == "parquet":
        _pyarrow()


def kept(kind: str, folder: Path) -> int:
    """The largest mark that what lies in `folder` can still honour: bytes of a text table, parts of a Parquet one."""
    if kind == "parquet":
        parts = {path.name for path in place(kind, folder).glob("part-*.parquet")}
        return next(number for number in range(len(parts) + 1) if _part(number) not in parts)
    path = place(kind, folder)
    return path.stat().st_size if path.is_file() else 0


def checksum(kind: str, folder: Path, mark: int) -> int:
    """The CRC-32 of what the table holds just before `mark` (a Parquet one's last part), which tells it from another that
    lies in its place."""
    if kind == "parquet":
        return zlib.crc32((place(kind, folder) / _part(mark - 1)).read_bytes())
    with place(kind, folder).open("rb", buffering=0) as file:
        file.seek(max(0, mark - CHECKED))
        return zlib.crc32(file.read(min(mark, CHECKED)))


def copy_without_failures(kind: str, folder: Path, target: Path, sources: Collection[str]) -> int:
    """Copy the table of this format in `folder` into the folder `target`, without the rows that say why one of `sources` could
    not be read. The copy's mark. Raises UsageError for a table that is damaged."""
    old, new = place(kind, folder), place(kind, target)
    try:
        return _copied(kind, old, new, sources)
    except (ValueError, LookupError, TypeError, csv.Error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # without a number it is pyarrow's, of the content
            raise
        raise UsageError(
            f"{old}: it is damaged ({images.reason(error)}), so that no row can be taken out; leave out --retry-failed, or "
            "choose another -o"
        ) from None


def _copied(kind: str, old: Path, new: Path, sources: Collection[str]) -> int:
    if kind == "csv":
        names = {str(_harmless(spelt(source))) for source in sources}
        with old.open("r", newline="", encoding="utf-8") as rows, new.open("w", **_CSV) as file:
            csv.writer(file).writerows(
                row for row in csv.reader(rows) if not (row[0] in names and row[-1].startswith(_ERROR))
            )
    elif kind == "jsonl":
        named = {*sources, *map(spelt, sources)}  # tables of earlier versions have the names as they are
        with old.open("rb") as lines, new.open("wb") as copy:
            copy.writelines(line for line in lines if not _is_failure(json.loads(line), named))
    else:
        return _copy_parts(old, new, {spelt(source) for source in sources})
    return new.stat().st_size


def _copy_parts(old: Path, new: Path, names: Collection[Any]) -> int:
    pa, parquet = _pyarrow()
    new.mkdir()
    parts = sorted(old.glob("part-*.parquet"))
    for part in parts:
        table = parquet.read_table(part)
        kept = [not _is_failure(row, names) for row in table.select(["source", "status"]).to_pylist()]
        parquet.write_table(table.filter(pa.array(kept, pa.bool_())), new / part.name)
    return len(parts)


def _is_failure(row: Row, sources: Collection[Any]) -> bool:
    return row["source"] in sources and str(row["status"]).startswith(_ERROR)


class LineSink:
    """CSV or JSON lines. A mark is the file's length in bytes."""

    full = True  # a line is written as soon as it is known

    def __init__(self, path: Path, *, mark: int = 0, columns: Sequence[str] = COLUMNS) -> None:
        self._path, self._file = path, path.open("r+" if mark else "w", **_CSV)
        self._file.truncate(mark)
        self._file.seek(0, os.SEEK_END)
        self._table = csv.DictWriter(self._file, columns) if path.suffix == ".csv" else None
        if self._table and not mark:
            self._table.writeheader()

    def add(self, table: Iterable[Row]) -> None:
        with writing.named(self._path):
            for row in table:
                if self._table:
                    self._table.writerow(_harmless_row(row))
                else:
                    self._file.write(_json_line(row))

    def commit(self) -> int:
        with writing.named(self._path):
            self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        with writing.named(self._path):
            self._file.close()


class ParquetSink:
    """A folder of Parquet files, which pandas, polars, DuckDB and Spark read as one table. A mark counts the parts."""

    ROWS = 5000  # of a part: small enough that a killed job repeats little, large enough to compress

    def __init__(self, folder: Path, *, mark: int = 0, columns: Sequence[str] = COLUMNS) -> None:
        self._pa, self._parquet = _pyarrow()
        folder.mkdir(exist_ok=True)
        for path in filter(is_part, folder.iterdir()):
            if path.name not in {_part(number) for number in range(mark)}:
                path.unlink()
        self._folder, self._mark = folder, mark
        self._schema = self._pa.schema([(name, _arrow_type(name, self._pa)) for name in columns])
        self._rows: list[Row] = []

    @property
    def full(self) -> bool:
        return len(self._rows) >= self.ROWS

    def add(self, table: Iterable[Row]) -> None:
        self._rows += map(_spelt_row, table)

    def commit(self) -> int:
        if self._rows:
            with writing.whole(self._folder / _part(self._mark)) as partial:  # hidden: a dataset is read by folder
                self._parquet.write_table(self._pa.Table.from_pylist(self._rows, self._schema), partial)
            self._mark += 1
            self._rows = []
        return self._mark

    def rewind(self) -> None:
        """What is committed next takes the first part's place."""
        self._mark = 0

    def close(self) -> None:
        self._rows = []


def _part(number: int) -> str:
    return f"part-{number:06d}.parquet"


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            'the format parquet needs pyarrow; run `pip install "mien[tables]"`, or take csv or jsonl'
        ) from None
    return pyarrow, pyarrow.parquet


def _arrow_type(column: str, pa: Any) -> Any:
    return pa.string() if column in _TEXTS else pa.int64() if column in _INTEGERS else pa.float64()


def spelt(value: str | int | float | None) -> str | int | float | None:
    """Bytes of a file name that are not UTF-8 are spelt out, as in the CSV: neither Parquet nor those who read JSON take them."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _spelt_row(row: Row) -> Row:
    return {name: spelt(value) for name, value in row.items()}


def _face_row(source: str, number: int, face: Face, status: str) -> Row:
    x1, y1, x2, y2 = face.box
    return _row(
        source=source,
        face=number,
        x=round(x1, 1),
        y=round(y1, 1),
        width=round(x2 - x1, 1),
        height=round(y2 - y1, 1),
        detection_score=round(face.detection_score, 6),
        expression=face.expression,
        confidence=round(face.confidence, 6),
        **{f"p_{name}": round(value, 6) for name, value in face.probabilities.items()},
        status=status,
    )


def _row(**cells: str | int | float | None) -> Row:
    return {column: cells.get(column) for column in COLUMNS}


def _json_line(row: Row) -> str:
    return json.dumps(_spelt_row(row), allow_nan=False) + "\n"


def _harmless_row(row: Row) -> dict[str, str | int | float | None]:
    return {column: _harmless(value) for column, value in row.items()}


def _harmless(value: str | int | float | None) -> str | int | float | None:
    return f"'{value}" if isinstance(value, str) and images.FORMULA.match(value) else value
