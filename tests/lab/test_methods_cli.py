"""`mien methods`: what it prints of a paper, and what its JSON holds."""

import json
from dataclasses import fields

import pytest

from mien import cli
from mien.lab import methods
from mien.lab.methods.listing import page
from mien.lab.methods.method import Published

pytestmark = pytest.mark.slow  # counting MACs runs the networks at full width


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["methods", *arguments])
    assert not ended.value.code
    return capsys.readouterr().out


def test_every_method_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys).splitlines()
    for name in methods.NAMES + methods.OURS + methods.TEACHERS:
        assert any(line.startswith(f"{name} ") and methods.load(name).summary in line for line in lines)


def test_json_holds_plain_integers_beside_the_published_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "show", "mscar", "--json"))
    method = methods.load("mscar")
    assert set(found["variants"]) == set(method.variants)
    for variant in found["variants"].values():
        for key in ("trainable", "fixed", "keras_total", "macs"):
            assert type(variant[key]) is int, key
    counted = found["variants"]["mscar"]
    assert (counted["trainable"], counted["fixed"]) == (4_303_496, 0)
    assert counted["keras_total"] > counted["trainable"]
    assert counted["macs"] == pytest.approx(344.7e6, rel=1e-3)
    assert found["deviations"] == dict(method.deviations)
    assert found["recipes"]["paper"]["milestones"][0] == [81, 0.1]
    assert len(found["published"]) == len(method.published)
    assert set(found["published"][0]) == {field.name for field in fields(Published)}


def test_counts_stand_beside_the_printed_ones() -> None:
    """From made-up facts: counting LBAN's variants at full width takes a minute."""
    variant = {
        "note": "", "input": [3, 80, 80], "classes": 7, "trainable": 19_630_279, "fixed": 11_132_928,
        "keras_total": 30_800_000, "macs": 4_719_000_000,
        "published": [
            {"table": "Table 2", "column": "params", "value": 19.8, "unit": "M"},
            {"table": "Table 11", "column": "#Parameters", "value": 24_545_839, "unit": "count"},
        ],
    }  # fmt: skip
    rows = [
        {"table": "Table 6", "row": "LBAN-IL", "column": "FER-2013 Acc", "value": 73.11, "unit": "%", "quoted": ""},
        {"table": "Table 6", "row": "BoVW", "column": "FER-2013 Acc", "value": 67.48, "unit": "%", "quoted": "BoVW"},
    ]
    text = "\n".join(
        page(
            {"title": "LBAN-IL", "name": "lban-il", "citation": "c", "summary": "s", "variants": {"lban-il": variant},
             "recipes": {"paper": {"lr": 0.001}}, "deviations": {"D1": "why"}, "published": rows}
        )
    )  # fmt: skip
    for expected in (
        "19,630,279", "11,132,928", "30,800,000", "4719.0", "19.8 M (Table 2); 24545839 count (Table 11)", "lr = 0.001", "D1: why",
        "published, Table 6", "  LBAN-IL: FER-2013 Acc 73.11 %", "  BoVW (quoted): FER-2013 Acc 67.48 %",
    ):  # fmt: skip
        assert expected in text


def test_a_method_that_is_no_paper_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert "published: nothing, it is not a paper" in printed(capsys, "show", "mien-small")
