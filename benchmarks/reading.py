"""How long a 640 x 480 picture with one face takes: detection, alignment and classification, on 1 and 2 threads.

The picture is matplotlib's portrait of Grace Hopper, pasted into 640 x 480 at full height (the face is about 145 x 185
px). Prints median and fastest milliseconds and each stage's share, and writes benchmarks/results/reading.json. A busy
machine shows in the load average, and in how far the median lies above the fastest.

    python benchmarks/reading.py [--model FILE] [--repeats 100]
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien import Reader, demo, images
from mien.faces import align

RESULT = Path(__file__).parent / "results" / "reading.json"
SIZE = (640, 480)
SETTINGS = ((1, 40), (1, 80), (2, 40), (2, 80))  # threads, minimum face in px


def picture() -> np.ndarray:
    """RGB uint8 (480, 640, 3) with one face."""
    portrait = Image.fromarray(images.load(demo.photograph()))
    portrait = portrait.resize((round(portrait.width * SIZE[1] / portrait.height), SIZE[1]), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", SIZE, (90, 110, 140))
    canvas.paste(portrait, ((SIZE[0] - portrait.width) // 2, 0))
    return np.asarray(canvas)


def milliseconds(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median and fastest of `repeats` calls, after three to warm up."""
    times = []
    for number in range(repeats + 3):
        start = time.perf_counter()
        call()
        if number >= 3:
            times.append(1000 * (time.perf_counter() - start))
    return {"median": round(statistics.median(times), 2), "fastest": round(min(times), 2)}


def measure(image: np.ndarray, *, model: Path | None, threads: int, min_face: float, repeats: int) -> dict[str, Any]:
    """One setting: the whole, the stages, and each stage's share of their medians' sum."""
    reader = Reader(model, threads=threads, min_face=min_face)
    card = reader.classifier.card
    found = reader.detector.detect(image)
    crops = align.cut(image, found, crop=card.crop, input=card.input)
    if len(found) != 1:
        raise SystemExit(f"expected one face in the picture, found {len(found)}")
    stages = {
        "detect": milliseconds(lambda: reader.detector.detect(image), repeats),
        "align": milliseconds(lambda: align.cut(image, found, crop=card.crop, input=card.input), repeats),
        "classify": milliseconds(lambda: reader.classifier.predict(crops), repeats),
    }
    total = sum(stage["median"] for stage in stages.values())
    return {
        "threads": threads,
        "min_face": min_face,
        "read": milliseconds(lambda: reader.read(image), repeats),
        **{name: {**stage, "share": round(stage["median"] / total, 3)} for name, stage in stages.items()},
    }


def surroundings(reader: Reader, repeats: int) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "machine": f"{platform.machine()}, {os.cpu_count()} logical cores, {platform.system()}",
        "versions": {
            "python": platform.python_version(),
            **{n: version(n) for n in ("numpy", "onnxruntime", "pillow")},
        },
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "repeats": repeats,
        "picture": f"{SIZE[0]} x {SIZE[1]} px, one face",
        "model": {"file": reader.classifier.path.name, "sha256": reader.classifier.sha256},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    before = surroundings(Reader(options.model), options.repeats)
    table = []
    for threads, min_face in SETTINGS:
        row = measure(picture(), model=options.model, threads=threads, min_face=min_face, repeats=options.repeats)
        table.append(row)
        shares = ", ".join(f"{name} {row[name]['share']:.0%}" for name in ("detect", "align", "classify"))
        print(f"{threads} thread(s), min face {min_face} px: {row['read']['median']} ms median, "
              f"{row['read']['fastest']} ms fastest; {shares}")  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**before, "settings": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
