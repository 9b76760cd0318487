"""Checkpoints that a kill cannot harm, and the metrics file that goes with them."""

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from mien import writing


class AtomicCheckpoints(TorchCheckpointIO):
    """Flushed to disk before the target is replaced: at any moment it is whole, old or new."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        save(checkpoint, target)


def save(content: dict[str, Any], target: Path) -> None:
    """torch.save of a whole file. Raises OSError naming it where the disk is full, which torch tells as a RuntimeError."""
    with writing.whole(target) as partial, partial.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


BEST_ON_TEST = "best_on_test.ckpt"  # of the epoch that was best on watched rows: biased, kept to show by how much


class KeepRun(Checkpoint):
    """After each epoch: a row of metrics.csv, whether this epoch is the best, whether to stop early.

    The rows of metrics.csv live in the checkpoint, so that a resumed run writes the same file as one never killed.
    """

    def __init__(self, folder: Path, *, patience: int, say: Callable[[str], None]) -> None:
        self.folder, self.patience, self.say = folder, patience, say
        self.rows: list[dict[str, float]] = []
        self.best, self.best_epoch = float("-inf"), -1
        self.best_reported, self.reported_epoch = float("-inf"), -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that had stopped early before it was resumed has nothing left to train."""
        if self.rows:
            self._stop_early(trainer, int(self.rows[-1]["epoch"]))

    def _stop_early(self, trainer: pl.Trainer, epoch: int) -> None:
        if self.patience and epoch - self.best_epoch >= self.patience:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        row = {"epoch": float(trainer.current_epoch)}
        row |= {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        self.rows.append(row)
        if trainer.is_global_zero:
            write_rows(self.folder / "metrics.csv", self.rows)
        improved = row["selection"] > self.best
        if improved:
            self.best, self.best_epoch = row["selection"], trainer.current_epoch
        if row.get("reported_accuracy", float("-inf")) > self.best_reported:
            self.best_reported, self.reported_epoch = row["reported_accuracy"], trainer.current_epoch
        self._stop_early(trainer, trainer.current_epoch)
        self.say(_line(row, improved))

    def tell_best(self) -> None:
        """Also of a run that was finished before."""
        self.say(f"best epoch {self.best_epoch}, selection {self.best:.4f}, in {self.folder / 'best.ckpt'}")

    def state_dict(self) -> dict[str, Any]:
        kept = {"best_reported": self.best_reported, "reported_epoch": self.reported_epoch}
        return {"rows": self.rows, "best": self.best, "best_epoch": self.best_epoch, **kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.best, self.best_epoch = list(state["rows"]), state["best"], state["best_epoch"]
        self.best_reported = state.get("best_reported", float("-inf"))  # absent from runs that watched nothing
        self.reported_epoch = state.get("reported_epoch", -1)


class SaveEpoch(Checkpoint):
    """best.ckpt if the selection metric rose, best_on_test.ckpt if the accuracy on watched rows did, then last.ckpt.

    Listed last, so that all hold every callback's state."""

    def __init__(self, keep: KeepRun) -> None:
        self.keep = keep

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.keep.best_epoch == trainer.current_epoch:
            trainer.save_checkpoint(self.keep.folder / "best.ckpt")
        if self.keep.reported_epoch == trainer.current_epoch:
            trainer.save_checkpoint(self.keep.folder / BEST_ON_TEST)
        trainer.save_checkpoint(self.keep.folder / "last.ckpt")


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    """Rows as CSV, whole or not at all."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with writing.whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: int(value) if name == "epoch" else f"{value:.6g}" for name, value in row.items()})


def _line(row: dict[str, float], improved: bool) -> str:
    parts = [f"epoch {int(row['epoch']):3d}"]
    parts += [f"{name} {value:.4f}" for name, value in row.items() if name.startswith(("valid_", "train_loss"))]
    return "  ".join(parts) + ("  *" if improved else "")
