"""report.html: one file, complete, and unable to reach another host."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scores_fixtures import made_up

from browser import open_chromium, requested
from mien.errors import UsageError
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
        f"{100 * found['accuracy']:.2f}", f"<td>{100 * found['classwise_ece']:.2f}</td>",
        f"<td>{100 * found['per_class'][0]['ece']:.2f}</td>", "PublicTest",
        "3 rows also stand in training.", "woman", "learning curves",
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_whole_and_asks_nobody(scheme: str, tmp_path: Path) -> None:
    """In headless Chromium: no word on the console, no request but for the file, every picture drawn, nothing cut off at
    the width of a telephone or a desk."""
    scores = made_up(300, dataset="fer2013", split="PublicTest")
    file = write_report(tmp_path / "report.html", report(replace(scores, votes=np.eye(7)[scores.labels])))
    with open_chromium(tmp_path, f"blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}") as browser:
        browser.get("about:blank")  # leave the browser's own first page and its requests behind
        requested(browser)
        for width in (390, 1400):
            browser.set_window_size(width, 900)
            browser.get(file.as_uri())
            assert browser.execute_script(
                "return [...document.images].every(i => i.complete && i.naturalWidth > 0 && i.clientWidth > 100)"
            )
            assert browser.execute_script("return document.images.length") == 4
            assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        dark = browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
        assert dark is (scheme == "dark")
        assert [entry["message"] for entry in browser.get_log("browser")] == []
        asked = requested(browser)
        assert file.as_uri() in asked
        assert all(url == file.as_uri() or url.startswith("data:") for url in asked), asked


def test_it_is_written_whole_under_an_html_name(tmp_path: Path) -> None:
    path = write_report(tmp_path / "report.html", page("title", {}))
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(UsageError, match=r"ends in \.html"):
        write_report(tmp_path / "report.pdf", "")
