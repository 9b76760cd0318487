"""The vocabulary and every dataset's codes."""

import pytest

from mien import expressions as e
from mien.errors import LabelError


def test_the_canonical_order_is_affectnets() -> None:
    assert e.EXPRESSIONS == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
    assert e.EXPRESSIONS[:7] == e.BASIC
    assert dict(enumerate(e.EXPRESSIONS)) == e.AFFECTNET


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Angry", "anger"),
        ("happiness", "happy"),
        (" SADNESS ", "sad"),
        ("surprised", "surprise"),
        ("contempt", "contempt"),
    ],
)
def test_aliases(word: str, expected: str) -> None:
    assert e.canonical(word) == expected


def test_every_alias_leads_into_the_vocabulary() -> None:
    assert set(e.ALIASES.values()) <= set(e.EXPRESSIONS)
    assert not set(e.ALIASES) & set(e.EXPRESSIONS)
    assert {e.canonical(alias) for alias in e.ALIASES} <= set(e.EXPRESSIONS)


@pytest.mark.parametrize("word", ["", "unknown", "NF", "none", "happy sad"])
def test_what_is_no_expression_is_named(word: str) -> None:
    with pytest.raises(LabelError, match="expected one of neutral"):
        e.canonical(word)


# Each dataset's own readme: code -> word, spelt out here independently of the tables under test.
@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (e.FER2013, "0 anger 1 disgust 2 fear 3 happy 4 sad 5 surprise 6 neutral"),
        (e.EXPW, "0 anger 1 disgust 2 fear 3 happy 4 sad 5 surprise 6 neutral"),
        (e.RAFDB, "1 surprise 2 fear 3 disgust 4 happy 5 sad 6 anger 7 neutral"),
        (e.AFFECTNET, "0 neutral 1 happy 2 sad 3 surprise 4 fear 5 disgust 6 anger 7 contempt"),
        (e.CKPLUS, "0 neutral 1 anger 2 contempt 3 disgust 4 fear 5 happy 6 sad 7 surprise"),
    ],
)
def test_dataset_codes(table: dict[int, str], expected: str) -> None:
    words = expected.split()
    assert {code: e.canonical(word) for code, word in table.items()} == {
        int(code): word for code, word in zip(words[::2], words[1::2], strict=True)
    }


def test_ferplus_columns() -> None:
    assert e.FERPLUS_COLUMNS[8:] == ("unknown", "NF")
    assert [e.canonical(name) for name in e.FERPLUS_COLUMNS[:8]] == [
        "neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt",
    ]  # fmt: skip
