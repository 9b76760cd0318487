"""mien beside two peers that install here, on the same frames in one run: `fer` (Python) and `@vladmandic/human` (Node, wasm).

    python benchmarks/peers.py --mien PYTHON --fer PYTHON --human FOLDER [--seconds 10] [--repeats 3]

Each peer lives in an installation of its own, so that its size is its own and nothing of it touches this project:

    python3 -m venv P/mien && P/mien/bin/pip install .
    python3 -m venv P/fer && P/fer/bin/pip install fer==25.10.3 "setuptools<80" "opencv-contrib-python<5" torch==2.13.0
    mkdir P/human && cd P/human && npm install @vladmandic/human@3.3.6 @tensorflow/tfjs-core@4.22.0 \\
        @tensorflow/tfjs-converter@4.22.0 @tensorflow/tfjs-backend-wasm@4.22.0

(`fer` needs those pins to run at all; torch is pinned to a build without CUDA, which halves its size.) Then PYTHON is
P/mien/bin/python and P/fer/bin/python, FOLDER is P/human. A peer that is left out is left out of the table; --mien is
this Python where it is left out, and then has no size.

The frames, 1280 x 720 px with one moving face of 200 px (benchmarks/video.py), are RGB pixels in one file, so that nobody's
decoder is measured. Every peer answers each frame with the public call that its documentation names, in its own process, with
its own number of threads; the processes take turns, so that a busy machine hurts all. `ms_per_picture` is the median of
frames that are read each by itself; `frames_per_second` is the same frames as a video, with what the peer has for one
(mien tracks; human's caches are on, as they are by default; fer has nothing, so it is the same call). `found` says in how
many frames the answer was about the face: a box whose centre lies in it, as peers differ in how much head a face is. A fast
answer about the wrong place is none. `peak_mb` is the process's largest resident size, `install_mb` all that was
installed without pip and without Python or Node themselves, `first_answer_s` the time from starting the process to its
first answer. Writes benchmarks/results/peers.json.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "peers.json"
NODE_SCRIPT = Path(__file__).with_name("peers_human.mjs")
WARM = 3  # frames that are not counted: the first ones build what is kept
BUSY = 0.5  # of load average: what else ran is more than noise from here on
NOT_COUNTED = frozenset(("pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel", "distutils-precedence.pth"))

Box = Sequence[float]
Ask = Callable[
    [np.ndarray, int], "Box | None"
]  # a frame, RGB uint8 (H, W, 3), and its number -> the first face, xyxy px


@dataclass(frozen=True)
class Frames:
    """The frames in one file of raw pixels. faces: the true box of each frame, xyxy px."""

    path: str
    width: int
    height: int
    rate: float
    faces: list[Box]

    def read(self) -> Iterator[np.ndarray]:
        """RGB uint8 (height, width, 3), one after the other; only one is in memory."""
        size = self.width * self.height * 3
        with Path(self.path).open("rb") as file:
            for _ in self.faces:
                yield np.frombuffer(file.read(size), np.uint8).reshape(self.height, self.width, 3)


@dataclass
class Seen:
    """One way of asking, over all frames: seconds of each call, and the box it gave."""

    seconds: list[float] = field(default_factory=list)
    boxes: list[Box | None] = field(default_factory=list)


def ask_mien(options: dict[str, Any]) -> dict[str, Ask]:
    """In mien's own process."""
    from mien import Reader
    from mien.tracking import Follower

    reader = Reader(options.get("model"), detector=options.get("detector", "mtcnn"))
    follower = Follower(reader)

    def alone(image: np.ndarray, number: int) -> Box | None:
        return next((face.box for face in reader.read(image)), None)

    def video(image: np.ndarray, number: int) -> Box | None:
        reading = follower.read(image, frame=number, time_s=number / options["rate"], source="video")
        return next((face.box for face in reading), None)

    return {"alone": alone, "video": video}


def ask_fer(options: dict[str, Any]) -> dict[str, Ask]:
    """In fer's own process. It takes OpenCV's channel order."""
    from fer.fer import FER

    detector = FER()

    def alone(image: np.ndarray, number: int) -> Box | None:
        found = detector.detect_emotions(np.ascontiguousarray(image[:, :, ::-1]))
        if not found:
            return None
        x, y, width, height = (float(edge) for edge in found[0]["box"])
        return (x, y, x + width, y + height)

    return {"alone": alone, "video": alone}


ASK = {"mien": ask_mien, "fer": ask_fer}


def answer(peer: str, request: dict[str, Any]) -> dict[str, Any]:
    """What a Python peer's process does: the frames once for each way, timed."""
    frames = Frames(**request["frames"])
    ways = ASK[peer]({**request["options"], "rate": frames.rate})
    first = next(frames.read())
    ways["alone"](first, 0)
    result: dict[str, Any] = {"first_answer_s": time.time() - request["started"]}
    for way, ask in ways.items():
        seen = Seen()
        for number, image in enumerate(frames.read()):
            start = time.perf_counter()
            box = ask(image, number)
            seen.seconds.append(time.perf_counter() - start)
            seen.boxes.append(None if box is None else [float(edge) for edge in box])
        result[way] = asdict(seen)
    return {**result, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """The largest resident size of this process so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@dataclass(frozen=True)
class Peer:
    """name: as in the table. command: that takes a request's path and an answer's. size: bytes installed, or None."""

    name: str
    command: list[str]
    options: dict[str, Any]
    size: int | None

    def run(self, frames: Frames, folder: Path) -> dict[str, Any]:
        """One process, from its start to its end."""
        request, result = folder / "request.json", folder / "answer.json"
        content = {"frames": asdict(frames), "options": self.options, "started": time.time()}
        request.write_text(json.dumps(content))
        result.unlink(missing_ok=True)
        done = subprocess.run([*self.command, str(request), str(result)], capture_output=True, text=True, check=False)
        if done.returncode or not result.is_file():
            raise SystemExit(f"{self.name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        answered: dict[str, Any] = json.loads(result.read_text())
        return answered


def peers(given: argparse.Namespace) -> list[Peer]:
    """Those that were named on the command line, mien first."""
    this = str(Path(__file__).resolve())
    own = given.mien or Path(sys.executable)
    model = {} if given.model is None else {"model": str(given.model.resolve())}
    found = [Peer("mien", [str(own), this, "--as", "mien"], model, python_size(own) if given.mien else None)]
    if given.fer:
        found.append(Peer("fer", [str(given.fer), this, "--as", "fer"], {}, python_size(given.fer)))
    if given.human:
        node = shutil.which("node")
        if node is None:
            raise SystemExit("--human needs Node: node is not on the PATH")
        home = given.human.resolve()
        size = tree_size(home / "node_modules")
        found.append(Peer("human", [node, str(NODE_SCRIPT)], {"folder": str(home)}, size))
    return found


def python_size(python: Path) -> int:
    """Bytes of all that is installed beside this Python, without what every environment has."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    place = Path(subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    counted = [
        one for one in place.iterdir() if one.name.split("-")[0] not in NOT_COUNTED and one.name not in NOT_COUNTED
    ]
    return sum(tree_size(one) for one in counted)


def tree_size(place: Path) -> int:
    """Bytes of the files in a folder, without Python's caches."""
    if place.is_file():
        return place.stat().st_size
    files = (path for path in place.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files if "__pycache__" not in path.parts)


def compose(folder: Path, seconds: float) -> Frames:
    """Write the frames of benchmarks/video.py as raw pixels."""
    import video

    faces: list[Box] = []
    path = folder / "frames.rgb"
    with path.open("wb") as file:
        for image, face in video.scenes(seconds):
            file.write(image.tobytes())
            faces.append([float(edge) for edge in face])
    return Frames(str(path), *video.SIZE, video.RATE, faces)


def on_the_face(box: Box | None, face: Box) -> bool:
    """Whether the box's centre lies in the face and the box is not more than four times as wide, xyxy px both."""
    if box is None:
        return False
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    inside = face[0] <= x <= face[2] and face[1] <= y <= face[3]
    return inside and box[2] - box[0] <= 4 * (face[2] - face[0])


def summary(peer: Peer, runs: list[dict[str, Any]], frames: Frames) -> dict[str, Any]:
    """A row of the table: the best of the runs, as every disturbance only adds; found: shares of the frames."""

    def of(way: str, value: Callable[[list[float]], float]) -> float:
        return min(value(run[way]["seconds"][WARM:]) for run in runs)

    def found(way: str) -> float:
        pairs = zip(runs[-1][way]["boxes"], frames.faces, strict=True)
        return statistics.mean(on_the_face(box, face) for box, face in pairs)

    return {
        "ms_per_picture": round(1000 * of("alone", statistics.median), 1),
        "frames_per_second": round(1 / of("video", statistics.mean), 1),
        "peak_mb": round(min(run["peak_bytes"] for run in runs) / 1e6),
        "install_mb": None if peer.size is None else round(peer.size / 1e6),
        "first_answer_s": round(min(run["first_answer_s"] for run in runs), 2),
        "found_alone": round(found("alone"), 3),
        "found_in_video": round(found("video"), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mien", type=Path, metavar="PYTHON", help="of an environment that holds mien alone")
    parser.add_argument("--fer", type=Path, metavar="PYTHON", help="of an environment that holds fer")
    parser.add_argument("--human", type=Path, metavar="FOLDER", help="with the node_modules of @vladmandic/human")
    parser.add_argument("--model", type=Path, help="default: the model that comes with the mien that is measured")
    parser.add_argument("--seconds", type=float, default=10, help="of the video, at 30 frames/s")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    given = parser.parse_args()
    load, started = os.getloadavg()[0], time.perf_counter()
    measured = peers(given)
    with tempfile.TemporaryDirectory() as folder:
        frames = compose(Path(folder), given.seconds)
        runs: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in measured}
        for _ in range(given.repeats):
            for peer in measured:
                runs[peer.name].append(peer.run(frames, Path(folder)))
    result = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_before": round(load, 2),
        "note": "the machine was busy: measure again" if load > BUSY else "the machine was idle",
        "frames": f"{len(frames.faces)} frames, {frames.width} x {frames.height} px, one face",
        "repeats": given.repeats,
        "seconds": round(time.perf_counter() - started),
        "peers": {peer.name: summary(peer, runs[peer.name], frames) for peer in measured},
    }
    print(json.dumps(result, indent=1))
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")


def serve(peer: str, request: str, result: str) -> None:
    """A Python peer's process."""
    Path(result).write_text(json.dumps(answer(peer, json.loads(Path(request).read_text()))))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as"]:
        serve(*sys.argv[2:5])
    else:
        main()
