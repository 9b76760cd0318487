"""float32 against bfloat16 (autocast), channels-last: images/s of a training step on this processor, one thread.

    python benchmarks/arithmetic.py        (writes benchmarks/results/arithmetic.json)

CPU seconds are counted, not wall seconds, so that a busy machine disturbs less.
"""

import argparse
import datetime
import json
import os
import time
from pathlib import Path

import torch
from bundled import processor

from mien.lab.networks import NETWORKS, Shape
from mien.lab.networks.mien_small import MienSmall
from mien.lab.networks.mscar import Mscar

RESULT = Path(__file__).parent / "results" / "arithmetic.json"
BATCH = 64
CASES = {
    "mien-small": MienSmall(),
    "mien-small, two convolutions at full size": MienSmall(depths=(2, 2, 2, 2)),
    "mscar, width 0.375": Mscar(width=0.375),
    "resnet18": NETWORKS["resnet18"](),
}
SIZES = (32, 48)


def rate(network: torch.nn.Module, size: int, *, bfloat16: bool) -> float:
    """Images per CPU second of forward and backward, the best of four."""
    images = torch.rand(BATCH, 1, size, size).contiguous(memory_format=torch.channels_last)
    best = float("inf")
    for _ in range(4):
        began = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            output = network(images)
        output.logits.float().square().sum().backward()
        best = min(best, time.process_time() - began)
    return BATCH / best


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = {}
    for name, options in CASES.items():
        network = options.build(Shape(channels=1, classes=8, size=48)).to(memory_format=torch.channels_last).train()
        for size in SIZES:
            rates = {kind: round(rate(network, size, bfloat16=kind == "bfloat16")) for kind in ("float32", "bfloat16")}
            found[f"{name}, {size} px"] = rates
            print(f"{name}, {size} px: {rates}")
    facts = {
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "processor": processor(),
        "load_average": os.getloadavg()[0],
        "instructions": sorted({flag for flag in ("avx512_bf16", "amx_bf16", "avx512f") if flag in flags}),
        "images_per_cpu_second": found,
    }
    RESULT.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
