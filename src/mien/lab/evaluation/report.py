"""report.html: one file with tables and figures that needs no network, in light and dark. No torch."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from mien import writing
from mien.errors import UsageError
from mien.lab.evaluation.calibration import reliability, risk_coverage
from mien.lab.evaluation.figures import class_histogram, confusion, reliability_diagram, risk_coverage_curve, to_bytes
from mien.lab.evaluation.intervals import intervals
from mien.lab.evaluation.metrics import summary
from mien.lab.evaluation.paper_table import html_table
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.statistics import LEVEL_WORDS, Interval
from mien.lab.evaluation.text import PER_CENT, PLAIN

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --rule: #d0d0d0; --soft: #f4f4f2; --quiet: #595959;
} @media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e6; --paper: #16181a; --rule: #44484c; --soft: #202427; --quiet: #a9adb1; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--rule); }
p, li { max-width: 46rem; }
.quiet { color: var(--quiet); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: .5rem 0 1rem; }
th, td { padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
td { overflow-wrap: break-word; max-width: 24rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; padding: .6rem; background: #ffffff; border: 1px solid var(--rule); border-radius: 6px; max-width:
100%; } figure img { display: block; width: 21rem; max-width: 100%; height: auto; }
figcaption { color: #595959; font-size: .85rem; padding-top: .3rem; max-width: 21rem; }
"""


@dataclass(frozen=True)
class Picture:
    """One figure of a page. data: the bytes of a PNG or SVG file. caption: also its text for those who do not see
    it."""

    data: bytes
    caption: str

    @property
    def uri(self) -> str:
        """A data URI. Inside an <img> an SVG can neither run scripts nor fetch anything."""
        kind = "png" if self.data.startswith(b"\x89PNG") else "svg+xml"
        return f"data:image/{kind};base64,{base64.b64encode(self.data).decode()}"


def page(title: str, sections: Mapping[str, str], *, lead: str = "") -> str:
    """A whole HTML document. sections: heading -> HTML that is already escaped. lead: plain text below the title."""
    body = "".join(f"<section><h2>{escape(name)}</h2>\n{html}\n</section>\n" for name, html in sections.items())
    # the policy makes a request to another host impossible, whatever a section holds
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="quiet">{escape(lead)}</p>\n{body}</main>\n</body>\n</html>\n'
    )


def pictures(shown: Sequence[Picture]) -> str:
    """The figures as HTML, side by side where there is room."""
    held = "".join(
        f'<figure><img src="{picture.uri}" alt="{escape(picture.caption)}"><figcaption>{escape(picture.caption)}</figcaption>'
        "</figure>\n"
        for picture in shown
    )
    return f'<div class="figures">{held}</div>'


def report(
    scores: Scores,
    *,
    run: Mapping[str, Any] | None = None,
    extra: Sequence[Picture] = (),
    notes: Sequence[str] = (),
    clusters: Sequence[str] | np.ndarray | None = None,
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[str]]]] | None = None,
) -> str:
    """The report of one Scores as HTML. run: the facts of run.json. extra: more figures (learning curves, t-SNE,
    grids). notes: sentences to stand at the top, leaks and mismatches first. tables: heading -> (column names, rows)
    for groups, leaks and the like. clusters: see `intervals.intervals`."""
    protocol = scores.protocol
    metrics, spans = summary(scores), intervals(scores, clusters=clusters)
    sections: dict[str, str] = {}
    if notes:
        sections["Read this first"] = "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"
    sections["Result"] = html_table(("metric", "value", f"{LEVEL_WORDS} interval", "how"), _headline(metrics, spans))
    sections["Classes"] = _absent(metrics) + html_table(
        (
            "class",
            "rows",
            "guessed",
            "precision",
            "recall",
            f"recall, {LEVEL_WORDS}",
            "F1",
            "AUC",
            "ECE",
            "ECE if calibrated",
        ),
        _classes(metrics, spans),
    )
    sections["Figures"] = pictures([*standard_pictures(scores, metrics), *extra])
    if metrics["votes"] is not None and metrics["votes"]["agreement"]:
        sections["Agreement of the annotators"] = _votes(metrics["votes"])
    for name, (head, rows) in (tables or {}).items():
        sections[name] = html_table(head, rows)
    sections["Protocol"] = html_table(("field", "value"), _facts(protocol))
    if run:
        sections["Run"] = html_table(("field", "value"), _facts(run))
    heading = f"{protocol['dataset']}, {protocol['split']}"
    return page(heading, sections, lead=f"{metrics['n']:,} rows; {protocol['label_rule']}; {protocol['views']}")


def check_name(path: Path) -> None:
    """Raises UsageError for a name that a report cannot have, before the work."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{path}: a report is one HTML file, give a name that ends in .html")


def write_report(path: Path, html: str) -> Path:
    """Write the page, whole or not at all. Raises UsageError as `check_name` does."""
    check_name(path)
    writing.text(path, html)
    return path


def standard_pictures(scores: Scores, metrics: Mapping[str, Any]) -> list[Picture]:
    """Confusion matrix, class histogram, reliability and risk-coverage of these scores, as SVG."""
    counts = np.array(metrics["confusion"])
    labels, probabilities = scores.labels, scores.probabilities
    drawn = (
        (confusion(counts, scores.classes), "Confusion matrix: per cent of each true class; rows in brackets."),
        (class_histogram(counts.sum(axis=1), scores.classes), "Rows per class."),
        (
            reliability_diagram({"this model": reliability(labels, probabilities)}),
            f"Reliability in {metrics['ece_bins']} bins of confidence; expected error {100 * metrics['ece']:.2f} %.",
        ),
        (
            risk_coverage_curve({"this model": risk_coverage(labels, probabilities)}),
            "What abstaining buys: errors among the rows that are answered, surest first.",
        ),
    )
    return [Picture(to_bytes(figure, "svg"), caption) for figure, caption in drawn]


def _headline(metrics: Mapping[str, Any], spans: Mapping[str, Interval]) -> list[tuple[str, ...]]:
    rows = [(label, metrics[name], spans.get(name), 100.0, 2) for name, label in PER_CENT]
    rows += [(label, metrics[name], spans.get(name), 1.0, 4) for name, label in PLAIN]
    found: list[tuple[str, ...]] = [
        (label, _number(value, scale, digits), *_span(span, scale, digits))
        for label, value, span, scale, digits in rows
    ]
    for risk, value in metrics["coverage_at_risk"].items():
        found.append((f"coverage at {100 * float(risk):g} % errors", f"{100 * value:.2f}", "", ""))
    return found


def _number(value: float | None, scale: float, digits: int) -> str:
    return "undefined" if value is None else f"{scale * value:.{digits}f}"


def _span(span: Interval | None, scale: float, digits: int) -> tuple[str, str]:
    if span is None:
        return "", ""
    return f"{scale * span.low:.{digits}f} to {scale * span.high:.{digits}f}", span.how


def _absent(metrics: Mapping[str, Any]) -> str:
    if not metrics["absent_classes"]:
        return ""
    names = escape(", ".join(metrics["absent_classes"]))
    return f"<p>No rows of {names}: means are over the classes that are present.</p>"


def _classes(metrics: Mapping[str, Any], spans: Mapping[str, Interval]) -> list[tuple[str, ...]]:
    return [
        (
            row["class"], f"{row['n']:,}", f"{row['predicted']:,}", _number(row["precision"], 100, 2),
            _number(row["recall"], 100, 2), _span(spans.get(f"recall/{row['class']}"), 100, 2)[0],
            _number(row["f1"], 100, 2), _number(row["auc"], 100, 2),
            _number(row["ece"], 100, 2), _number(row["ece_if_calibrated"], 100, 2),
        )
        for row in metrics["per_class"]
    ]  # fmt: skip


def _votes(votes: Mapping[str, Any]) -> str:
    head = ("top vote share", "rows", "accuracy", "votes won by the model", "most that can be won")
    rows = [
        (
            "unanimous" if row["from"] == row["to"] else f"{row['from']:g} to {row['to']:g}", f"{row['n']:,}",
            f"{100 * row['accuracy']:.2f}", f"{100 * row['model']:.2f}", f"{100 * row['human']:.2f}",
        )
        for row in votes["agreement"]
    ]  # fmt: skip
    text = f"<p>{votes['rows']:,} rows have votes; KL(votes ‖ model) is {votes['kl']:.4f} nats.</p>"
    return text + html_table(head, rows)


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in sorted(facts.items())]
