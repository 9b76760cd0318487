"""Rows, JSON and CSV."""

import csv
import json
from pathlib import Path

import pytest

from mien import tables
from mien.expressions import BASIC, EXPRESSIONS
from mien.reader import Face, Reading


def face(labels: tuple[str, ...] = BASIC) -> Face:
    probabilities = dict.fromkeys(labels, 0.1)
    probabilities["happy"] = 1 - 0.1 * (len(labels) - 1)
    return Face((-3.25, 4.0, 10.0, 20.46), None, 0.987654321, "happy", probabilities["happy"], probabilities)


def test_columns_are_the_documented_ones() -> None:
    expected = ["source", "face", "x", "y", "width", "height", "detection_score", "expression", "confidence"]
    expected += [f"p_{name}" for name in EXPRESSIONS] + ["status"]
    assert list(tables.COLUMNS) == expected


def test_a_row_for_each_face() -> None:
    first, second = tables.rows(Reading("a.jpg", 100, 80, (face(), face())))
    assert tuple(first) == tables.COLUMNS
    assert (first["face"], second["face"]) == (1, 2)
    assert [first[name] for name in ("x", "y", "width", "height")] == [-3.2, 4.0, 13.2, 16.5]
    assert first["detection_score"] == 0.987654
    assert (first["expression"], first["confidence"], first["p_happy"]) == ("happy", 0.4, 0.4)
    assert first["p_contempt"] is None and first["status"] == "ok"


def test_no_face_and_failure_are_rows() -> None:
    (row,) = tables.rows(Reading("a.jpg", 100, 80, ()))
    assert row["source"] == "a.jpg" and row["status"] == "no face"
    assert all(value is None for name, value in row.items() if name not in ("source", "status"))
    assert tables.failure("b.jpg", "truncated")["status"] == "error: truncated"


def test_json_is_an_array_of_those_rows() -> None:
    rows = tables.rows(Reading("naïve \udce9.jpg", 100, 80, (face(EXPRESSIONS),)))
    spelt = [
        row | {"source": "naïve \\udce9.jpg"} for row in rows
    ]  # a lone surrogate is no text to others who read JSON
    assert json.loads(tables.to_json(rows)) == spelt
    assert json.loads(tables.to_json([])) == []


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_disarms_formulas_in_text_only(tmp_path: Path, start: str) -> None:
    name = start + "cmd|' /C calc'!A0,\"x\"\n.jpg"
    tables.write_csv(tables.rows(Reading(name, 100, 80, (face(),))), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["source"] == "'" + name
    assert float(row["x"]) == -3.2  # a number is a number
    assert row["p_contempt"] == ""


def test_no_two_names_are_one_in_a_csv(tmp_path: Path) -> None:
    names = ["=x.jpg", "'=x.jpg", "''=x.jpg", "'x.jpg", "x.jpg"]
    tables.write_csv([tables.failure(name, "no such file") for name in names], tmp_path / "faces.csv")
    with (tmp_path / "faces.csv").open(newline="", encoding="utf-8") as file:
        assert [row["source"] for row in csv.DictReader(file)] == [*("'" + name for name in names[:3]), *names[3:]]
    assert tables.sources(tmp_path / "faces.csv") == set(names)
    (tmp_path / "copy").mkdir()
    tables.copy_without_failures("csv", tmp_path, tmp_path / "copy", ["=x.jpg"])
    assert tables.sources(tmp_path / "copy" / "faces.csv") == set(names[1:])


def test_csv_writes_names_that_are_not_unicode(tmp_path: Path) -> None:
    tables.write_csv([tables.failure("\udce9.jpg", "no such file")], tmp_path / "t.csv")
    assert r"\udce9.jpg" in (tmp_path / "t.csv").read_text("utf-8")


@pytest.mark.parametrize("kind", tables.FORMATS)
def test_a_whole_table_is_written_in_any_format(tmp_path: Path, kind: str) -> None:
    rows = tables.rows(Reading("a.jpg", 100, 80, (face(), face())))
    path = tables.write(rows, kind, tmp_path)
    assert path == tmp_path / f"faces.{kind}"
    if kind == "csv":
        tables.write_csv(rows, tmp_path / "t.csv")
        assert path.read_bytes() == (tmp_path / "t.csv").read_bytes()
    elif kind == "jsonl":
        assert [json.loads(line) for line in path.read_text().splitlines()] == [dict(row) for row in rows]
    else:
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(path).to_pylist() == [dict(row) for row in rows]


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_parquet_table_is_one_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: int) -> None:
    """What a killed process leaves is the table before or after, and can be read."""
    from pyarrow import parquet

    table = tables.place("parquet", tmp_path)
    for _ in range(earlier):
        tables.write([tables.failure("a.jpg", "")], "parquet", tmp_path)
    kept, replace = [], Path.replace

    def look(self: Path, target: Path) -> Path:
        kept.append(tables.sources(table))
        replace(self, target)
        kept.append(set(parquet.read_table(table)["source"].to_pylist()))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", look)
        patched.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        with pytest.raises(KeyboardInterrupt):
            tables.write([tables.failure("b.jpg", "")], "parquet", tmp_path)
    assert kept == [{"a.jpg"} if earlier else set(), {"b.jpg"}]
    (table / ".0123456789abcdef.partial").write_bytes(b"half")
    assert not tables.is_foreign(table) and tables.sources(table) == {"b.jpg"}
    tables.open_sink("parquet", tmp_path, mark=1).close()
    assert [path.name for path in table.iterdir()] == ["part-000000.parquet"]


@pytest.mark.parametrize("kind", tables.FORMATS)
def test_the_checksum_tells_a_table_from_another(tmp_path: Path, kind: str) -> None:
    def written(name: str, sources: str) -> tuple[Path, int]:
        (tmp_path / name).mkdir()
        sink = tables.open_sink(kind, tmp_path / name)
        for source in sources:
            sink.add([tables.failure(source, "no such file")])
            mark = sink.commit()
        sink.close()
        return tmp_path / name, mark

    one, mark = written("one", "ab")
    more, _ = written("more", "abc")
    other, same = written("other", "ax")
    assert mark == same
    assert tables.checksum(kind, one, mark) == tables.checksum(kind, more, mark) != tables.checksum(kind, other, mark)
