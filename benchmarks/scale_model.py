"""The cost model of docs/scale.md: what one picture costs to read, and one training run, from measured rates.

Reading, in seconds of one core for a picture of M megapixels with F faces:

    decode   = a0 + a1 M
    detect   = b0 + b1 M + b2 F + b3 M F    (a face's candidates are cut from the picture: a large face costs more)
    classify = c2 F + c3 M F                (alignment and network)
    overhead = d                            (handing out, table, journal: the job's own part, from a pilot job)

Every coefficient is fitted to benchmarks/results/scale_rates.json or comes from a pilot; none may be negative.
Training, in seconds of one GPU: 6 FLOPs for each multiply-accumulate and picture (2 forward, 4 backward) over the
sustained FLOP/s that the user names, or the time in which the named cores load it, whichever is longer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

STAGES = ("decode", "detect", "classify")
FLOPS_PER_MAC = 6  # a MAC is two FLOPs; backward is twice forward (gradients of inputs and of weights)


@dataclass(frozen=True)
class Sample:
    """One measured picture, or the average of several alike: its size, the faces found in it, and each stage's seconds of
    one core."""

    kind: str
    megapixels: float
    faces: float
    decode: float
    detect: float
    classify: float


@dataclass(frozen=True)
class ReadingModel:
    """Coefficients in core-seconds: of a picture, of a megapixel, of a face, of a face in a megapixel. error: by stage, the
    median over the kinds of |predicted - measured| / measured of their average picture."""

    decode: tuple[float, float]
    detect: tuple[float, float, float, float]
    classify: tuple[float, float]
    error: Mapping[str, float]

    def seconds(self, megapixels: float, faces: float) -> dict[str, float]:
        """Core-seconds of one picture by stage."""
        return {
            "decode": self.decode[0] + self.decode[1] * megapixels,
            "detect": self.detect[0]
            + self.detect[1] * megapixels
            + (self.detect[2] + self.detect[3] * megapixels) * faces,
            "classify": (self.classify[0] + self.classify[1] * megapixels) * faces,
        }


def fit(samples: Sequence[Sample]) -> ReadingModel:
    """Least squares of the relative errors of each kind's average picture, no coefficient below zero. Averages, because
    a detector's time depends on what each picture holds, and costs are sums."""
    kinds = averages(samples)
    size, faces = (np.array([getattr(one, name) for one in kinds]) for name in ("megapixels", "faces"))
    took = {stage: np.array([getattr(one, stage) for one in kinds]) for stage in STAGES}
    some = faces > 0
    if not some.any():
        raise SystemExit("no face was found in any sample: the photographs are too small, or the detector has changed")
    ones = np.ones(len(kinds))
    decode = _solved(np.stack([ones, size], 1), took["decode"])
    detect = _solved(np.stack([ones, size, faces, size * faces], 1), took["detect"])
    classify = _solved(np.stack([faces, size * faces], 1)[some], took["classify"][some])
    model = ReadingModel(
        (decode[0], decode[1]), (detect[0], detect[1], detect[2], detect[3]), (classify[0], classify[1]), {}
    )
    return replace(model, error=_errors(model, kinds))


def averages(samples: Sequence[Sample]) -> list[Sample]:
    """The average picture of each kind and size."""
    groups: dict[tuple[str, float], list[Sample]] = {}
    for one in samples:
        groups.setdefault((one.kind, one.megapixels), []).append(one)
    names = ("faces", *STAGES)
    return [
        Sample(kind, size, *(float(np.mean([getattr(one, name) for one in alike])) for name in names))
        for (kind, size), alike in groups.items()
    ]


def _solved(terms: np.ndarray, seconds: np.ndarray) -> list[float]:
    found: list[float] = nnls(terms / seconds[:, None], np.ones(len(seconds)))[0].tolist()
    return found


def _errors(model: ReadingModel, samples: Sequence[Sample]) -> dict[str, float]:
    """By stage; pictures without a face say nothing of classifying."""
    found = {}
    for stage in STAGES:
        gaps = [
            abs(model.seconds(one.megapixels, one.faces)[stage] / getattr(one, stage) - 1)
            for one in samples
            if stage != "classify" or one.faces
        ]
        found[stage] = round(float(np.median(gaps)), 3)
    return found


def plain(model: ReadingModel) -> dict[str, Any]:
    """The model as JSON-ready data, in milliseconds."""
    return {
        "decode_ms": [round(1e3 * value, 4) for value in model.decode],
        "detect_ms": [round(1e3 * value, 4) for value in model.detect],
        "classify_ms": [round(1e3 * value, 4) for value in model.classify],
        "median_relative_error": dict(model.error),
    }


@dataclass(frozen=True)
class Reading:
    """What a number of pictures costs. money: in the unit of the price."""

    pictures: int
    core_hours: float
    hours: float
    money: float
    table_gigabytes: float


@dataclass(frozen=True)
class Job:
    """A reading to project; nothing has a default. cores: of the cluster. efficiency: of those cores together, 0-1.
    price: of a core and hour. overhead: core-seconds, row_bytes: bytes of the table, both for a picture."""

    megapixels: float
    faces: float
    cores: int
    efficiency: float
    price: float
    overhead: float
    row_bytes: float


def reading(model: ReadingModel, job: Job, pictures: int) -> Reading:
    each = sum(model.seconds(job.megapixels, job.faces).values()) + job.overhead
    core_hours = pictures * each / 3600 / job.efficiency
    return Reading(pictures, core_hours, core_hours / job.cores, core_hours * job.price, pictures * job.row_bytes / 1e9)


@dataclass(frozen=True)
class Training:
    """A training to project; nothing has a default. tflops: that a GPU sustains in these networks. scaling: of n GPUs
    over n times one, 0-1. loading: pictures a second of the network's size that a GPU's cores load. price: of a GPU and
    hour, with its cores."""

    tflops: float
    scaling: float
    loading: float
    price: float


@dataclass(frozen=True)
class Run:
    """One paper's training on one dataset. macs: of one picture. rows: training pictures."""

    method: str
    dataset: str
    preset: str
    rows: int
    epochs: int
    size: int
    macs: int

    @property
    def exaflops(self) -> float:
        """FLOPs of the whole run / 1e18."""
        return FLOPS_PER_MAC * self.macs * self.rows * self.epochs / 1e18


def training(run: Run, told: Training, gpus: int) -> dict[str, Any]:
    """Hours and money of a run on `gpus` devices, and what bounds it."""
    compute = FLOPS_PER_MAC * run.macs / (told.tflops * 1e12)
    load = 1 / told.loading
    share = 1.0 if gpus == 1 else told.scaling
    hours = run.rows * run.epochs * max(compute, load) / 3600 / (gpus * share)
    return {
        "gpus": gpus,
        "hours": hours,
        "money": hours * gpus * told.price,
        "bound_by": "compute" if compute >= load else "loading",
    }


def runs(counts: Mapping[str, int]) -> list[Run]:
    """Every paper with every dataset of its printed rows. counts: MACs of one picture by "method/preset"."""
    from mien.lab import methods

    found = []
    for name in methods.NAMES:
        method = methods.load(name)
        for dataset in sorted({row.dataset for row in method.published if row.dataset}):
            preset = f"paper/{dataset}" if f"paper/{dataset}" in method.recipes else "paper"
            recipe = method.recipes[preset]
            rows = training_rows(dataset, name)
            macs = counts[f"{name}/{preset}"]
            found.append(Run(name, dataset, preset, rows, recipe.epochs, recipe.size, macs))
    return found


def training_rows(dataset: str, method: str) -> int:
    """Training rows of one fold, as the dataset's owner or the paper counts them (mien.lab.datasets)."""
    from mien.lab.datasets import affectnet, check, ckplus, expw, ferplus, rafdb, sfew

    absent = Path("absent")  # of no release: the counts of 2017
    protocol = "wcl" if method == "wcl" else "official"
    rule = "8-class" if method == "wcl" else "7-class"
    found: dict[str, int | None] = {
        "affectnet": affectnet.official(absent, split="train", label_rule=rule, protocol=protocol).rows,
        "rafdb": rafdb.OFFICIAL["train"].rows,
        "rafdb-compound": rafdb.OFFICIAL_COMPOUND["train"].rows,
        "sfew": sfew.OFFICIAL["train"].rows,
        "expw": round((expw.OFFICIAL["lban-il"].rows or 0) * expw.SHARES[0]),
        "ckplus": round((ckplus.official("7-class").rows or 0) * (1 - ckplus.TEST_SHARE)),
        "ferplus": ferplus.COUNTS["majority"][0],
        "fer2013": sum(check._FER["train"]),
    }
    rows = found[dataset]
    if rows is None:
        raise SystemExit(f"{dataset}: no count of its training rows is in mien.lab.datasets; add it there")
    return rows


def sample_from(row: Mapping[str, Any]) -> Sample:
    return Sample(**row)


def sample_row(one: Sample) -> dict[str, Any]:
    return {name: round(value, 7) if isinstance(value, float) else value for name, value in asdict(one).items()}
