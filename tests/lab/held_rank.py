"""`python -m held_rank mien ARGUMENTS`: mien, whose rank 1 stops for good in the middle of its second epoch.

The ranks that it starts import this module, too.
"""

import os
import sys
import time
from typing import Any

from mien.lab.training.module import Training

_usual = Training.on_train_batch_end


def _held(self: Training, outputs: Any, batch: Any, index: int) -> None:
    _usual(self, outputs, batch, index)
    if os.environ.get("RANK") == "1" and (self.current_epoch, index) == (1, 2):
        time.sleep(3600)


Training.on_train_batch_end = _held  # type: ignore[method-assign]

if __name__ == "__main__":
    from mien.cli import main

    main(sys.argv[2:])
