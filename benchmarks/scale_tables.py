"""The tables of docs/scale.md, from benchmarks/results. `python benchmarks/scale.py document` renews them."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "scale.md"


def result(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        raise SystemExit(f"{path} is not there: benchmarks/scale.py and scaling_reading.py say which command writes it")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def renew() -> None:
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{DOCUMENT.relative_to(ROOT)} renewed")


def filled(text: str) -> str:
    """The document with each generated block made again."""
    for name, make in BLOCKS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"{DOCUMENT}: the block {begin} ... {end} is gone; put it back")
        text = f"{head}{begin}\n{make()}\n{end}{tail}"
    return text


def _table(*rows: list[str]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _number(value: float) -> str:
    """Three digits, or all of a whole part that has more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def rates() -> str:
    found = result("scale_rates")
    fit, own = found["fit"], found["journal"]
    error = {stage: f"{100 * value:.0f}" for stage, value in fit["median_relative_error"].items()}
    decode, detect, classify = fit["decode_ms"], fit["detect_ms"], fit["classify_ms"]
    table = _table(
        [
            "stage",
            "core-milliseconds of a picture of M megapixels with F faces",
            "median error over kinds of picture, %",
        ],
        ["decode", f"{decode[0]:.2f} + {decode[1]:.1f} M", error["decode"]],
        ["detect", f"{detect[0]:.2f} + {detect[1]:.1f} M + {detect[2]:.2f} F + {detect[3]:.1f} M F", error["detect"]],
        ["align and classify", f"{classify[0]:.2f} F + {classify[1]:.1f} M F", error["classify"]],
        ["the job's own: pipes, table, journal", f"{found['overhead_ms']:.2f}", "-"],
    )
    notes = [
        f"A row of the table takes {own['table_bytes']} bytes, a file in the journal {own['journal_bytes']}. The driver alone "
        f"spends {own['driver_cpu_us']:.0f} core-microseconds and {own['driver_memory_bytes']:,} bytes of memory on a file.",
        f"Measured {found['date'][:10]} on {found['machine']}, load average {found['load_average']}.",
    ]
    return "\n".join([*table, "", *notes])


def check() -> str:
    found = result("scale_check")
    names = {
        "core_seconds": "core-seconds",
        "wall_seconds": "seconds",
        "faces": "faces",
        "table_bytes": "bytes of table",
    }
    rows = [
        [
            name,
            _number(found["predicted"][key]),
            _number(found["measured"][key]),
            f"{100 * found['error'][key]:+.1f}",
        ]
        for key, name in names.items()
    ]
    load = found["load_average"]
    note = (
        f"{found['pictures']:,} pictures by {found['workers']} workers, {found['pictures_per_second']:,.0f} a second, "
        f"{found['failed']} failed. Predicted {found['predicted_at']} (load average {load['predicted']}), finished "
        f"{found['finished_at']} ({load['finished']})."
    )
    return "\n".join([*_table(["", "predicted", "measured", "error, %"], *rows), "", note])


def reading() -> str:
    found = result("scale")
    told = found["told"]
    rows = [
        [
            f"{row['pictures']:,}",
            *(_number(row[key]) for key in ("core_hours", "hours", "money", "table_gigabytes")),
        ]
        for row in found["reading"]
    ]
    stages = ", ".join(f"{name} {value:.2f}" for name, value in found["stage_ms"].items())
    note = (
        f"Told: {told['width']} x {told['height']} px, {told['faces']:g} faces a picture, {told['cores']} cores at an efficiency "
        f"of {told['efficiency']:g}, {told['core_price']:g} for a core and hour. Core-milliseconds of a picture: {stages}."
    )
    return "\n".join([*_table(["pictures", "core-hours", "hours", "money", "table, GB"], *rows), "", note])


def training() -> str:
    found = result("scale")
    told = found["told"]
    head = ["method", "dataset", "pictures x epochs", "px", "exaFLOP", "core-hours here"]
    head += ["1 GPU: hours", "money", "8 GPUs: hours", "money", "bound by"]
    rows = [
        [
            row["method"],
            row["dataset"],
            f"{row['rows']:,} x {row['epochs']}",
            str(row["size"]),
            _number(row["exaflops"]),
            _number(row["core_hours"]),
            *(_number(device[key]) for device in row["devices"] for key in ("hours", "money")),
            row["devices"][0]["bound_by"],
        ]
        for row in found["training"]
    ]
    note = (
        f"Told: {told['gpu_tflops']:g} sustained TFLOP/s of a GPU, eight together at {told['gpu_scaling']:g} of eight times one, "
        f"{told['loader_cores']} loading cores for each, {told['gpu_price']:g} for a GPU and hour with its cores."
    )
    return "\n".join([*_table(head, *rows), "", note])


def scaling() -> str:
    found = result("scaling_reading")
    rows = [
        [
            name,
            *(
                f"{row[k]['median']:.2f} ({row[k]['lowest']:.2f} to {row[k]['highest']:.2f})"
                for k in ("strong", "weak")
            ),
        ]
        for name, row in found["engines"].items()
    ]
    note = (
        f"Medians (range) of {found['repeats']} repeats with {found['pictures']} pictures for one worker. The same job repeated "
        f"differed by {100 * found['noise']:.0f} % on this machine ({found['machine']}, load average {found['load_average']}, "
        f"{found['date'][:10]})."
    )
    head = ["engine", "strong: rate of 2 workers over that of 1", "weak: the same with twice the pictures, over 2"]
    return "\n".join([*_table(head, *rows), "", note])


BLOCKS = {
    "scale-rates": rates,
    "scale-check": check,
    "scale-reading": reading,
    "scale-training": training,
    "scale-scaling": scaling,
}
