"""Does a paper's claim hold at this scale, beyond noise? Reads the Scores files that `mien reproduce` left, compares every
row of a table with the row that the paper improves on, and writes benchmarks/results/claims.json.

    mien reproduce METHOD --table N --data NAME --root DIR --preset cpu --seeds 3 -o benchmarks/reproductions ...
    python benchmarks/claims.py

Per row: the mean over seeds, its difference from the baseline's mean with Welch's t interval, p after Holm over the rows
for each metric, and the smallest difference that so many seeds would have shown. Trains nothing; rows without Scores files
of at least two seeds are left out.
"""

import argparse
import datetime
import json
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mien.errors import DataError
from mien.lab import methods
from mien.lab.evaluation.metrics import summary, value_of
from mien.lab.evaluation.paired import holm, seed_difference
from mien.lab.evaluation.scores import SCORES, Scores
from mien.lab.methods.method import Method, Published
from mien.lab.reproduce import Plan, jobs_of, selected
from mien.lab.training import runs, times

HERE = Path(__file__).parent
RUNS = HERE / "reproductions"
RESULT = HERE / "results" / "claims.json"
SEEDS = 3


@dataclass(frozen=True)
class Claim:
    """table, rows, data: as `mien reproduce` was asked. baseline: the row that the others improve on. printed: the metric
    that the paper prints for them."""

    method: str
    table: str
    data: str
    baseline: str
    rows: str = ""
    metrics: tuple[str, ...] = ("accuracy", "balanced_accuracy")
    printed: str = "accuracy"


CLAIMS = (
    Claim("ad-corre", "8", "fer2013", "CE"),
    Claim("lban-il", "6", "fer2013", "LBAN softmax", rows="LBAN"),
    Claim(
        "wcl", "5", "fer2013", "1: scratch, softmax", rows="scratch",
        metrics=("accuracy", "balanced_accuracy", "recall/disgust"),
    ),
    Claim("resface", "6", "ferplus", "ResNet-18, cross-entropy", rows="ResNet-18"),
    Claim("mscar", "3", "ferplus", "1: no SE, no BN"),
)  # fmt: skip


def printed_rows(method: Method, claim: Claim) -> dict[str, Published]:
    """Row name -> the number that the paper prints for the metric, measured on the claim's data where it has them."""
    plan = Plan(table=claim.table, rows=claim.rows)
    found: dict[str, Published] = {}
    for number in selected(method.published, plan):
        fits = number.metric == claim.printed and number.variant and not number.quoted
        if fits and (number.row not in found or number.dataset == claim.data):
            found[number.row] = number
    return found


def seeds_of(method: Method, number: Published, claim: Claim) -> list[Path]:
    """The folders of the row's finished runs."""
    plan = Plan(preset="cpu", seeds=SEEDS, data=claim.data)
    jobs = [
        job for seed in range(SEEDS) for job in jobs_of(method, replace(number, dataset=claim.data), plan, seed=seed)
    ]
    return [RUNS / job.folder for job in jobs if (RUNS / job.folder / SCORES).is_file()]


def defined(held: dict[str, Any], metric: str) -> float:
    value = value_of(held, metric)
    if value is None:
        raise DataError(f"{metric} is undefined in these scores; leave it out of the claim's metrics")
    return float(value)


def judged(claim: Claim) -> dict[str, Any] | None:
    """The claim's rows, each with its metrics over seeds and the differences from the baseline; None before the baseline
    and one row have two seeds."""
    method = methods.load(claim.method)
    numbers = printed_rows(method, claim)
    folders = {row: seeds_of(method, number, claim) for row, number in numbers.items()}
    folders = {row: found for row, found in folders.items() if len(found) > 1}
    if claim.baseline not in folders or len(folders) < 2:
        return None
    values = {row: [summary(Scores.load(folder / SCORES)) for folder in found] for row, found in folders.items()}
    measured = {
        row: {metric: [defined(held, metric) for held in found] for metric in claim.metrics}
        for row, found in values.items()
    }
    others = [row for row in measured if row != claim.baseline]
    pairs = {
        (row, metric): seed_difference(measured[claim.baseline][metric], measured[row][metric])
        for row in others
        for metric in claim.metrics
    }
    adjusted: dict[tuple[str, str], float] = {}
    for metric in claim.metrics:  # as `mien reproduce` does for a column
        ps = [pairs[row, metric].p for row in others]
        adjusted |= {(row, metric): p for row, p in zip(others, holm(ps), strict=True)}
    base = numbers[claim.baseline]
    scale = 1.0 if base.unit == "fraction" else 100.0
    every = [folder for found in folders.values() for folder in found]
    asked = json.loads((RUNS / claim.method / "cpu" / "asked.json").read_text(encoding="utf-8"))
    return {
        **asdict(claim),
        "epochs": runs.read(every[0])["recipe"]["epochs"],
        "settings": asked["settings"],
        "minutes": statistics.median(sum(row["epoch_s"] for row in times.read(run).values()) for run in every) / 60,
        "rows": {
            row: {
                "printed": numbers[row].value / scale,
                "printed_on": numbers[row].dataset,
                "values": measured[row],
                "against_baseline": {
                    metric: {
                        "printed": (numbers[row].value - base.value) / scale if metric == claim.printed else None,
                        "difference": asdict(pairs[row, metric].interval),
                        "detectable": pairs[row, metric].detectable,
                        "p": pairs[row, metric].p,
                        "p_holm": adjusted[row, metric],
                    }
                    for metric in claim.metrics
                    if row != claim.baseline
                },
            }
            for row in measured
        },
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = {f"{claim.method}, Table {claim.table}": judged(claim) for claim in CLAIMS}
    kept = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "claims": {name: held for name, held in found.items() if held is not None},
    }
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for name, held in found.items():
        print(f"{name}: {'not measured' if held is None else ', '.join(held['rows'])}")


if __name__ == "__main__":
    main()
