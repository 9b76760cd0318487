"""Frames a second from a video's packets to its rows: 1280 x 720 px, one moving face, tracking mode, on two cores.

The video is composed from matplotlib's portrait of Grace Hopper (the face is 200 px high and crosses the picture in 10
s) and encoded as H.264 at 30 frames/s. `rows` reads it with `mien.clips.read_clip` into tables and timelines;
`annotated` writes the annotated video, too; `yunet` is `rows` with the YuNet detector. Each is run several times and
the fastest and the median are printed and written to benchmarks/results/video.json, with where the time of one run of
`rows` goes. A busy machine shows in the load average, and in how far wall time lies above the processor's: `cpu` is
what a run costs the processor, frames per second of one core.

    python benchmarks/video.py [--model FILE] [--repeats 3] [--seconds 10]
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from mien import Reader, clips, demo, images
from mien.errors import DetectorError
from mien.faces.mtcnn import Mtcnn
from mien.video import Video

RESULT = Path(__file__).parent / "results" / "video.json"
SIZE, RATE, FACE = (1280, 720), 30, 200  # px, frames/s, px
BUSY = 0.5  # of load average: what else ran is more than noise from here on


def frames(seconds: float) -> Iterator[np.ndarray]:
    """RGB uint8 (720, 1280, 3): the portrait on its way across."""
    return (image for image, _ in scenes(seconds))


def scenes(seconds: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same frames, each with its face's box, xyxy px."""
    portrait = images.load(demo.photograph())
    (face,) = Mtcnn().detect(portrait)
    scale = FACE / (face.box[3] - face.box[1])
    picture = Image.fromarray(portrait)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    shades = np.stack([60 + 80 * y / SIZE[1], 70 + 60 * x / SIZE[0], 90 + 30 * np.sin(x / 40)], axis=2)
    for number in range(round(seconds * RATE)):
        canvas = Image.fromarray(shades.astype(np.uint8))
        share = number / (seconds * RATE)
        corner = (round(share * (SIZE[0] - picture.width)), round(60 + 40 * np.sin(9 * share)))
        canvas.paste(picture, corner)
        yield np.asarray(canvas), np.array(face.box) * scale + np.tile(corner, 2)


def compose(path: Path, seconds: float) -> int:
    """Write the video; its number of frames."""
    count = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.pix_fmt, stream.width, stream.height = "yuv420p", *SIZE
        stream.codec_context.time_base = Fraction(1, RATE)
        for image in frames(seconds):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = count, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    return count


def measure(call: Callable[[], int], repeats: int) -> dict[str, float]:
    """Frames per second of `call`, which answers with its frames: by the wall's clock and by the processor's."""
    wall, processor = [], []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        count = call()
        wall.append(count / (time.perf_counter() - start))
        processor.append(count / (time.process_time() - busy))
    return {
        "fastest": round(max(wall), 1),
        "median": round(statistics.median(wall), 1),
        "cpu": round(max(processor), 1),
    }


def read(path: Path, reader: Reader, *, annotated: bool) -> int:
    """Read the video into a folder that is thrown away; the frames in which the one face was found."""
    with tempfile.TemporaryDirectory() as folder:
        clip = clips.read_clip(path, reader, out=Path(folder), annotated=annotated)
    if len(clip.tracks) != 1 or clip.tracks[0]["frames"] != clip.frames:
        raise SystemExit(f"expected one track in all {clip.frames} frames, found {clip.tracks}")
    return clip.frames


def decode(path: Path) -> int:
    """Decode the video and do nothing more."""
    with Video(path) as video:
        return sum(1 for _ in video.frames())


def run(path: Path, *, model: Path | None, repeats: int) -> dict[str, Any]:
    reader = Reader(model)
    read(path, reader, annotated=False)
    table: dict[str, Any] = {
        "decode": measure(lambda: decode(path), repeats),
        "rows": measure(lambda: read(path, reader, annotated=False), repeats),
        "annotated": measure(lambda: read(path, reader, annotated=True), repeats),
    }
    try:
        faster = Reader(model, detector="yunet")
    except DetectorError as error:
        table["yunet"] = f"not measured: {error}"
    else:
        table["yunet"] = measure(lambda: read(path, faster, annotated=False), repeats)
    return table


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("mien", "av", "onnxruntime", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        count = compose(path, options.seconds)
        table = run(path, model=options.model, repeats=options.repeats)
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": versions(),
        "load_before": round(load, 2),
        "note": "the machine was busy: take `cpu`, or measure again" if load > BUSY else "the machine was idle",
        "video": f"{count} frames, {SIZE[0]} x {SIZE[1]} px, one face of {FACE} px",
        "frames_per_second": table,
    }
    print(json.dumps(result, indent=1))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
