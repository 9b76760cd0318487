"""Which labels and which of the papers' losses help the bundled model's network? Short second passes from one trained start.

    python benchmarks/ablations.py START --root DIR -o RUNS --teacher ANSWERS.npz --seeds 2   trains what is missing, in turn
    python benchmarks/ablations.py                                                            only the results, from the records

START is a checkpoint of the network (mien-small-7's best.ckpt: 48 epochs from a random start, both label sets), ANSWERS what
`mien cross-fit` wrote of fold-1-of-3-second, fold-2-of-3-second and fold-3-of-3-second. Every pass has the same faces (FER-2013's
Training), epochs, augmentation and learning rate; its loss alone differs. The epoch is chosen on PublicTest, on which the accuracy
is told: by that accuracy, of a pass on both label sets by the mean of both. Records go to benchmarks/ablations, results to
benchmarks/results/ablations.json. Killed, it goes on where it was.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from method_runs import judged
from release import record
from scipy.stats import dunnett

from mien.lab.training import runs, times

HERE = Path(__file__).resolve().parent
RECORDS = HERE / "ablations"
RESULT = HERE / "results" / "ablations.json"
SCORE = "score.json"  # beside a run's record: its FER-2013 figures on PublicTest, by `mien evaluate`
METRICS = ("accuracy", "balanced_accuracy")
COMMON = (
    "epochs=2",
    "lr=0.02",
    "warmup=0.02",
    "sizes=((0.0,48),)",
    "augment.cutout=0.3",
    "network.dropout=0.2",
)


@dataclass(frozen=True)
class Pass:
    """loss: of mien.lab.losses, None for the recipe's own (two-heads). settings: of that loss."""

    name: str
    loss: str | None
    settings: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """What `mien train` is told, besides where."""
        data = ["--data", "ferplus"] if self.loss is None else ["--data", "fer2013", "--loss", self.loss]
        single = () if self.loss is None else ("network.second_head=False",)
        return [*data, *(word for one in (*COMMON, *single, *self.settings) for word in ("--set", one))]

    @property
    def taught(self) -> bool:
        """Whether it learns from the out-of-fold answers."""
        return any(setting.startswith("loss.teacher_weight") for setting in self.settings)


BASELINE = "labels alone"
PASSES = (
    Pass(BASELINE, "softmax"),
    Pass("labels and votes", None),
    Pass("labels and votes, rare classes counted more", None, ("loss.balance=0.25",)),
    Pass("labels, votes and out-of-fold answers", None, ("loss.teacher_weight=0.5",)),
    Pass("WCL's weighted softmax", "weighted-softmax"),
    Pass("WCL's weighted-cluster loss", "weighted-cluster", ("loss.weight=0.1", "loss.centre_init=batch-means")),
    Pass("LBAN-IL's islets loss", "islets", ("loss.weight=0.03", "loss.centre_init=batch-means")),
    Pass("Ad-Corre's loss, k embeddings", "ad-corre"),
    Pass("MSCAR's cosine loss", "cosine"),
    Pass("labels alone, smoothed by 0.1", "softmax", ("loss.smoothing=0.1",)),
)


def folder_of(one: Pass, seed: int) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in one.name.lower()).split()
    return f"{'-'.join(words)}-seed-{seed}"


def train(one: Pass, seed: int, options: argparse.Namespace) -> Path:
    run: Path = options.out / folder_of(one, seed)
    where = ["--root", options.root, "-o", run, "--pretrained", options.start, "--seed", seed, "--resume"]
    taught = ["--teacher", options.teacher] if one.taught else []
    subprocess.run(
        [sys.executable, "-m", "mien", "train", "mien-small", *one.words, *map(str, where + taught)], check=True
    )
    return run


def measured(one: Pass) -> dict[str, Any] | None:
    """The pass's scores over the seeds that were run; None when there is none."""
    stem = folder_of(one, 0).removesuffix("0")
    found = sorted(score.parent for score in RECORDS.glob(f"{stem}*/{SCORE}"))
    if not found:
        return None
    scores = [json.loads((folder / SCORE).read_text(encoding="utf-8")) for folder in found]
    took = [sum(row["epoch_s"] for row in times.read(folder).values()) for folder in found]
    return {
        **asdict(one),
        "values": {metric: [held[metric]["value"] for held in scores] for metric in METRICS},
        "minutes": statistics.median(took) / 60,
        "start": runs.read(found[0])["pretrained"],
        "days": sorted({runs.read(folder)["started"][:10] for folder in found}),
    }


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with its difference from the baseline where both have two seeds: Dunnett's simultaneous 95 % intervals
    and p, which share the spread between seeds of all these rows."""
    base = next(row for row in rows if row["name"] == BASELINE)
    repeated = [row for row in rows if len(row["values"]["accuracy"]) > 1]
    others = [row for row in repeated if row is not base]
    if base not in repeated or not others:
        return rows
    for metric in METRICS:
        control = base["values"][metric]
        samples = [row["values"][metric] for row in others]
        found = dunnett(*samples, control=control, rng=np.random.default_rng(0))
        span = found.confidence_interval(0.95)
        for row, values, p, low, high in zip(others, samples, found.pvalue, span.low, span.high, strict=True):
            difference = statistics.mean(values) - statistics.mean(control)
            told = {"difference": {"value": difference, "low": float(low), "high": float(high)}, "p": float(p)}
            row.setdefault("against_baseline", {})[metric] = told
    return rows


def tell() -> None:
    rows = [row for row in map(measured, PASSES) if row is not None]
    kept = {
        "settings": list(COMMON),
        "baseline": BASELINE,
        "passes": compared(rows),
    }
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(row["name"], row["values"], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start", type=Path, nargs="?", metavar="START")
    parser.add_argument("--root", type=Path)
    parser.add_argument("-o", "--out", type=Path, metavar="RUNS")
    parser.add_argument("--teacher", type=Path, metavar="ANSWERS")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    if options.start is not None:
        if options.root is None or options.out is None or options.teacher is None:
            parser.error("training needs --root, -o and --teacher")
        for seed in range(options.seeds):
            for one in PASSES:
                if (RECORDS / folder_of(one, seed) / SCORE).is_file():
                    continue
                run = train(one, seed, options)
                record(run, RECORDS / run.name)
                told = json.dumps(judged(run, options.root), indent=1) + "\n"
                (RECORDS / run.name / SCORE).write_text(told, encoding="utf-8")
    tell()


if __name__ == "__main__":
    main()
