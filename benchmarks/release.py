"""From finished runs to the shipped file: export every form, measure, choose, copy, renew every result and table.

    python benchmarks/release.py RUN [RUN ...] --root DIR            writes src/mien/models/mien-small.onnx, results, documents
    python benchmarks/release.py RUN [RUN ...] --root DIR --try OUT  the same into OUT, touching nothing in the checkout

Several runs go into one file and answer with their mean. The choice is variants.chosen: for each way of looking, the smallest
file whose mean PublicTest accuracy over both heads is less than 0.3 points under float32's; of these the one that sees the
picture alone, unless the mirror image brings 0.3 points or more and one face still takes under 5 ms on one thread.
"""

import argparse
import datetime
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import public_test
import together
import variants

from mien.classifier import Classifier, Prediction
from mien.lab.protocol import commit
from mien.lab.training import export as exporting
from mien.lab.training import runs, times
from mien.lab.training.forms import VIEWS, WEIGHTS, Form

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent / "src" / "mien" / "models" / "mien-small.onnx"
KEPT = ("run.json", "metrics.csv", times.NAME)  # of the run, under benchmarks/runs


@dataclass(frozen=True)
class Places:
    """Where a release writes: the shipped file, the results, and the records of runs (None: nowhere)."""

    shipped: Path
    results: Path
    records: Path | None


class Remembered:
    """A model that classifies a face once, however often it is asked: the two heads' rows and the two views overlap."""

    def __init__(self, model: Classifier) -> None:
        self.model, self.card, self.sha256 = model, model.card, model.sha256
        self.known: dict[bytes, tuple[dict[str, np.ndarray], np.ndarray]] = {}

    def run(self, batch: np.ndarray) -> Prediction:
        keys = [row.tobytes() for row in batch]
        new = [place for place, key in enumerate(keys) if key not in self.known]
        if new:
            found = self.model.run(batch[new])
            for i, place in enumerate(new):
                self.known[keys[place]] = ({h: p[i] for h, p in found.probabilities.items()}, found.features[i])
        rows = [self.known[key] for key in keys]
        probabilities = {head: np.stack([row[0][head] for row in rows]) for head in self.card.heads}
        return Prediction(probabilities, np.stack([row[1] for row in rows]))


def export_all(folders: list[Path], root: Path, folder: Path) -> dict[str, Any]:
    """Every form of the runs' common file into `folder`. Returns what each network does alone. The temperatures are
    fitted once for each views, on float32 files of a single view at temperature 1, which ONNX Runtime runs faster than torch."""
    rows, faces = exporting.validation_rows(folders[0], root), exporting.training_rows(folders[0], root)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        paths = [exporting.export(run, Path(scratch) / f"{place}.onnx") for place, run in enumerate(folders)]
        plain = [Remembered(Classifier(path, threads=os.cpu_count() or 1)) for path in paths]
        for views in VIEWS:
            if views == "split" and len(folders) == 1:
                continue
            temperatures = exporting.fitted_temperatures(plain, rows, Form(views))
            for weights in WEIGHTS:
                out = folder / f"{weights}-{views}.onnx"
                form = Form(views, weights=weights)
                exporting.export(
                    folders, out, rows=rows, form=form, faces=faces, temperatures=temperatures, licence="Apache-2.0"
                )
                print(f"{out.name}: {out.stat().st_size / 1e6:.2f} MB, temperatures {temperatures}", flush=True)
        public = public_test.load(root)
        found = {
            run.name: together.judged(public, model.card, together.views(model, public.faces))
            for run, model in zip(folders, plain, strict=True)
        }
    return {"date": datetime.date.today().isoformat(), "commit": commit(), "networks": found}


def script(name: str, *words: str) -> None:
    """Run one of the benchmarks. Raises CalledProcessError when it fails, after printing what it said."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, str(HERE / name), *words], capture_output=True, text=True, check=False)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    if done.returncode:
        print(done.stdout + done.stderr, flush=True)
    done.check_returncode()


def measure(root: Path, places: Places) -> None:
    """Everything that the documents say of the shipped file. Its own speed first and alone, the rest two at a time."""
    common = ("--model", str(places.shipped), "--results", str(places.results))
    data = ("--root", str(root))
    script("bundled.py", *data, *common)
    jobs = (
        ("degradations.py", *data, *common, "--threads", "1"),
        ("photographs.py", *common),
        ("agreement.py", *data, *common, "--threads", "1"),
    )
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for running in [pool.submit(script, *job) for job in jobs]:
            running.result()


def record(run: Path, folder: Path) -> None:
    """Keep what the documents read of the run, and the hash of the weights that were exported."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (run / name).is_file():  # runs of before there was a times.csv have none
            shutil.copyfile(run / name, folder / name)
    digest = hashlib.sha256((run / "best.ckpt").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{digest}  best.ckpt\n", encoding="utf-8")


def release(folders: list[Path], root: Path, folder: Path, places: Places) -> Path:
    """Export into `folder`, measure all forms, ship the chosen one. Returns the chosen file."""
    for run in folders:
        print(f"{run.name}: {progress(run)}", flush=True)
    networks = export_all(folders, root, folder)
    (places.results / "networks.json").write_text(
        json.dumps(networks, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    script("variants.py", "--models", str(folder), "--root", str(root), "--results", str(places.results))
    found = json.loads((places.results / "variants.json").read_text(encoding="utf-8"))
    chosen = folder / variants.chosen(found["variants"])["file"]
    print(f"chosen: {chosen.name}", flush=True)
    shutil.copyfile(chosen, places.shipped)
    measure(root, places)
    if places.records is not None:
        for run in folders:
            record(run, places.records / run.name)
    return chosen


def progress(run: Path) -> str:
    """How far the run was trained, or what it is the mean of."""
    facts = runs.read(run)
    if "averaged" in facts:
        return f"the mean of {', '.join(one['run'] for one in facts['averaged'])}"
    done = len((run / "metrics.csv").read_text(encoding="utf-8").splitlines()) - 1
    return f"{done} of {facts['recipe']['epochs']} epochs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument(
        "--try", dest="trial", type=Path, metavar="OUT", help="write into OUT and leave the checkout alone"
    )
    options = parser.parse_args()
    began = time.monotonic()
    if options.trial is None:
        places = Places(SHIPPED, HERE / "results", HERE / "runs")
        release(options.runs, options.root, options.runs[0] / "exports", places)
        script("documents.py")
    else:
        options.trial.mkdir(parents=True, exist_ok=True)
        release(
            options.runs,
            options.root,
            options.trial / "exports",
            Places(options.trial / SHIPPED.name, options.trial, None),
        )
    print(f"{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
