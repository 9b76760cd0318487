"""Rows of the test split that the model may have seen, and data that a model was not made for. No torch."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mien.card import InputSpec, ModelCard
from mien.errors import DataError
from mien.expressions import BASIC, EXPRESSIONS
from mien.lab.datasets.dataset import IDENTITIES, FaceDataset
from mien.lab.evaluation.scores import Scores
from mien.lab.evaluation.statistics import Interval, share_interval

LOOKED_AT = 16  # pictures that stand for a dataset when its colour and shape are checked
HASHED_ROWS = 50_000  # larger splits are not hashed unasked: it decodes every picture, seconds for FER-2013's 28,709
VOTE_RULES = ("distribution", "probability", "crossentropy", "multi_target", "joint")  # ferplus: soft training targets
STRETCH = 1.05  # sides may differ by this factor between data and model before faces count as stretched


@dataclass(frozen=True)
class Leaks:
    """Test rows whose pixels also stand in training. accuracy: of all rows. without: of the rows that do not leak;
    leaked_only: of those that do; None where there are none. ids: of the leaking rows."""

    rows: int
    leaked: int
    accuracy: Interval
    without: Interval | None
    leaked_only: Interval | None
    ids: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What a report says of it, in one sentence."""
        if not self.leaked:
            return f"None of the {self.rows:,} rows stands in the training split (exact pixels)."
        parts = [f"{self.leaked:,} of {self.rows:,} rows also stand in the training split (exact pixels)"]
        if self.without is None:
            return parts[0] + ": nothing is left without them."
        parts.append(f"accuracy is {100 * self.accuracy.value:.2f} % with them")
        parts.append(f"{100 * self.without.value:.2f} % without")
        return ", ".join(parts) + "."


def pixel_hash(image: np.ndarray) -> str:
    """16 hex digits of the SHA-256 of a picture's shape and pixels, RGB uint8 (H, W, 3): equal for exact copies
    only."""
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()[:16]


def pixel_hashes(dataset: FaceDataset) -> tuple[str, ...]:
    """The hash of every row's picture, in order; each is decoded once and not kept."""
    return tuple(pixel_hash(dataset.read(row)) for row in range(len(dataset)))


def leaking(train: Iterable[str], test: Sequence[str]) -> np.ndarray:
    """(N,) bool: the test hashes that occur among the training hashes."""
    seen = set(train)
    return np.array([name in seen for name in test], bool)


def duplicate_clusters(hashes: Sequence[str]) -> tuple[str, ...]:
    """Cluster names for the bootstrap: copies share one, a picture that occurs once has ""."""
    names, codes, counts = np.unique(np.asarray(hashes), return_inverse=True, return_counts=True)
    return tuple(str(names[code]) if counts[code] > 1 else "" for code in codes)


def leak_report(scores: Scores, leaked: np.ndarray) -> Leaks:
    """Accuracy with and without the leaking rows (N,) bool, each with its interval. Raises DataError unless each row has a
    flag."""
    if len(leaked) != len(scores.labels):
        raise DataError(f"{len(leaked)} leak flags for {len(scores.labels)} rows: hash the split that was evaluated")
    right = (scores.predictions == scores.labels).astype(np.float64)
    return Leaks(
        rows=len(right),
        leaked=int(leaked.sum()),
        accuracy=share_interval(right, scores.clusters),
        without=_share_of(right, scores.clusters, ~leaked),
        leaked_only=_share_of(right, scores.clusters, leaked),
        ids=tuple(str(name) for name in scores.ids[leaked]),
    )


def shared_identities(train: FaceDataset, test: FaceDataset) -> dict[str, int]:
    """Of each of IDENTITIES that both splits know and share: the test rows whose subject, say, stands in training, too."""
    found = {}
    for name in IDENTITIES:
        seen = set(train.groups.get(name, ())) - {""}
        rows = sum(value in seen for value in test.groups.get(name, ()))
        if rows:
            found[name] = rows
    return found


def as_facts(found: Leaks, shared: Mapping[str, int]) -> dict[str, Any]:
    """What metrics.json holds of it, and of `shared_identities`."""
    told = [
        f"{rows:,} of {found.rows:,} rows are of {name}s that also stand in the training split."
        for name, rows in shared.items()
    ]
    spans = {"accuracy": found.accuracy, "accuracy_without": found.without, "accuracy_leaked": found.leaked_only}
    return {
        "checked": True,
        "sentence": " ".join([found.sentence, *told]),
        "shared": dict(shared),
        "rows": found.rows,
        "leaked": found.leaked,
        **{name: None if span is None else asdict(span) for name, span in spans.items()},
        "ids": list(found.ids),
    }


def _share_of(right: np.ndarray, clusters: np.ndarray | None, rows: np.ndarray) -> Interval | None:
    if not rows.any():
        return None
    return share_interval(right[rows], None if clusters is None else clusters[rows])


def preprocessing_mismatches(card: ModelCard, dataset: FaceDataset, *, head: str | None = None) -> list[str]:
    """Why this model should not be judged on this data as it stands, in sentences; [] when nothing speaks against
    it."""
    chosen = card.head(head)
    found = _label_mismatches(set(chosen.labels), set(dataset.classes))
    if dataset.name in chosen.trained_on and not _same_rule(chosen.label_rule, dataset.label_rule):
        found.append(f"trained under label rule {chosen.label_rule!r}, judged under {dataset.label_rule!r}")
    if any(abs(value) > 1 for value in card.input.mean):
        found.append(f"the card's mean {card.input.mean} is not on the 0-1 scale")
    pictures = first_pictures(dataset)
    if dataset.name in chosen.trained_on:  # then grey pictures are what it learnt from
        return found + stretched(card.input, pictures)
    return found + _picture_mismatches(card, pictures)


def first_pictures(dataset: FaceDataset) -> list[np.ndarray]:
    """Those that stand for a dataset."""
    return [dataset.read(row) for row in range(min(LOOKED_AT, len(dataset)))]


def _same_rule(trained: str, judged: str) -> bool:
    """FER+'s release judges every way of training on vote distributions by the majority label."""
    by_votes = trained in VOTE_RULES or trained.startswith("vote distribution")
    return trained == judged or (by_votes and judged == "majority")


def _label_mismatches(model: set[str], data: set[str]) -> list[str]:
    """Seven against eight expressions is settled (contempt is dropped, or counted wrong); anything else is not."""
    settled = (set(BASIC), set(EXPRESSIONS))
    if model == data or (model in settled and data in settled):
        return []
    return [f"the head answers {', '.join(sorted(model))}, the data have {', '.join(sorted(data))}"]


def _picture_mismatches(card: ModelCard, images: Sequence[np.ndarray]) -> list[str]:
    found = []
    if card.input.colour == "rgb" and images and all(_is_grey(image) for image in images):
        found.append(f"the model reads colour, the first {len(images)} pictures are grey")
    return found + stretched(card.input, images)


def stretched(spec: InputSpec, images: Sequence[np.ndarray]) -> list[str]:
    """The first picture, in a sentence, whose sides are not as the input's; [] where there is none."""
    wanted = spec.width / spec.height
    for height, width in sorted({image.shape[:2] for image in images}):
        if not 1 / STRETCH <= width / height / wanted <= STRETCH:
            return [f"a picture of {width}x{height} px would be stretched to {spec.width}x{spec.height}"]
    return []


def _is_grey(image: np.ndarray) -> bool:
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())


def check_preprocessing(
    card: ModelCard, dataset: FaceDataset, *, head: str | None = None, accepted: bool = False
) -> list[str]:
    """The mismatches, for the report. Raises DataError listing them unless the caller has accepted them."""
    found = preprocessing_mismatches(card, dataset, head=head)
    if found and not accepted:
        reasons = "; ".join(found)
        raise DataError(
            f"{card.method} and {dataset.name} {dataset.split} do not fit: {reasons}; pick another --head or data, or accept "
            "it (--accept-mismatch) and the report will say so"
        )
    return found
