"""Should idle OpenMP threads sleep or spin? Images/s of a training step of cpu presets, by OMP_WAIT_POLICY and threads.

    python benchmarks/waiting.py        (writes benchmarks/results/waiting.json; the machine must be otherwise idle)

Each case is a process of its own, since the policy is read when the library loads: bfloat16 autocast, channels-last, the
preset's batch and augmentation, forward, backward and the optimiser's step; medians of ten. The loss is the logits' mean
log-sum-exp, so the methods' own terms are not in it.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

RESULT = Path(__file__).parent / "results" / "waiting.json"
METHODS = ("lban-il", "wcl", "resface", "mscar", "ad-corre", "mien-small")
CASES = (("passive", 1), ("passive", 2), ("active", 2), (None, 2))  # None: the variable is not set
STEPS = 10


def rate(name: str, threads: int) -> float:
    """Images per second of the method's cpu preset on random pictures."""
    import torch

    from mien.lab import methods
    from mien.lab.networks import Shape
    from mien.lab.training.augment import augment
    from mien.lab.training.module import build_optimiser

    torch.set_num_threads(threads)
    recipe = methods.load(name).recipes["cpu"]
    network = recipe.network.build(Shape(recipe.channels, 7, recipe.size, recipe.loss.embeddings)).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    side = recipe.resize or recipe.size
    pictures, ids = torch.rand(recipe.batch, recipe.channels, side, side), np.arange(recipe.batch)
    optimiser = build_optimiser(recipe, network)
    took = []
    for step in range(STEPS + 2):
        began = time.perf_counter()
        images = augment(
            pictures, ids, recipe.augment, size=recipe.size, window=recipe.size / side, seed=0, epoch=step
        ).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(images)
        optimiser.zero_grad()
        output.logits.float().logsumexp(-1).mean().backward()
        optimiser.step()
        took.append(time.perf_counter() - began)
    return recipe.batch / statistics.median(took[2:])


def measured(name: str, policy: str | None, threads: int) -> float:
    setting = {"OMP_WAIT_POLICY": policy} if policy else {}
    others = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    words = [sys.executable, __file__, name, str(threads)]
    return float(subprocess.run(words, env=others | setting, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    if len(sys.argv) == 3:  # one case, for the process that `measured` starts
        print(rate(sys.argv[1], int(sys.argv[2])))
        return
    argparse.ArgumentParser(description=__doc__).parse_args()
    load = os.getloadavg()[0]
    found = {
        name: {f"{policy or 'unset'}, {threads}": round(measured(name, policy, threads)) for policy, threads in CASES}
        for name in METHODS
    }
    kept = {
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "load_average": load,
        "images_per_s": found,
    }
    RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    for name, rates in found.items():
        print(name, rates)


if __name__ == "__main__":
    main()
