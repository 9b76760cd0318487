"""How training scales from one process to two, one thread each, as ratios: strong (the same batch) and weak (twice the batch).

Both ranks of one pair take all measurements in turn, round after round, so that a busy machine disturbs them alike:

    one     rank 0 steps a batch of B by itself, rank 1 waits
    apart   both ranks step at once, by themselves, on a batch of B / 2 (and of B): what two cores can do without any exchange
    strong  both ranks step together on a batch of B, half each
    weak    both ranks step together on a batch of 2 B, B each

Speed-up is images per second over those of `one`. The ceiling is that of `apart`: two processes on one machine share caches, memory
and clock. Noise is the slowest over the fastest `one`. Writes benchmarks/results/scaling_training.json.

    python benchmarks/scaling.py [--rounds 7] [--steps 12]
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mien.lab import ranks
from mien.lab.batch import Batch
from mien.lab.losses import Task
from mien.lab.methods import load
from mien.lab.methods.method import Recipe
from mien.lab.networks import Shape
from mien.lab.training import distributed, launch, runs
from mien.lab.training.module import Training, build_optimiser

RESULT = Path(__file__).parent / "results" / "scaling_training.json"
METHODS = {"mien-small": 64, "mscar": 32, "ad-corre": 32}  # method, at its cpu preset in float32 -> B
CLASSES = 8
WARM_UP = 2  # steps before the clock starts


class Step(nn.Module):
    """What DistributedDataParallel wraps; Lightning has it call `training_step` in the same way."""

    def __init__(self, module: Training) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Batch, index: int) -> Tensor:
        return self.module.training_step(batch, index)


def recipe_of(name: str) -> Recipe:
    return replace(load(name).recipes["cpu"], precision="float32", sizes=())


def stepper(recipe: Recipe) -> Callable[[Batch, int], None]:
    """A whole training step over the ranks that there are: forward, loss, backward, optimiser, loss state, average."""
    torch.manual_seed(0)
    network = recipe.network.build(Shape(recipe.channels, CLASSES, recipe.size, recipe.loss.embeddings))
    network.to(memory_format=torch.channels_last)
    loss = recipe.loss.build(Task((100,) * CLASSES, network.feature_dim, has_votes=True))
    module = Training(recipe, network, loss, spec=runs.spec_of(recipe), seed=0, steps=100, validation=("none",)).train()
    step: nn.Module = Step(module)
    if ranks.count() > 1:
        distributed.convert(module.network)
        step = DistributedDataParallel(step, **distributed.DDP_OPTIONS)
    optimiser = build_optimiser(recipe, module.network)

    def take(batch: Batch, index: int) -> None:
        found = step(batch, index)
        optimiser.zero_grad()
        found.backward()
        optimiser.step()
        module.on_train_batch_end(None, batch, index)

    return take


def drawn(recipe: Recipe, rows: int) -> Batch:
    """Noise pictures as the loader gives them."""
    side = recipe.resize or recipe.size
    labels = torch.arange(rows) % 7  # the second head of mien-small has seven
    votes = torch.full((rows, CLASSES), 1 / CLASSES)
    return Batch(torch.rand(rows, recipe.channels, side, side), labels, votes, torch.arange(rows))


def seconds(take: Callable[[Batch, int], None], batch: Batch, steps: int) -> float:
    """Median seconds of a step."""
    times = []
    for index in range(WARM_UP + steps):
        begin = time.perf_counter()
        take(batch, index)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[WARM_UP:])


def alone() -> Any:
    """What is built and run inside takes this process for the only one."""
    return mock.patch.multiple(ranks, count=lambda: 1, own=lambda: 0)


def measure(folder: Path, rounds: int, steps: int) -> None:
    """One rank: step times in seconds by method, round and measurement, written by rank 0."""
    with launch.joined(launch.Layout(2)):
        found: dict[str, list[dict[str, float]]] = {}
        for name, rows in METHODS.items():
            recipe = recipe_of(name)
            with alone():
                single = stepper(recipe)
            both = stepper(recipe)
            found[name] = [one_round(recipe, single, both, rows, steps) for _ in range(rounds)]
        if ranks.own() == 0:
            (folder / "times.json").write_text(json.dumps(found))
        dist.barrier()


def one_round(
    recipe: Recipe, single: Callable[[Batch, int], None], both: Callable[[Batch, int], None], rows: int, steps: int
) -> dict[str, float]:
    half, full = drawn(recipe, rows // 2), drawn(recipe, rows)
    times = {}
    with alone():
        if dist.get_rank() == 0:
            times["one"] = seconds(single, full, steps)
        dist.barrier()
        times["apart half"] = seconds(single, half, steps)
        dist.barrier()
        times["apart full"] = seconds(single, full, steps)
    dist.barrier()
    times["strong"] = seconds(both, half, steps)
    times["weak"] = seconds(both, full, steps)
    dist.barrier()
    return times


def ratios(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Speed-ups over one process, each the median of the rounds with the lowest and the highest."""

    def spread(values: list[float]) -> dict[str, float]:
        return {
            k: round(v, 3)
            for k, v in (("median", statistics.median(values)), ("low", min(values)), ("high", max(values)))
        }

    return {
        "step_one_ms": spread([1e3 * r["one"] for r in rounds]),
        "strong": spread([r["one"] / r["strong"] for r in rounds]),
        "strong_ceiling": spread([r["one"] / r["apart half"] for r in rounds]),
        "weak": spread([2 * r["one"] / r["weak"] for r in rounds]),
        "weak_ceiling": spread([2 * r["one"] / r["apart full"] for r in rounds]),
        "noise": round(max(r["one"] for r in rounds) / min(r["one"] for r in rounds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=12, help="timed steps per measurement")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the ranks
    load_before = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as name:
        launch.spawn(measure, (Path(name), options.rounds, options.steps), {}, launch.Layout(2))
        times = json.loads((Path(name) / "times.json").read_text())
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average_before": load_before,
        "rounds": options.rounds,
        "steps": options.steps,
        "methods": {name: {"batch": METHODS[name], **ratios(rounds)} for name, rounds in times.items()},
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    for name, row in found["methods"].items():
        print(
            f"{name:12} batch {row['batch']:3}: one process {row['step_one_ms']['median']:.0f} ms a step, noise {row['noise']:.2f}"
        )
        for kind in ("strong", "weak"):
            got, most = row[kind], row[f"{kind}_ceiling"]
            print(
                f"   {kind:6} {got['median']:.2f} x ({got['low']:.2f} to {got['high']:.2f}), without exchange "
                f"{most['median']:.2f} x: {100 * got['median'] / most['median']:.0f} % of it"
            )


if __name__ == "__main__":
    main()
