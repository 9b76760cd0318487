"""What `mien compare` is given, and what it writes: Scores files in, Markdown, CSV and HTML out. No torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mien import writing
from mien.errors import DataError
from mien.lab.evaluation.compare import FACTS, Comparison, model_table, pair_table, to_csv, to_markdown
from mien.lab.evaluation.paper_table import html_table
from mien.lab.evaluation.report import page
from mien.lab.evaluation.scores import METRICS, SCORES, Scores


def load(paths: Sequence[Path]) -> tuple[dict[str, Scores], dict[str, dict[str, float]]]:
    """Scores and known facts (keys of `compare.FACTS`, from metrics.json beside the scores) by name. paths: Scores
    files, or folders that hold one called scores.npz."""
    files = [scores_file(path) for path in paths]
    named = dict(zip(names(files), files, strict=True))
    return {name: Scores.load(file) for name, file in named.items()}, {
        name: facts_beside(file) for name, file in named.items()
    }


def scores_file(path: Path) -> Path:
    """The Scores file itself, or the one in a folder. Raises DataError for a folder that holds none."""
    if path.is_dir() and not (path / SCORES).is_file():
        raise DataError(f"{path}: no {SCORES} in this folder; write one with `mien evaluate ... -o {path}`")
    return path / SCORES if path.is_dir() else path


def names(files: Sequence[Path]) -> list[str]:
    """The folder's name of each scores.npz (another file's own stem), with as many parents as tell them apart. Raises
    DataError when one file is given twice."""
    whole = [file.resolve() for file in files]
    if len(set(whole)) < len(whole):
        twice = next(file for file in files if whole.count(file.resolve()) > 1)
        raise DataError(f"{twice}: given twice; a comparison needs different scores")
    parts = [file.parent.parts if file.name == SCORES else file.with_suffix("").parts for file in whole]
    for depth in range(1, max(map(len, parts)) + 1):
        found = ["/".join(part[-depth:]) for part in parts]
        if len(set(found)) == len(found):
            return found
    return [str(file) for file in whole]


def facts_beside(file: Path) -> dict[str, float]:
    """The "model" entry of metrics.json in the file's folder; {} where there is none."""
    try:
        held = metrics_beside(file).get("model", {})
        return {key: float(held[key]) for key, _, _ in FACTS if key in held}
    except (ValueError, TypeError) as error:
        raise _unreadable(file, error) from None


def metrics_beside(file: Path) -> dict[str, Any]:
    """metrics.json in the file's folder; {} where there is none. Raises DataError for what is no such file."""
    try:
        held = json.loads((file.parent / METRICS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    if not isinstance(held, dict):
        raise _unreadable(file, f"it holds a {type(held).__name__}")
    return held


def _unreadable(file: Path, reason: object) -> DataError:
    return DataError(
        f"{file.parent / METRICS}: cannot be read ({reason}); delete it, or write it again with `mien evaluate`"
    )


def write(comparison: Comparison, out: Path) -> tuple[Path, ...]:
    """comparison.md, .csv and .html in `out`."""
    writing.folder(out)
    texts = {"md": to_markdown(comparison), "csv": to_csv(comparison), "html": html(comparison)}
    paths = {out / f"comparison.{suffix}": text for suffix, text in texts.items()}
    for path, text in paths.items():
        writing.text(path, text)
    return tuple(paths)


def html(comparison: Comparison) -> str:
    """The comparison as one page."""
    words = ", ".join(f"{field.replace('_', ' ')} {value}" for field, value in comparison.protocol.items())
    sections: Mapping[str, str] = {
        "Models": html_table(*model_table(comparison)),
        "Paired tests": html_table(*pair_table(comparison)),
        **({"Notes": html_table(("note",), [(note,) for note in comparison.notes])} if comparison.notes else {}),
    }
    return page("Comparison", sections, lead=f"{comparison.rows:,} faces; {words}")
