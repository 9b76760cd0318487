"""How fast faces load, against the training step that they feed, and how much memory 400,000 of them take.

Writes benchmarks/results/loading.json. Every rate is the best of several repeats, because other programs share the
machine; the load average is recorded beside it.

    python benchmarks/loading.py --root FOLDER_WITH_fer2013.csv[.xz] [--faces 400000] [--repeats 3]
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mien.card import InputSpec
from mien.lab import datasets
from mien.lab.datasets import fer2013, synthetic
from mien.lab.datasets.dataset import FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset
from mien.lab.datasets.pack import pack
from mien.lab.networks import NETWORKS, Shape
from mien.lab.training import feed

RESULT = Path(__file__).parent / "results" / "loading.json"
DRAWN = 1000  # distinct pictures; more rows repeat them under ids of their own
BATCH = 128
STEPS = {48: "mien-small", 112: "resnet18"}  # px -> the network whose step is timed


def best_rate(work: Callable[[], int], repeats: int) -> float:
    """The highest of several images per second; `work` returns how many images it handled."""
    rates = []
    for _ in range(repeats):
        begin = time.perf_counter()
        count = work()
        rates.append(count / (time.perf_counter() - begin))
    return round(max(rates), 1)


def spec(side: int) -> InputSpec:
    return InputSpec(side, side, "grey", (0.5,), (0.25,))


def drawn_files(folder: Path, side: int, count: int) -> FaceDataset:
    """`count` rows in JPEG files of drawn faces, as a dataset that lies in files is."""
    faces = synthetic.load(split="train", spec=synthetic.Spec(rows=(DRAWN, 1, 1), side=side))
    folder.mkdir()
    for row in range(DRAWN):
        Image.fromarray(faces.read(row)).save(folder / f"{row:04d}.jpg", quality=90)
    rows = np.arange(count)
    names = tuple(f"{row % DRAWN:04d}.jpg" for row in rows)
    ids = tuple(f"Manually_Annotated_Images/{row % 1000}/{row:040x}.jpg" for row in rows)  # as long as AffectNet's
    listing = Listing(FaceFiles(str(folder), names), faces.labels[rows % DRAWN], {}, ids)
    return dataset(
        listing, name="synthetic", split="train", label_rule="drawn", classes=faces.classes, allow_partial=False
    )


def fer_times(root: Path, repeats: int) -> dict[str, float]:
    """Seconds to load FER-2013's training rows from the CSV, and from the cache of the decoded pixels."""

    def seconds(cache: bool) -> float:
        begin = time.perf_counter()
        fer2013.load(root, split="train", cache=cache)
        return time.perf_counter() - begin

    cold = min(seconds(False) for _ in range(repeats))
    seconds(True)
    return {"cold_s": round(cold, 2), "cached_s": round(min(seconds(True) for _ in range(repeats)), 2)}


def loader_rate(data: FaceDataset, side: int, repeats: int, *, lazily: bool) -> float:
    """Images/s through the training loader; lazily: decoding in every epoch, else from memory."""
    feed.IN_MEMORY = 0 if lazily else 2 * 1024**3
    loader = feed.training_loader(data, spec(side), batch=BATCH, seed=0)
    return best_rate(lambda: sum(len(batch.labels) for batch in loader), repeats)


def step_rate(side: int, repeats: int) -> float:
    """Images/s of forward, backward and SGD step alone, in float32 on all cores."""
    network = NETWORKS[STEPS[side]]().build(Shape(channels=1, classes=8, size=side)).train()
    optimiser = torch.optim.SGD(network.parameters(), 0.01)
    images, labels = torch.randn(BATCH, 1, side, side), torch.randint(0, 8, (BATCH,))

    def step() -> int:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images).logits, labels).backward()
        optimiser.step()
        return BATCH

    step()
    return best_rate(step, max(3, repeats))


def rates(folder: Path, repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for side, network in STEPS.items():
        files = drawn_files(folder / str(side), side, 4 * DRAWN)
        pack([files], folder / f"pack{side}")
        packed = datasets.load("synthetic", folder / f"pack{side}", split="train")
        memory = loader_rate(files, side, repeats, lazily=False)
        found[f"{side} px"] = {
            "loader_memory": memory,
            "loader_files": loader_rate(files, side, repeats, lazily=True),
            "loader_shards": loader_rate(packed, side, repeats, lazily=True),
            "step_network": network,
            "step": step_rate(side, repeats),
        }
    return found


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Pack `count` faces at 112 px, then train from the pack in a process of its own and read its peak resident
    memory."""
    begin = time.perf_counter()
    pack([drawn_files(folder / "faces", 112, count)], folder / "pack")
    packed = round(time.perf_counter() - begin, 1)
    size = sum(path.stat().st_size for path in (folder / "pack").iterdir())
    command = [sys.executable, __file__, "--train-from", str(folder / "pack")]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {"faces": count, "pack_s": packed, "pack_bytes": size} | json.loads(told)


def train_from(root: Path) -> dict[str, Any]:
    """One pass over every row of the pack in random order, with a training step on every 200th batch."""
    torch.manual_seed(0)
    before = peak()
    data = datasets.load("synthetic", root, split="train")
    loaded = peak()
    network = NETWORKS["mien-small"]().build(Shape(channels=1, classes=8, size=112)).train()
    optimiser = torch.optim.SGD(network.parameters(), 0.01)
    begin, seen, early = time.perf_counter(), 0, 0.0
    for number, batch in enumerate(feed.training_loader(data, spec(112), batch=64, seed=0)):
        seen += len(batch.labels)
        if number % 200 == 0:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(batch.images - 0.5).logits, batch.labels).backward()
            optimiser.step()
        if number == 500:
            early = peak()
    return {
        "rows_seen": seen,
        "seconds": round(time.perf_counter() - begin, 1),
        "peak_MB_after_import": before,
        "peak_MB_after_load": loaded,
        "peak_MB_after_500_batches": early,
        "peak_MB": peak(),
    }


def peak() -> float:
    """Highest resident memory of this process so far, MB."""
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory at the fork
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="FER-2013; left out: its figures are not taken again")
    parser.add_argument("--faces", type=int, default=400_000)
    parser.add_argument("--repeats", type=int, default=3, help="0: the rates are not taken again")
    parser.add_argument("--train-from", type=Path, help="(used by the benchmark itself) print the memory of training")
    options = parser.parse_args()
    if options.train_from is not None:
        print(json.dumps(train_from(options.train_from)))
        return
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.root is not None and options.repeats:
            found["fer2013_train"] = fer_times(options.root, options.repeats)
        if options.repeats:
            found["images_per_s"] = rates(folder, options.repeats)
        if options.faces:
            found["memory"] = memory(folder, options.faces)
    found["taken"] = datetime.date.today().isoformat()
    found["cores"], found["load_average"] = os.cpu_count(), round(os.getloadavg()[0], 1)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
