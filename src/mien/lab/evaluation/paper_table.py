"""Cells of a paper's table, printed beside measured, and their verdicts; as Markdown, CSV and HTML. No torch."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from mien.lab.evaluation.paired import holm, seed_difference
from mien.lab.evaluation.statistics import ALPHA

if TYPE_CHECKING:  # the methods import torch; a layout must not
    from mien.lab.methods.method import Published

DIGITS = {"%": 2, "fraction": 4, "M": 3, "MFLOPs": 2}  # decimals by unit; counts have none
COLUMNS = (
    "table", "row", "column", "unit", "published", "measured", "difference", "low", "high", "interval", "seeds",
    "best_on_test_biased", "status", "protocol", "scores", "sha256", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """values: one per seed, in the printed unit. mean with low, high (None without an interval) and how it was made.
    files: the Scores files and their SHA-256. biased: the mean when epochs are chosen on the reported rows, or None."""

    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None
    how: str
    files: tuple[tuple[str, str], ...]
    protocol: str
    biased: float | None


@dataclass(frozen=True)
class Cell:
    """One printed number and what became of it here. status: "measured", "measured on ...", "counted", "not run",
    "quoted from ...", "no data: ...", "failed: ..." or why no run of ours stands for it."""

    published: "Published"
    measured: Measured | None = None
    status: str = "not run"


@dataclass(frozen=True)
class Verdict:
    """Does the printed difference between two rows of a column show here? All in the printed unit. p: Holm-adjusted
    within the column. detectable: the smallest true difference that these runs would see with about 80 % power, were it the only
    one tested."""

    table: str
    column: str
    unit: str
    baseline: str
    row: str
    printed: float
    found: float
    low: float
    high: float
    p: float
    detectable: float

    @property
    def words(self) -> str:
        if self.low <= 0 <= self.high or self.p >= ALPHA:
            return "not resolved: the interval holds 0" if self.low <= 0 <= self.high else "not resolved after Holm"
        if self.printed == 0:
            return "printed: no difference"
        return "same direction as printed" if self.found * self.printed > 0 else "opposite to what is printed"


def verdicts(cells: Iterable[Cell]) -> list[Verdict]:
    """Each measured row of a column against the column's first measured row, by Welch's t over seeds (two or more a
    side)."""
    columns: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.measured is not None and len(cell.measured.values) > 1:
            columns.setdefault((cell.published.table, cell.published.column), []).append(cell)
    return [verdict for held in columns.values() for verdict in _column_verdicts(held)]


def _column_verdicts(held: Sequence[Cell]) -> list[Verdict]:
    first = held[0]
    others = [cell for cell in held[1:] if _files(cell) != _files(first)]
    tests = [seed_difference(_values(first), _values(cell)) for cell in others]
    return [
        Verdict(
            table=first.published.table,
            column=first.published.column,
            unit=first.published.unit,
            baseline=first.published.row,
            row=cell.published.row,
            printed=cell.published.value - first.published.value,
            found=test.interval.value,
            low=test.interval.low,
            high=test.interval.high,
            p=p,
            detectable=test.detectable,
        )
        for cell, test, p in zip(others, tests, holm([test.p for test in tests]), strict=True)
    ]


def _values(cell: Cell) -> tuple[float, ...]:
    return () if cell.measured is None else cell.measured.values


def _files(cell: Cell) -> tuple[tuple[str, str], ...]:
    return () if cell.measured is None else cell.measured.files


def record(cell: Cell) -> dict[str, str]:
    """One flat row, keys COLUMNS; "" where there is nothing."""
    number, found = cell.published, cell.measured
    row = {
        "table": number.table, "row": number.row, "column": number.column, "unit": number.unit,
        "published": f"{number.value:.10g}", "status": cell.status, "note": number.note,
    }  # fmt: skip
    if found is not None:
        digits = digits_of(cell)
        row |= {
            "measured": f"{found.mean:.{digits}f}",
            "difference": f"{found.mean - number.value:+.{digits}f}" if _comparable(cell) else "",
            "low": "" if found.low is None else f"{found.low:.{digits}f}",
            "high": "" if found.high is None else f"{found.high:.{digits}f}",
            "interval": found.how,
            "seeds": str(len(found.values)) if found.files else "",
            "best_on_test_biased": "" if found.biased is None else f"{found.biased:.{digits}f}",
            "protocol": found.protocol,
            "scores": " ".join(name for name, _ in found.files),
            "sha256": " ".join(digest for _, digest in found.files),
        }
    return {name: row.get(name, "") for name in COLUMNS}


def _comparable(cell: Cell) -> bool:
    """Whether measured and printed are about the same data."""
    return cell.status in ("measured", "counted")


def digits_of(cell: Cell) -> int:
    """Decimals that a unit is printed with."""
    return DIGITS.get(cell.published.unit, 0)


def to_csv(cells: Iterable[Cell]) -> str:
    """One line per printed number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(record(cell) for cell in cells)
    return text.getvalue()


def _shown(cell: Cell) -> tuple[str, ...]:
    """Row, column, published, measured with interval, difference, seeds, best on test, source."""
    row = record(cell)
    interval = f" [{row['low']}, {row['high']}]" if row["low"] else ""
    source = " ".join(
        f"{name} ({digest[:12]})" for name, digest in ([] if cell.measured is None else cell.measured.files)
    )
    note = f"{row['note']}. " if row["note"] else ""
    published = f"“{row['published']}”" if cell.published.quoted else row["published"]
    seeds, biased = row["seeds"], row["best_on_test_biased"]
    status = "" if cell.status == "measured" else f"{cell.status}. "
    return (
        row["row"], row["column"], f"{published} {row['unit']}", row["measured"] + interval, row["difference"], seeds,
        biased, f"{note}{status}{source}".rstrip(". "),
    )  # fmt: skip


HEAD = ("row", "column", "published", "measured here", "difference", "seeds", "best on test (biased)", "source")
VERDICT_HEAD = (
    "row against baseline", "column", "could be seen alone", "printed difference", "found here", "p (Holm)", "verdict",
)  # fmt: skip


def tables(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Cells by the paper's table or figure, in the paper's order."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.published.table, []).append(cell)
    return found


def _verdict_row(verdict: Verdict) -> tuple[str, ...]:
    digits = DIGITS.get(verdict.unit, 0)
    return (
        f"{verdict.row} - {verdict.baseline}", verdict.column, f"{verdict.detectable:.{digits}f}",
        f"{verdict.printed:+.{digits}f}",
        f"{verdict.found:+.{digits}f} [{verdict.low:+.{digits}f}, {verdict.high:+.{digits}f}]", f"{verdict.p:.3g}",
        verdict.words,
    )  # fmt: skip


def protocols(cells: Iterable[Cell]) -> list[str]:
    """The protocols that the measured cells were made under, each once."""
    return list(dict.fromkeys(cell.measured.protocol for cell in cells if cell.measured and cell.measured.protocol))


def to_markdown(title: str, cells: Sequence[Cell], *, intro: Sequence[str] = ()) -> str:
    """A page with one table per printed table, the protocols, and the verdicts over seeds."""
    lines = [f"# {title}", "", *intro, *([""] if intro else [])]
    for name, held in tables(cells).items():
        lines += [f"## {name}", "", *markdown_rows(HEAD, [_shown(cell) for cell in held]), ""]
        lines += [f"- protocol: {protocol}" for protocol in protocols(held)]
        judged = verdicts(held)
        if judged:
            lines += ["", *markdown_rows(VERDICT_HEAD, [_verdict_row(verdict) for verdict in judged])]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def markdown_rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def html_body(cells: Sequence[Cell]) -> Mapping[str, str]:
    """Heading -> HTML of each printed table, for `report.page`."""
    return {name: _html_section(held) for name, held in tables(cells).items()}


def _html_section(held: Sequence[Cell]) -> str:
    parts = [html_table(HEAD, [_shown(cell) for cell in held])]
    found = protocols(held)
    if found:
        parts.append("<ul>" + "".join(f"<li>{escape(protocol)}</li>" for protocol in found) + "</ul>")
    judged = verdicts(held)
    if judged:
        parts.append(html_table(VERDICT_HEAD, [_verdict_row(verdict) for verdict in judged]))
    return "\n".join(parts)


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in a box that scrolls sideways; numbers align right by CSS, text is escaped."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'
