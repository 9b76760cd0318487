"""How long each epoch took: times.csv beside metrics.csv, which stays the same however fast the machine was."""

import csv
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from mien import writing

NAME = "times.csv"
COLUMNS = ("epoch", "train_s", "epoch_s", "images_per_s")


class KeepTimes(pl.Callback):
    """One row per trained epoch, added as it ends: train_s, seconds from its start to the end of its last step; epoch_s,
    seconds with validation; images_per_s, training rows over train_s. An epoch that a kill undid has a row each time."""

    def __init__(self, folder: Path, batch: int) -> None:
        self.path, self.batch = folder / NAME, batch
        self.started = self.trained = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        train_s, epoch_s = self.trained - self.started, time.perf_counter() - self.started
        rate = self.batch * trainer.num_training_batches / train_s
        new = not self.path.is_file()
        with writing.named(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            writer.writerow((trainer.current_epoch, f"{train_s:.2f}", f"{epoch_s:.2f}", f"{rate:.1f}"))


def read(folder: Path) -> dict[int, dict[str, float]]:
    """Epoch -> its row; the last one where a kill had an epoch trained twice. Empty for a run without the file."""
    path = folder / NAME
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {int(row["epoch"]): {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)}
