"""report.html: one file, complete, and unable to reach another host."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scores_fixtures import made_up

from mien.errors import DataError
from mien.lab.evaluation.metrics import summary
from mien.lab.evaluation.report import Picture, page, report, write_report

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

pytest.importorskip("sklearn", reason="needs the extra eval")
pytest.importorskip("matplotlib", reason="needs the extra eval")

VOID = {"meta", "link", "img", "br"}


class Document(HTMLParser):
    """Collects what a page would fetch, and whether its tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_whole_and_self_contained() -> None:
    scores = made_up(300, dataset="fer2013", split="PublicTest")
    votes = np.eye(7, dtype=np.float32)[scores.labels]
    text = report(
        replace(scores, votes=votes),
        run={"recipe": {"lr": 0.01}},
        extra=[Picture(b"\x89PNG\r\n\x1a\n", "learning curves")],
        notes=["3 rows also stand in training."],
        tables={"Groups: gender": (("gender", "rows"), [("woman", "10")])},
    )
    document = Document(text)
    assert document.open == []
    assert document.links
    assert all(link.startswith("data:") for link in document.links)
    assert "script" not in document.tags
    assert document.tags.count("img") == 5
    found = summary(scores)
    for expected in (
        f"{100 * found['accuracy']:.2f}", "PublicTest", "3 rows also stand in training.", "woman", "learning curves",
        "prefers-color-scheme: dark", "default-src 'none'", scores.protocol["model_sha256"],
    ):  # fmt: skip
        assert expected in text


def test_text_from_outside_is_escaped() -> None:
    text = report(made_up(100, dataset="<script>alert(1)</script>"), notes=["<b>&"])
    assert "<script>" not in text
    assert "&lt;b&gt;&amp;" in text
    assert Document(page("<i>", {"<u>": "<p>kept</p>"})).tags.count("p") == 2


def test_absent_classes_are_said() -> None:
    scores = made_up(100)
    labels = np.where(scores.labels == 5, 0, scores.labels)
    assert "No rows of disgust" in report(replace(scores, labels=labels))


def test_it_is_written_whole_under_an_html_name(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", page("title", {}))
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(DataError, match=r"ends in \.html"):
        write_report(tmp_path / "report.pdf", "")
