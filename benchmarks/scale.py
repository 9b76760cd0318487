"""What a million and a billion pictures cost to read, and each paper's training: fitted, projected, and checked.

    python benchmarks/scale.py measure                     # rates of every stage, step of every method: minutes
    python benchmarks/scale.py check --pictures 100000     # generate, fit, predict, then read: the error
    python benchmarks/scale.py project --width 640 --height 480 --faces 1 --cores 64 --core-price 0.05 \\
        --gpu-tflops 30 --gpu-scaling 0.9 --loader-cores 8 --gpu-price 2.5

`measure` writes benchmarks/results/scale_rates.json. `check` writes scale_prediction.json, with its time, before it
reads the pictures, and scale_check.json after. `project` writes scale.json and renews the tables of docs/scale.md. What
no script here can measure (prices, a GPU's sustained FLOP/s, how well more of them work together, the size of your
pictures) has no default. `document` only renews the tables.

Times are CPU seconds of one core, so that other programs on the machine change them little; wall-clock times are given
beside them. Pictures are drawn, or windows of public photographs (benchmarks/scale_pictures.py).
"""

import argparse
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import scale_model as model
import scale_pictures as pictures
import scale_steps as training_steps
import scale_tables

from mien import Reader, images, jobs, tables
from mien.worker import Settings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SAMPLE = 12  # pictures of each kind in a fit
REPEATS = 2  # of each stage of each picture; the faster one counts
PILOT = 800  # pictures of the job whose overhead and wall clock the prediction takes over
FREE = 50_000  # files of the job that measures what the job itself costs
PICTURES = (1_000_000, 1_000_000_000)
SEEDS = {"sample": 1, "pilot": 2, "run": 3}


def about() -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {jobs.cores()} cores",
        "load_average": round(os.getloadavg()[0], 1),
    }


def written(name: str, found: dict[str, Any]) -> dict[str, Any]:
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


# Rates


def sampled(reader: Reader, kinds: Sequence[pictures.Kind], *, each: int, seed: int) -> list[model.Sample]:
    """Every stage of `each` pictures of each kind, in CPU seconds of one thread."""
    wanted = [kind for kind in kinds for _ in range(each)]
    with tempfile.TemporaryDirectory() as name:
        paths = list(pictures.write(Path(name), wanted, seed=seed))
        reader.read(paths[0])  # warm
        return [_staged(reader, path, kind) for path, kind in zip(paths, wanted, strict=True)]


def _staged(reader: Reader, path: Path, kind: pictures.Kind) -> model.Sample:
    took: dict[str, list[float]] = {stage: [] for stage in model.STAGES}
    for _ in range(REPEATS):
        times = [time.process_time()]
        pixels = images.load(path)
        times.append(time.process_time())
        found = reader.detector.detect(pixels)
        times.append(time.process_time())
        reader.classify(pixels, found)
        times.append(time.process_time())
        for stage, (start, end) in zip(model.STAGES, pairwise(times), strict=True):
            took[stage].append(end - start)
    best = {stage: min(values) for stage, values in took.items()}
    return model.Sample(kind.name, kind.megapixels, len(found), **best)


def measure(options: argparse.Namespace) -> None:
    reader = Reader(options.model)
    samples = sampled(reader, pictures.RUN + pictures.OTHERS, each=options.sample, seed=SEEDS["sample"])
    pilot = piloted(options, options.pilot)
    found = about() | {
        "model": {"file": reader.classifier.path.name, "sha256": reader.classifier.sha256},
        "fit": model.plain(model.fit(samples)),
        "overhead_ms": round(1e3 * overhead(pilot, model.fit(samples), samples), 4),
        "pilot": asdict(pilot),
        "journal": journal_costs(),
        "steps": training_steps.measured(training_steps.recipes()),
        "samples": [model.sample_row(one) for one in samples],
    }
    print(
        json.dumps({key: value for key, value in written("scale_rates", found).items() if key != "samples"}, indent=1)
    )


# Jobs


@dataclass(frozen=True)
class Cost:
    """What a job took. cpu: seconds of all its processes; rows, bytes: of its table."""

    pictures: int
    workers: int
    cpu: float
    wall: float
    faces: int
    failed: int
    bytes: int


@dataclass(frozen=True)
class Pilot:
    """A job of a few pictures, and one of none but a picture for each worker: the difference is the pictures' own."""

    start: Cost
    whole: Cost
    kinds: dict[str, int]

    @property
    def cpu_each(self) -> float:
        return (self.whole.cpu - self.start.cpu) / (self.whole.pictures - self.start.pictures)

    @property
    def wall_per_cpu(self) -> float:
        return (self.whole.wall - self.start.wall) / (self.whole.cpu - self.start.cpu)


def job(paths: Sequence[Path], out: Path, *, settings: Settings, workers: int) -> Cost:
    """Read the pictures as `mien read` does, with the CPU time of this process and of those it started."""
    out.mkdir()
    before, start = cpu_seconds(), time.perf_counter()
    summary = jobs.run(paths, out, settings=settings, workers=workers)
    wall, used = time.perf_counter() - start, cpu_seconds() - before
    size = Path(summary.out).stat().st_size
    return Cost(len(paths), workers, round(used, 3), round(wall, 3), summary.faces, summary.failed, size)


def cpu_seconds() -> float:
    """Of this process and of all its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def piloted(options: argparse.Namespace, count: int) -> Pilot:
    settings = Settings(None if options.model is None else str(options.model))
    wanted = pictures.kinds(count, seed=SEEDS["pilot"])
    with tempfile.TemporaryDirectory() as name:
        paths = list(pictures.write(Path(name) / "in", wanted, seed=SEEDS["pilot"]))
        job(paths[: options.workers], Path(name) / "warm", settings=settings, workers=options.workers)
        start = job(paths[: options.workers], Path(name) / "start", settings=settings, workers=options.workers)
        whole = job(paths, Path(name) / "whole", settings=settings, workers=options.workers)
    return Pilot(start, whole, dict(Counter(label(kind) for kind in wanted)))


def label(kind: pictures.Kind) -> str:
    return f"{kind.name} {kind.width}x{kind.height}"


def overhead(pilot: Pilot, fitted: model.ReadingModel, samples: Sequence[model.Sample]) -> float:
    """Core-seconds of a picture beyond its stages, as the pilot took more than they should have."""
    share = {key: count / pilot.whole.pictures for key, count in pilot.kinds.items()}
    return max(0.0, pilot.cpu_each - sum(mixed(fitted, samples, share).values()))


def mixed(fitted: model.ReadingModel, samples: Sequence[model.Sample], share: dict[str, float]) -> dict[str, float]:
    """Core-seconds by stage of the average picture of a mix, with as many faces as the samples of its kind had."""
    total = dict.fromkeys(model.STAGES, 0.0)
    for kind in pictures.RUN:
        alike = [one.faces for one in samples if (one.kind, one.megapixels) == (kind.name, kind.megapixels)]
        for stage, seconds in fitted.seconds(kind.megapixels, statistics.mean(alike)).items():
            total[stage] += share.get(label(kind), 0.0) * seconds
    return total


def journal_costs() -> dict[str, Any]:
    """What the job's own process does for one file, measured in a process of its own, for its memory."""
    told = subprocess.run([sys.executable, __file__, "journal"], check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def journal(options: argparse.Namespace) -> None:
    """Journal and table of files that cost nothing to read: CPU microseconds, and bytes of memory, table and journal."""
    with tempfile.TemporaryDirectory() as name:
        small, large = (free_job(Path(name) / str(files), files) for files in (FREE // 10, FREE))
        tracemalloc.start()  # slows the job down: its times are not taken
        held = free_job(Path(name) / "traced", FREE).memory
    more = large.files - small.files
    found = {
        "files": FREE,
        "driver_cpu_us": round(1e6 * (large.cpu - small.cpu) / more, 1),
        "driver_memory_bytes": round(held / FREE),
        "table_bytes": round((large.table - small.table) / more),
        "journal_bytes": round((large.journal - small.journal) / more),
    }
    print(json.dumps(found))


@dataclass(frozen=True)
class Free:
    """A job that read nothing. cpu: seconds; memory: bytes held when all was done, 0 when not traced; table, journal: bytes."""

    files: int
    cpu: float
    memory: int
    table: int
    journal: int


def free_job(out: Path, files: int) -> Free:
    """A job of `files` files with a face each, none of which exists: its engine makes the rows up."""
    numbers = dict.fromkeys([name for name in tables.COLUMNS if name.startswith("p_")], 0.123456)
    box = dict.fromkeys(("x", "y", "width", "height"), 123.4)
    row = dict.fromkeys(tables.COLUMNS) | numbers | box
    row |= {"face": 1, "detection_score": 0.987654, "expression": "surprise", "confidence": 0.876543, "status": "ok"}
    memory = 0

    def engine(left: Sequence[str], settings: Settings, workers: int | None) -> Iterator[Any]:
        nonlocal memory
        for source in left:
            yield source, [row | {"source": source}]
        memory = tracemalloc.get_traced_memory()[0]  # list and journal are still held

    out.mkdir()
    start = time.process_time()
    jobs.run([f"/a/folder/of/usual/depth/{n:09d}.jpg" for n in range(files)], out, settings=Settings(), engine=engine)
    used = time.process_time() - start
    sizes = [path.stat().st_size for path in (out / "faces.csv", out / jobs.JOURNAL)]
    return Free(files, used, memory, *sizes)


# The check


def check(options: argparse.Namespace) -> None:
    settings = Settings(None if options.model is None else str(options.model))
    reader = Reader(options.model)
    samples = sampled(reader, pictures.RUN + pictures.OTHERS, each=options.sample, seed=SEEDS["sample"])
    fitted, pilot = model.fit(samples), piloted(options, options.pilot)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        wanted = pictures.kinds(options.pictures, seed=SEEDS["run"])
        begin = time.perf_counter()
        paths = []
        for path in pictures.write(Path(name) / "in", wanted, seed=SEEDS["run"]):
            paths.append(path)
            if len(paths) % 10_000 == 0:
                print(f"{len(paths):,} pictures generated", flush=True)
        print(f"generated {len(paths):,} pictures in {time.perf_counter() - begin:.0f} s", flush=True)
        predicted = prediction(wanted, samples, fitted, pilot, workers=options.workers)
        print(json.dumps(written("scale_prediction", predicted), indent=1), flush=True)
        took = job(paths, Path(name) / "out", settings=settings, workers=options.workers)
    found = compared(predicted, took)
    print(json.dumps(written("scale_check", found), indent=1))


def prediction(
    wanted: Sequence[pictures.Kind],
    samples: Sequence[model.Sample],
    fitted: model.ReadingModel,
    pilot: Pilot,
    *,
    workers: int,
) -> dict[str, Any]:
    """The run's core-seconds by the model, and its wall clock if the machine stays as the pilot found it."""
    count = len(wanted)
    share = {key: number / count for key, number in Counter(label(kind) for kind in wanted).items()}
    stages, extra = mixed(fitted, samples, share), overhead(pilot, fitted, samples)
    cpu = pilot.start.cpu + count * (sum(stages.values()) + extra)
    wall = pilot.start.wall + pilot.wall_per_cpu * (cpu - pilot.start.cpu)
    faces = pilot.whole.faces / pilot.whole.pictures
    return about() | {
        "pictures": count,
        "workers": workers,
        "mix": {key: round(value, 4) for key, value in share.items()},
        "fit": model.plain(fitted),
        "ms_each": {stage: round(1e3 * value, 4) for stage, value in (*stages.items(), ("overhead", extra))},
        "pilot": asdict(pilot),
        "core_seconds": round(cpu, 1),
        "wall_seconds": round(wall, 1),
        "faces": round(faces * count),
        "table_bytes": round(pilot.whole.bytes / pilot.whole.pictures * count),
    }


def compared(predicted: dict[str, Any], took: Cost) -> dict[str, Any]:
    """error: (measured - predicted) / predicted."""
    measured = {"core_seconds": took.cpu, "wall_seconds": took.wall, "faces": took.faces, "table_bytes": took.bytes}
    return {
        "predicted_at": predicted["date"],
        "finished_at": about()["date"],
        "load_average": {"predicted": predicted["load_average"], "finished": about()["load_average"]},
        "pictures": took.pictures,
        "failed": took.failed,
        "workers": took.workers,
        "predicted": {name: predicted[name] for name in measured},
        "measured": measured,
        "error": {name: round(value / predicted[name] - 1, 4) for name, value in measured.items()},
        "pictures_per_second": round(took.pictures / took.wall, 1),
    }


# The projection


def project(options: argparse.Namespace) -> None:
    rates = scale_tables.result("scale_rates")
    fitted = model.fit([model.sample_from(row) for row in rates["samples"]])
    megapixels = options.width * options.height / 1e6
    asked = model.Job(
        megapixels,
        options.faces,
        options.cores,
        options.efficiency,
        options.core_price,
        rates["overhead_ms"] / 1e3,
        rates["journal"]["table_bytes"] * max(1.0, options.faces),
    )
    loader = scale_tables.result("loading")
    told = model.Training(options.gpu_tflops, options.gpu_scaling, 0.0, options.gpu_price)
    counts = {name: row["macs"] for name, row in rates["steps"].items()}
    found = about() | {
        "told": {name: value for name, value in vars(options).items() if name not in ("command", "model", "run")},
        "rates_of": rates["date"],
        "stage_ms": {k: round(1e3 * v, 3) for k, v in fitted.seconds(megapixels, options.faces).items()}
        | {"overhead": rates["overhead_ms"]},
        "reading": [asdict(model.reading(fitted, asked, number)) for number in PICTURES],
        "training": [_trained(run, told, options.loader_cores, loader, rates) for run in model.runs(counts)],
    }
    written("scale", found)
    scale_tables.renew()


def _trained(
    run: model.Run, told: model.Training, cores: int, loader: dict[str, Any], rates: dict[str, Any]
) -> dict[str, Any]:
    told = replace(told, loading=cores * loading_rate(run.size, loader))
    step = rates["steps"][f"{run.method}/{run.preset}"]["seconds"]
    return asdict(run) | {
        "exaflops": run.exaflops,
        "core_hours": run.rows * run.epochs * step / 3600,
        "devices": [model.training(run, told, gpus) for gpus in (1, 8)],
    }


def loading_rate(size: int, loader: dict[str, Any]) -> float:
    """Pictures a second and core that the loader makes from shards, from benchmarks/results/loading.json: the measured
    side next above, or the largest with decoding in proportion to the pixels."""
    sides = {int(key.split()[0]): row["loader_shards"] / loader["cores"] for key, row in loader["images_per_s"].items()}
    above = [side for side in sorted(sides) if side >= size]
    if above:
        return float(sides[above[0]])
    largest = max(sides)
    return float(sides[largest] * (largest / size) ** 2)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("measure", measure), ("check", check)):
        one = commands.add_parser(name)
        one.set_defaults(run=run)
        one.add_argument("--model", type=Path)
        one.add_argument("--workers", type=int, default=jobs.cores())
        one.add_argument("--sample", type=int, default=SAMPLE, help="pictures of each kind in the fit")
        one.add_argument("--pilot", type=int, default=PILOT)
        if name == "check":
            one.add_argument("--pictures", type=int, default=100_000)
            one.add_argument(
                "--folder", type=Path, help="where the pictures go meanwhile; default: the temporary folder"
            )
    one = commands.add_parser("project")
    one.set_defaults(run=project)
    for flag, kind, text in (
        ("--width", int, "px of a picture"),
        ("--height", int, "px of a picture"),
        ("--faces", float, "in a picture, on average"),
        ("--cores", int, "of the cluster"),
        ("--efficiency", float, "of the cluster's cores together, 0-1"),
        ("--core-price", float, "of a core and hour, in any money"),
        ("--gpu-tflops", float, "that one GPU sustains in such networks, not its peak"),
        ("--gpu-scaling", float, "of eight GPUs over eight times one, 0-1"),
        ("--loader-cores", int, "for each GPU"),
        ("--gpu-price", float, "of a GPU and hour with its cores, in the same money"),
    ):
        one.add_argument(flag, type=kind, required=True, help=text)
    commands.add_parser("document").set_defaults(run=lambda options: scale_tables.renew())
    commands.add_parser("journal", help="(used by measure itself)").set_defaults(run=journal)
    return parser.parse_args()


def main() -> None:
    options = parsed()
    options.run(options)


if __name__ == "__main__":
    main()
