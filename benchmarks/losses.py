"""What each loss costs: forward, backward and its own update, as a share of a training step, and against plain loops.

The step is ResNet-18 at full width, 48 px grey, batch 64, forward and backward. Times are this process's CPU time on one
thread (medians), so that a busy machine changes them little. Prints a table and writes benchmarks/results/losses.json.

    python benchmarks/losses.py [--repeats 15]
"""

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses import LOSSES, Loss, Task
from mien.lab.networks import NETWORKS, Shape

BATCH, CLASSES, SIDE, FEATURES, EMBEDDINGS = 64, 7, 48, 512, 7
OWN = ("two-heads",)  # needs the bundled model's second head
RESULT = Path(__file__).parent / "results" / "losses.json"


class Teacher(nn.Module):
    """Answers at no cost: what is measured is the loss, not a teacher."""

    def forward(self, batch: Batch) -> NetworkOutput:
        logits = batch.images.flatten(1)[:, :CLASSES]
        return NetworkOutput(logits, logits)


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median CPU time of `work` after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def batch() -> Batch:
    labels = torch.arange(BATCH) % CLASSES
    votes = torch.full((BATCH, CLASSES), 1 / CLASSES)
    return Batch(torch.rand(BATCH, 1, SIDE, SIDE), labels, votes, torch.arange(BATCH))


def output() -> NetworkOutput:
    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, requires_grad=True)

    return NetworkOutput(leaf(BATCH, CLASSES), leaf(BATCH, FEATURES), leaf(BATCH, EMBEDDINGS, 256))


def step_seconds(repeats: int) -> float:
    network = NETWORKS["resnet18"]().build(Shape(1, CLASSES, SIDE)).train()
    images = batch().images
    return cpu_seconds(lambda: network(images).logits.square().mean().backward(), repeats)


def loss_seconds(loss: Loss, repeats: int) -> float:
    made, rows = output(), batch()

    def work() -> None:
        torch.stack(list(loss(made, rows).values())).sum().backward()
        with torch.no_grad():
            loss.after_step(made, rows)

    return cpu_seconds(work, repeats)


# The same terms with one Python iteration per sample or pair


def correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / ((a * a).sum() * (b * b).sum() + 1e-12).sqrt()


def ad_corre_loops(made: NetworkOutput, rows: Batch) -> Tensor:
    """FD, MD and ED of Ad-Corre with equal class weights."""
    assert made.embeddings is not None
    e, y = made.embeddings, rows.labels.tolist()
    total = torch.zeros(())
    for m in range(EMBEDDINGS):
        for i in range(BATCH):
            for j in range(BATCH):
                if i != j:
                    target = 1.0 if y[i] == y[j] else -1.0
                    total = total + 2 * (target - correlation(e[i, m], e[j, m])).abs() / (EMBEDDINGS * BATCH**2)
        means = [e[[i for i in range(BATCH) if y[i] == c], m].mean(dim=0) for c in range(CLASSES)]
        for c in range(CLASSES):
            for d in range(CLASSES):
                if c != d:
                    total = total + (1 + correlation(means[c], means[d])).abs() / (EMBEDDINGS * CLASSES**2)
    for i in range(BATCH):
        for m in range(EMBEDDINGS):
            for o in range(EMBEDDINGS):
                if m != o:
                    total = total + (1 + correlation(e[i, m], e[i, o])).abs() / (BATCH * EMBEDDINGS**2)
    return total


def centre_loops(made: NetworkOutput, rows: Batch) -> Tensor:
    """L_C, L_cos and L_p of the islets loss."""
    centres, total = 0.01 * torch.randn(CLASSES, FEATURES), torch.zeros(())
    for i in range(BATCH):
        total = total + 0.5 * (made.features[i] - centres[int(rows.labels[i])]).square().sum() / BATCH
    distances = torch.zeros(())
    for j in range(CLASSES):
        for k in range(CLASSES):
            if j != k:
                total = total + centres[j] @ centres[k] / (centres[j].norm() * centres[k].norm()) + 1
            if j < k:
                distances = distances + (centres[j] - centres[k]).norm()
    return total + torch.exp(-0.5 * distances)


def cluster_loops(made: NetworkOutput, rows: Batch) -> Tensor:
    """L_wc of the weighted-cluster loss."""
    centres, total = 0.01 * torch.randn(CLASSES, FEATURES), torch.zeros(())
    for i in range(BATCH):
        y = int(rows.labels[i])
        spread = sum((centres[k] - centres[y]).square().sum() for k in range(CLASSES) if k != y)
        total = total + 0.5 * (made.features[i] - centres[y]).square().sum() / (spread + 1) / BATCH
    return total


LOOPS: dict[str, Callable[[NetworkOutput, Batch], Tensor]] = {
    "islets": centre_loops,
    "weighted-cluster": cluster_loops,
    "ad-corre": ad_corre_loops,
}


def measure(repeats: int) -> dict[str, object]:
    step = step_seconds(max(3, repeats // 3))
    rows = {}
    for name, options in LOSSES.items():
        if name in OWN:
            continue
        loss = options().build(Task((10,) * CLASSES, FEATURES, teacher=Teacher(), has_votes=True))
        seconds = loss_seconds(loss, repeats)
        rows[name] = {"ms": 1e3 * seconds, "share_of_step_percent": 100 * seconds / step}
        if name in LOOPS:
            made, data, loops = output(), batch(), LOOPS[name]
            slow = cpu_seconds(lambda: loops(made, data).backward(), 1)  # noqa: B023 - called at once
            rows[name] |= {"loops_ms": 1e3 * slow, "times_faster": slow / seconds}
    return {"step_ms": 1e3 * step, "losses": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = measure(repeats)
    about = {"date": datetime.date.today().isoformat(), "torch": torch.__version__, "machine": platform.machine()}
    RESULT.write_text(json.dumps({**about, "batch": BATCH, "repeats": repeats, **found}, indent=2) + "\n")
    print(f"training step {found['step_ms']:.0f} ms (ResNet-18, 48 px, batch {BATCH}, one thread)")
    for name, row in found["losses"].items():  # type: ignore[attr-defined]
        loops = f", plain loops {row['loops_ms']:.0f} ms ({row['times_faster']:.0f} x)" if "loops_ms" in row else ""
        print(f"{name:20} {row['ms']:7.2f} ms {row['share_of_step_percent']:6.2f} %{loops}")


if __name__ == "__main__":
    main()
