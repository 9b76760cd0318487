"""Does the shipped file answer the same on a processor without VNNI (Haswell, Skylake and AMD before Zen 4, say)? Its int8 products
are summed by other instructions there. QEMU's user emulation plays that processor; what it says of time means nothing.

    python benchmarks/older_processor.py --root DIR [--cpu Haswell]       needs qemu-x86_64 (Debian: qemu-user)
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import public_test
from bundled import processor

from mien.classifier import Classifier, bundled_model
from mien.lab.protocol import commit, versions

EMULATOR = "qemu-x86_64"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--model", type=Path, default=bundled_model())
    parser.add_argument("--results", type=Path, default=public_test.RESULTS)
    parser.add_argument("--cpu", default="Haswell", help="as `qemu-x86_64 -cpu help` lists them")
    parser.add_argument("--answer", nargs=2, type=Path, metavar=("FACES", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        answer(options.model, *options.answer)
        return
    if options.root is None:
        parser.error("--root DIR: the folder of FER-2013 and FER+")
    found = measured(options.model, options.root, options.cpu)
    (options.results / "older_processor.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(json.dumps(found, indent=1))


def answer(model: Path, faces: Path, out: Path) -> None:
    """What the emulated processor does: both heads' probabilities of (N, h, w) uint8 faces, into an .npz."""
    np.savez(out, **public_test.answers(Classifier(model), np.load(faces)))


def measured(model: Path, root: Path, cpu: str) -> dict[str, Any]:
    public, here = public_test.load(root), Classifier(model, threads=os.cpu_count() or 1)
    answered = {"here": public_test.answers(here, public.faces), "there": emulated(model, public.faces, cpu)}
    version = subprocess.run([EMULATOR, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor(), **versions()},
        "emulator": version.partition(" (")[0],
        "cpu": cpu,
        "commit": commit(),
        "model_sha256": here.sha256,
        "rows": len(public.faces),
        "public_test": {where: public_test.judged(public, here.card, p) for where, p in answered.items()},
        "heads": {head: compared(p, answered["there"][head]) for head, p in answered["here"].items()},
    }


def emulated(model: Path, faces: np.ndarray, cpu: str) -> dict[str, np.ndarray]:
    """Head -> (N, K) probabilities as the emulated processor computes them, a part of the faces on each core."""
    with TemporaryDirectory() as folder:

        def part(number: int, given: np.ndarray) -> dict[str, np.ndarray]:
            asked, told = Path(folder) / f"{number}.npy", Path(folder) / f"{number}.npz"
            np.save(asked, given)
            command = (EMULATOR, "-cpu", cpu, sys.executable, __file__, "--model", str(model))
            subprocess.run(
                [*command, "--answer", str(asked), str(told)], check=True, capture_output=True
            )  # QEMU warns of what it lacks
            with np.load(told) as found:
                return dict(found)

        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as pool:
            parts = list(pool.map(part, range(cores), np.array_split(faces, cores)))
    return {head: np.concatenate([found[head] for found in parts]) for head in parts[0]}


def compared(here: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """How far two (N, K) sets of answers are apart."""
    return {
        "same_expression": float(np.mean(here.argmax(axis=1) == there.argmax(axis=1))),
        "largest_change": float(np.abs(here - there).max()),
        "mean_change": float(np.abs(here - there).max(axis=1).mean()),
    }


if __name__ == "__main__":
    main()
