"""`mien --import FILE.py`: a network and a loss of one's own, in every command."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # starts processes

OWN = """
from dataclasses import dataclass

from torch import nn
from torch.nn import functional

from mien.lab.batch import NetworkOutput
from mien.lab.losses import LOSSES, Loss
from mien.lab.networks import NETWORKS, Network


@dataclass(frozen=True)
class Tiny:
    width: int = 4
    minimum_size = 8

    def build(self, shape):
        return TinyNetwork(self, shape)


class TinyNetwork(Network):
    def __init__(self, options, shape):
        super().__init__()
        self.convolution = nn.Conv2d(shape.channels, options.width, 3)
        self.classifier = nn.Linear(options.width, shape.classes)
        self.feature_dim = options.width

    def forward(self, images, attention=False):
        features = self.convolution(images).relu().mean((2, 3))
        return NetworkOutput(self.classifier(features), features, attention={} if attention else None)


@dataclass(frozen=True)
class Focal:
    gamma: float = 2.0
    embeddings = 0

    def build(self, task):
        return FocalLoss(self)


class FocalLoss(Loss):
    def __init__(self, options):
        super().__init__()
        self.options = options

    def forward(self, output, batch):
        logs = functional.log_softmax(output.logits, 1).gather(1, batch.labels[:, None])
        return {"focal": (-((1 - logs.exp()) ** self.options.gamma) * logs).mean()}


NETWORKS["tiny"] = Tiny
LOSSES["focal"] = Focal
"""


def mien(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mien", *words], cwd=folder, capture_output=True, text=True, check=False
    )


def test_a_network_and_a_loss_of_ones_own_train_and_are_judged(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    train = (
        "train", "mscar", "--preset", "cpu", "--network", "tiny", "--loss", "focal", "--set", "loss.gamma=1", "--set",
        "network.width=3", "--set", "epochs=1", "--data", "synthetic", "-o", "run",
    )  # fmt: skip
    refused = mien(*train, folder=tmp_path)
    assert refused.returncode == 2 and "or one of your own by `mien --import FILE.py ...`" in refused.stderr
    trained = mien("--import", "own.py", *train, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    judged = mien(
        "--import",
        "own.py",
        "evaluate",
        "run",
        "--data",
        "synthetic",
        "--split",
        "test",
        "-o",
        "judged",
        folder=tmp_path,
    )
    assert judged.returncode == 0 and "accuracy" in judged.stdout, judged.stderr


def test_a_module_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("print('run first')")
    assert mien("--import", "own", "methods", folder=tmp_path).stdout.startswith("run first")


@pytest.mark.parametrize(
    ("name", "said"), [("absent.py", "--import absent.py: no such file"), ("absent", "--import absent: no such module")]
)
def test_what_is_not_there_is_named(tmp_path: Path, name: str, said: str) -> None:
    found = mien("--import", name, "methods", folder=tmp_path)
    assert found.returncode == 2 and said in found.stderr and "Traceback" not in found.stderr
