"""Printed tables as data: a grid of rows and columns becomes `Published` numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

from mien.lab.methods.method import Published


@dataclass(frozen=True)
class Column:
    """One column of a printed table; the fields are those of `Published`."""

    name: str
    dataset: str = ""
    metric: str = ""
    unit: str = "%"


@dataclass(frozen=True)
class Row:
    """One row: its values in the columns' order, None where the paper prints none."""

    name: str
    values: tuple[float | None, ...]
    variant: str = ""
    quoted: str = ""
    note: str = ""


def grid(table: str, columns: tuple[Column, ...], rows: Iterable[Row]) -> tuple[Published, ...]:
    """Every number of the table, row by row. A row must have as many values as there are columns."""
    return tuple(
        Published(
            table, row.name, column.name, value, column.unit, column.dataset, column.metric,
            row.variant, row.quoted, row.note,
        )
        for row in rows
        for column, value in zip(columns, row.values, strict=True)
        if value is not None
    )  # fmt: skip


def quoted(name: str, *values: float | None, note: str = "") -> Row:
    """A row that the paper quotes from another work."""
    return Row(name, values, quoted=name, note=note)
