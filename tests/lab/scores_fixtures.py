"""Made-up Scores for the tests of mien.lab.evaluation: no data set, no network."""

import numpy as np

from mien.expressions import BASIC
from mien.lab.evaluation.scores import PROTOCOL_FIELDS, Scores


def made_up(
    rows: int = 400, *, seed: int = 0, skill: float = 1.5, classes: tuple[str, ...] = BASIC, **changes: str
) -> Scores:
    """Softmax scores whose true class has `skill` added to its logit. Same seed and rows: same labels and ids."""
    labels = np.random.default_rng(1).integers(0, len(classes), rows)
    logits = np.random.default_rng(seed).normal(size=(rows, len(classes)))
    logits[np.arange(rows), labels] += skill
    raised = np.exp(logits)
    protocol = {**dict.fromkeys(PROTOCOL_FIELDS, "made up"), "seed": seed, "model_sha256": f"{seed:064d}", **changes}
    probabilities = (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)
    return Scores(labels, probabilities, classes, np.array([f"row{i:05d}" for i in range(rows)]), protocol)
