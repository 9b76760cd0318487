"""What a resumed run must remember besides its weights, and seeds of any size."""

from pathlib import Path

import numpy as np
import pytest
import small_fer
import torch

from mien.lab.losses import AdCorre, Task
from mien.lab.training.recipes import Choice
from mien.lab.training.trainer import Source, train

TINY = ("network.width=0.0625", "batch=16", "lr=0.01")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return small_fer.write(tmp_path / "data")


def trained(
    folder: Path, root: Path, *settings: str, loss: str | None = None, seed: int = 0, resume: bool = False
) -> list[str]:
    """The rows of metrics.csv."""
    choice = Choice("mscar", "cpu", loss=loss, settings=TINY + settings)
    source = Source("fer2013", root, allow_partial=True)
    run = train(choice, source, folder, seed=seed, resume=resume, threads=1, say=lambda line: None)
    return (run / "metrics.csv").read_text().splitlines()


@pytest.mark.slow
def test_a_run_that_stopped_early_trains_no_more(data: Path, tmp_path: Path) -> None:
    settings = ("epochs=30", "early_stop=2", "lr=1e-9")
    rows = trained(tmp_path / "run", data, *settings)
    weights = (tmp_path / "run" / "last.ckpt").read_bytes()
    assert len(rows) < 10
    assert trained(tmp_path / "run", data, *settings, resume=True) == rows
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == weights


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["early_stop=0", "early_stop=1"])
def test_a_finished_run_tells_its_best_epoch_again(data: Path, tmp_path: Path, stop: str) -> None:
    said: list[list[str]] = [[], []]
    for resume, say in zip((False, True), (one.append for one in said), strict=True):
        choice = Choice("mscar", "cpu", settings=(*TINY, "epochs=2", "lr=1e-9", stop))
        source = Source("fer2013", data, allow_partial=True)
        train(choice, source, tmp_path / "run", seed=0, resume=resume, threads=1, say=say)
    told = [line for line in said[0] if line.startswith("best epoch 0, selection ")]
    assert len(told) == 1 and said[1][-1:] == told


class KilledError(Exception):
    pass


@pytest.mark.slow
def test_a_virtual_batch_goes_on_after_a_kill(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first half holds embeddings of the batches before, which the weights do not tell."""
    from mien.lab.training.module import Training

    settings = ("epochs=2", "loss.virtual=3")
    whole = trained(tmp_path / "whole", data, *settings, loss="ad-corre")
    step = Training.training_step

    def dying(self: Training, batch: object, index: int) -> torch.Tensor:
        if self.current_epoch == 1:
            raise KilledError
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "training_step", dying)
        with pytest.raises(KilledError):
            trained(tmp_path / "killed", data, *settings, loss="ad-corre")
    assert trained(tmp_path / "killed", data, *settings, loss="ad-corre", resume=True) == whole


def test_remembered_batches_travel_with_the_state() -> None:
    loss = AdCorre(k=2, virtual=4).build(Task((3, 3, 3), 8))
    drawn = torch.Generator().manual_seed(0)
    for label in range(2):
        loss.memory.appendleft((torch.rand(5, 2, 4, generator=drawn), torch.full((5,), label)))
    other = AdCorre(k=2, virtual=4).build(Task((3, 3, 3), 8))
    other.load_state_dict(loss.state_dict())
    assert other.memory.maxlen == 3 and len(other.memory) == 2
    for (held, labels), (expected, given) in zip(other.memory, loss.memory, strict=True):
        assert torch.equal(held, expected) and torch.equal(labels, given)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [20_240_101, 2**63 - 1])
def test_any_seed_trains(data: Path, tmp_path: Path, seed: int) -> None:
    rows = trained(tmp_path / "run", data, "epochs=1", seed=seed)
    assert np.isfinite(float(rows[1].split(",")[rows[0].split(",").index("train_loss")]))
