"""The real runs of the five methods on FER-2013: how accurate, how long, how large beside the full width.

Keeps run.json, metrics.csv, times.csv and the hash of the weights of each run under benchmarks/runs, judges the run on
PublicTest (which chose its epoch) with `mien evaluate`, and renews its row in benchmarks/results/method_runs.json; the rows of
runs that are not named stay.

    python benchmarks/method_runs.py RUN... --root DIR
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from release import record

from mien.lab import methods
from mien.lab.networks import Shape
from mien.lab.networks.counts import count
from mien.lab.training import runs, times

HERE = Path(__file__).parent


def full_width(method: str, classes: int) -> dict[str, Any]:
    """Input, weights and MACs of the method as its paper trains it."""
    recipe = methods.load(method).recipes["paper"]
    shape = Shape(recipe.channels, classes, recipe.size, recipe.loss.embeddings)
    counts = count(recipe.network.build(shape), shape)
    return {"input": [recipe.channels, recipe.size], "weights": counts.weights, "macs": counts.macs}


def judged(run: Path, root: Path) -> dict[str, Any]:
    """PublicTest's accuracy and mean class recall with their intervals, and the accuracy without the rows that also stand in
    Training, as `mien evaluate` gives them."""
    with tempfile.TemporaryDirectory() as folder:
        words = ("evaluate", str(run), "--data", "fer2013", "--root", str(root), "--split", "valid", "-o", folder)
        subprocess.run([sys.executable, "-m", "mien", *words], check=True, stdout=subprocess.DEVNULL)
        found = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
    spans = {name: found["intervals"][name] for name in ("accuracy", "balanced_accuracy")}
    return {"n": found["n"], "without_copies": found["leaks"]["accuracy_without"]["value"], **spans}


def measured(run: Path, root: Path) -> dict[str, Any]:
    facts, took = runs.read(run), times.read(run)
    recipe = facts["recipe"]
    return {
        "method": facts["choice"]["method"],
        "settings": facts["choice"]["settings"],
        "started": facts["started"],
        "epochs": len(took),
        "wall_s": round(sum(row["epoch_s"] for row in took.values()), 1),
        "images_per_s": statistics.median(row["images_per_s"] for row in took.values()),
        "input": [recipe["channels"], recipe["size"]],
        "weights": sum(facts["parameters"].values()),
        "macs": facts["macs"],
        "full_width": full_width(facts["choice"]["method"], len(facts["classes"])),
        "public_test": judged(run, root),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--note", default="", help="what else the machine did meanwhile")
    options = parser.parse_args()
    path = HERE / "results" / "method_runs.json"
    found = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else {}
    for run in options.runs:
        found[run.name] = {**measured(run, options.root), "note": options.note}
        record(run, HERE / "runs" / run.name)
        print(run.name, json.dumps(found[run.name]["public_test"]["accuracy"]), flush=True)
    kept = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, {os.cpu_count()} logical cores",
        "runs": found,
    }
    path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
