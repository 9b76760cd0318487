"""Another tool's answers on a split, as a table: what is not a model of mien's is judged and compared by them. No torch."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from mien.errors import DataError, LabelError
from mien.expressions import canonical
from mien.lab.datasets import FaceDataset
from mien.lab.evaluation.evaluate import aligned_to, unmatched
from mien.lab.evaluation.metrics import checked
from mien.lab.evaluation.scores import Scores
from mien.lab.protocol import command_line, commit, file_sha256

ID = "id"


def is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def read(path: Path, data: FaceDataset) -> Scores:
    """The Scores of a CSV with a row for each row of `data`, in any order: `id` as in data.ids (a picture's path in its dataset,
    or the number of its row in the official file), and a column of probabilities for each class of the tool, called like the
    class (happy, or p_happy). Classes that the data lack are dropped and the rest renormalised, as of a model; answers to other
    rows, as those that a label rule leaves out, are counted in the note. Raises DataError naming what is amiss: columns, rows that
    are missing or doubled, and numbers that are no probabilities."""
    names, answered = _table(path, data.classes)
    absent = [name for name in data.ids if name not in answered]
    others = len(answered.keys() - set(data.ids))
    if absent:
        raise DataError(
            f"{path}: {len(absent)} of {len(data.ids)} rows of {data.name} {data.split} have no answer, first {absent[0]!r}; "
            f"{others} answers are to other ids"
        )
    told = np.array([answered[name] for name in data.ids], np.float64)
    facts: dict[str, Any] = {
        "dataset": data.name,
        "data_fingerprint": data.fingerprint,
        "split": data.split,
        "label_rule": data.label_rule,
        "note": "; ".join(
            filter(
                None,
                (
                    data.note,
                    f"{others} answers to other rows" if others else "",
                    unmatched(told, names, data.classes),
                ),
            )
        ),
        "views": "as answered",
        "head": "as answered",
        "model_sha256": file_sha256(path),
        "method": "answers in a table",
        "selection_rule": "not known: answers in a table",
        "seed": "not known",
        "command": command_line(),
        "commit": commit(),
    }
    ids = np.array(data.ids)
    own = Scores(np.zeros(len(told), np.int64), told.astype(np.float32), names, ids, facts)
    try:
        checked(own)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return Scores(data.labels, aligned_to(told, names, data.classes), data.classes, ids, facts, votes=data.votes)


def _table(path: Path, known: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    """The classes in the order of their columns, and each id's numbers. known: classes of the dataset, expressions or not."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            head = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected a CSV in UTF-8") from None
    columns = [name.strip().lower() for name in head]
    if columns.count(ID) != 1:
        raise DataError(
            f"{path}: columns {', '.join(head)}: expected one called {ID}, and one for each class, as happy"
        )
    try:
        words = [(place, name.removeprefix("p_")) for place, name in enumerate(columns) if name != ID]
        named = [(place, word if word in known else canonical(word)) for place, word in words]
    except LabelError as error:
        raise DataError(f"{path}: {error}; expected {ID} and a column for each class") from None
    classes = tuple(name for _, name in named)
    if len(set(classes)) < max(2, len(classes)):
        raise DataError(f"{path}: classes {', '.join(classes)}: expected two or more, each once")
    found: dict[str, list[float]] = {}
    for line, row in rows:
        try:
            key, numbers = row[columns.index(ID)], [float(row[place]) for place, _ in named]
        except (IndexError, ValueError):
            raise DataError(f"{path}: line {line}: {', '.join(row)}: expected {', '.join(head)}") from None
        if key in found:
            raise DataError(f"{path}: line {line}: {key!r} stands there twice; expected each row once")
        found[key] = numbers
    return classes, found
