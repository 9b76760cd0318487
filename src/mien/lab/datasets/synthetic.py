"""Drawn faces with known truth: for learning the whole loop without any data set, and for tests.

Nobody's picture is in it. Every row has an expression, its strength, an identity (no identity is in two splits), pose,
light, something that covers the face, pixel noise, and ten simulated votes. Label noise and imbalance are options. The
same spec gives the same pixels.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from mien.errors import UsageError
from mien.expressions import EXPRESSIONS
from mien.lab.datasets.dataset import SPLITS, FaceDataset, fingerprint
from mien.lab.datasets.drawing import STRENGTH, Faces, draw

_BLOCK = 64  # faces drawn together: 64 x 48 x 48 floats stay in the processor's cache
VOTERS = 10  # as FER+ has


@dataclass(frozen=True)
class Spec:
    """What to draw. rows: faces of train, valid, test. side: px. classes: a subset of the eight in canonical order.
    identities: people per split. intensity: strength of the expression, uniform in (low, high) of the full one. pose,
    light: 0 for none, 1 for up to 30 degrees of roll and a half turn of yaw, and for light from one side. covered:
    fraction of faces with a square on them. noise: standard deviation, fraction of the grey range. label_noise:
    fraction of *training* labels that are moved to another class (valid and test stay true). imbalance: largest class
    over smallest, first to last class.
    """

    rows: tuple[int, int, int] = (2400, 480, 960)
    side: int = 48
    classes: tuple[str, ...] = EXPRESSIONS
    identities: int = 60
    intensity: tuple[float, float] = (0.55, 1.0)
    pose: float = 0.5
    light: float = 0.6
    covered: float = 0.15
    noise: float = 0.04
    label_noise: float = 0.0
    imbalance: float = 1.0
    seed: int = 0


def load(*, split: str, spec: Spec | None = None) -> FaceDataset:
    """One split of the spec's faces, held in memory. Groups: subject, pose (frontal, left, right), covered (yes, no).

    Raises UsageError when the split or the spec cannot be meant.
    """
    spec = Spec() if spec is None else spec
    _check(spec, split)
    random = np.random.default_rng((spec.seed, SPLITS.index(split)))
    truth = _truth(spec, spec.rows[SPLITS.index(split)], random)
    faces, strength, subjects = _faces(spec, split, truth, random)
    pixels = render(faces, spec.side, noise=spec.noise, seed=(spec.seed, SPLITS.index(split)))
    labels = _noisy(truth, spec, random) if split == "train" else truth
    ids = tuple(f"{split}-{row:06d}" for row in range(len(labels)))
    return FaceDataset(
        name="synthetic",
        split=split,
        label_rule="drawn",
        classes=spec.classes,
        labels=labels,
        ids=ids,
        read=pixels.__getitem__,
        fingerprint=fingerprint(ids, labels, hashlib.sha256(pixels.tobytes()).hexdigest()),
        votes=_votes(truth, strength, len(spec.classes), random),
        groups=_groups(faces, split, subjects),
        note=f"drawn with seed {spec.seed}; label noise {spec.label_noise:g}, imbalance {spec.imbalance:g}",
    )


def render(faces: Faces, side: int, *, noise: float, seed: tuple[int, ...]) -> np.ndarray:
    """RGB uint8 (N, side, side, 3). Noise is drawn per block, so rows do not change when more are asked for."""
    pixels = np.empty((len(faces), side, side, 3), np.uint8)
    for block, start in enumerate(range(0, len(faces), _BLOCK)):
        picture = draw(faces.rows(slice(start, start + _BLOCK)), side)
        grain = np.random.default_rng((*seed, block)).standard_normal((_BLOCK, side, side, 1), np.float32)
        picture += noise * grain[: len(picture)]
        pixels[start : start + len(picture)] = np.clip(picture * 255, 0, 255)
    return pixels


def _check(spec: Spec, split: str) -> None:
    if split not in SPLITS:
        raise UsageError(f"synthetic has no split {split!r}: expected one of {', '.join(SPLITS)}")
    if tuple(name for name in EXPRESSIONS if name in spec.classes) != spec.classes or len(spec.classes) < 2:
        raise UsageError(
            f"synthetic classes {spec.classes}: expected two or more of {', '.join(EXPRESSIONS)}, in that order"
        )
    if (
        min(spec.rows) < 1
        or spec.side < 16
        or spec.identities < 1
        or spec.imbalance < 1
        or not 0 <= spec.label_noise < 1
    ):
        raise UsageError(
            f"{spec}: expected rows >= 1, side >= 16 px, identities >= 1, imbalance >= 1 "
            "and label_noise in 0-1; change the spec"
        )


def _truth(spec: Spec, count: int, random: np.random.Generator) -> np.ndarray:
    """(count,) int64: each class as often as the imbalance says, to within one row, in random order."""
    classes = len(spec.classes)
    share = spec.imbalance ** -np.linspace(0, 1, classes)
    bounds = np.round(np.cumsum(share / share.sum()) * count).astype(np.int64)
    labels: np.ndarray = np.searchsorted(bounds, np.arange(count), side="right")
    return random.permutation(labels)


def _faces(
    spec: Spec, split: str, truth: np.ndarray, random: np.random.Generator
) -> tuple[Faces, np.ndarray, np.ndarray]:
    """The faces, their expression's strength (N,) 0-1 and their subjects (N,) counted from 0 over all splits."""
    count = len(truth)
    subjects = random.integers(0, spec.identities, count)
    looks = _looks(spec, split)[subjects]
    code = np.array([EXPRESSIONS.index(name) for name in spec.classes])[truth]
    strength = random.uniform(*spec.intensity, count).astype(np.float32)
    muscles = STRENGTH[0] + strength[:, None] * (STRENGTH[code] - STRENGTH[0])
    muscles = muscles + random.normal(0, 0.06, muscles.shape).astype(np.float32)
    muscles[:, 2] = np.clip(muscles[:, 2], 0.3, None)  # an eye that is fully shut would be a line without width
    faces = _posed(spec, muscles, looks, random)
    return faces, strength, subjects + SPLITS.index(split) * spec.identities


def _posed(spec: Spec, muscles: np.ndarray, looks: np.ndarray, random: np.random.Generator) -> Faces:
    """Faces with these muscles (N, 8) and looks (N, 12) in a pose, light and cover of their own."""
    count = len(muscles)
    spread, light = _uniform(random, count, 8), _uniform(random, count, 1)[:, 0]
    covered, size = random.random(count) < spec.covered, random.uniform(0.12, 0.25, count)
    return Faces(
        muscles=muscles,
        skin=0.68 + 0.2 * looks[:, 0],
        hair=0.25 + 0.2 * looks[:, 1],
        backdrop=0.5 + 0.4 * looks[:, 2],
        tint=1 + 0.06 * looks[:, 3:6],
        aspect=1 + 0.12 * looks[:, 6],
        eye_gap=1 + 0.1 * looks[:, 7],
        eye_size=1 + 0.15 * looks[:, 8],
        brow_width=1 + 0.35 * looks[:, 9],
        lip_width=1 + 0.25 * looks[:, 10],
        glasses=(looks[:, 11] > 0.7).astype(np.float32),
        roll=np.float32(spec.pose * np.pi / 6) * spread[:, 0],
        yaw=spec.pose * spread[:, 1],
        zoom=0.85 + 0.08 * spread[:, 2],
        shift_x=0.1 * spec.pose * spread[:, 3],
        shift_y=0.1 * spec.pose * spread[:, 4],
        light_angle=np.float32(np.pi) * spread[:, 5],
        light=spec.light * light,
        cover_x=0.7 * spread[:, 6],
        cover_y=0.7 * spread[:, 7],
        cover_size=(covered * size).astype(np.float32),
    )


def _uniform(random: np.random.Generator, count: int, columns: int) -> np.ndarray:
    return random.uniform(-1, 1, (count, columns)).astype(np.float32)


def _looks(spec: Spec, split: str) -> np.ndarray:
    """(identities, 12) in -1..1: what does not change between pictures of one person. Every split has its own
    people."""
    return _uniform(np.random.default_rng((spec.seed, 7, SPLITS.index(split))), spec.identities, 12)


def _noisy(truth: np.ndarray, spec: Spec, random: np.random.Generator) -> np.ndarray:
    """The labels with a fraction of them moved to another class, each other class equally likely."""
    moved = random.random(len(truth)) < spec.label_noise
    steps = random.integers(1, len(spec.classes), len(truth))
    return np.where(moved, (truth + steps) % len(spec.classes), truth)


def _votes(truth: np.ndarray, strength: np.ndarray, classes: int, random: np.random.Generator) -> np.ndarray:
    """(N, classes) float32: ten voters, who agree more the stronger the expression; a weak one looks neutral to some
    (when neutral is the first class) and like anything to a few."""
    doubt = 0.05 + 0.6 * (1 - strength)
    chance = np.zeros((len(truth), classes))
    chance[np.arange(len(truth)), truth] = 1 - doubt
    chance[:, 0] += 0.6 * doubt
    chance += 0.4 * doubt[:, None] / classes
    votes = random.multinomial(VOTERS, chance / chance.sum(axis=1, keepdims=True))
    return (votes / VOTERS).astype(np.float32)


def _groups(faces: Faces, split: str, subjects: np.ndarray) -> dict[str, tuple[str, ...]]:
    pose = np.select([faces.yaw < -0.25, faces.yaw > 0.25], ["left", "right"], "frontal")
    return {
        "subject": tuple(f"{split}-{subject:04d}" for subject in subjects),
        "pose": tuple(str(side) for side in pose),
        "covered": tuple("yes" if size > 0 else "no" for size in faces.cover_size),
    }
