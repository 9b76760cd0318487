"""How a file holds trained networks: what each of them looks at, and float32, float16 or int8 weights.

float16: every large weight is stored in half precision behind a Cast that ONNX Runtime carries out once, at load, so the
arithmetic and the speed stay those of float32. int8: convolutions in QDQ form, weights per channel, activations per tensor
at ranges measured on real Training faces. `tolerance` says how far each may be from torch; `export` refuses more.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from mien.errors import UsageError
from mien.lab.evaluation.evaluate import AVERAGES

VIEWS: tuple[str, ...] = ("single", "flip", "split")
WEIGHTS: tuple[str, ...] = ("float32", "float16", "int8")
CALIBRATED = 512  # real Training faces that int8's ranges are measured on
SMALL = 256  # tensors of fewer numbers (biases, constants) stay float32: nothing to gain
BLOCK = 64  # faces in one calibration batch
# onnxruntime's word for "norms are folded into convolutions, shapes are inferred": torch's exporter has done both.
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from torch on real faces. largest: of any probability, or of a feature relative to the largest
    feature. mean: over faces and heads, of the largest change of a probability of that face."""

    largest: float
    mean: float


# float32 differs by the order of summation; float16 by the rounding of the weights, 2^-11 of each; int8 moves every activation
# to one of 256 steps, so that a face between two expressions may change, and the mean is what is held.
TOLERANCES: dict[str, Tolerance] = {
    "float32": Tolerance(largest=1e-4, mean=1e-4),
    "float16": Tolerance(largest=5e-3, mean=1e-3),
    "int8": Tolerance(largest=0.35, mean=0.03),
}


@dataclass(frozen=True)
class Form:
    """views: "single", the picture; "flip", the picture and its mirror image; or "split", for two networks or more: the first,
    third ... see the picture, the others its mirror image, so that each face costs one pass of each. The file answers with the
    mean over all that its networks see. average: of "probabilities" or "logits", as `mien evaluate --average`. weights: one of
    WEIGHTS."""

    views: str = "single"
    average: str = "probabilities"
    weights: str = "float32"

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("views", self.views, VIEWS),
            ("average", self.average, AVERAGES),
            ("weights", self.weights, WEIGHTS),
        ):
            if value not in allowed:
                raise UsageError(f"{what} {value!r}: a file holds one of {', '.join(allowed)}")

    def looks(self, networks: int) -> tuple[tuple[bool, ...], ...]:
        """For each of the networks, what it sees: False is the picture, True its mirror image. Raises UsageError for a split
        of one network."""
        if self.views == "split":
            if networks < 2:
                raise UsageError(
                    "views 'split': they are shared between networks; name two runs or more, or ask for a flip"
                )
            return tuple((place % 2 == 1,) for place in range(networks))
        return ((False, True) if self.views == "flip" else (False,),) * networks

    def told(self, networks: int = 1) -> str:
        """The views as a card tells them."""
        of = f"{self.views} of {networks} networks" if networks > 1 else self.views
        return of if of == "single" else f"{of}, mean of {self.average}"

    @property
    def tolerance(self) -> Tolerance:
        return TOLERANCES[self.weights]


PLAIN = Form()


def stored(model: onnx.ModelProto, weights: str, faces: np.ndarray | None = None) -> onnx.ModelProto:
    """The float32 `model` with its weights stored as asked. faces: prepared batch (N, C, height, width) float32, for int8.

    Raises UsageError for int8 without faces.
    """
    if weights == "float16":
        return halved(model)
    if weights == "int8":
        if faces is None or not len(faces):
            raise UsageError("int8 measures its ranges on real Training faces: pass --root, the run's data")
        return quantised(model, faces)
    return model


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large float32 tensors are float16 behind a Cast back to float32, under the name that they had."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    casts = []
    for tensor in made.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and int(np.prod(tensor.dims)) >= SMALL:
            name = tensor.name
            half = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


class _Faces(CalibrationDataReader):
    """The calibration faces, a batch at a time, as ONNX Runtime asks for them."""

    def __init__(self, name: str, faces: np.ndarray) -> None:
        self.blocks: Iterator[np.ndarray] = iter(np.array_split(faces, max(1, len(faces) // BLOCK)))
        self.name = name

    def get_next(self) -> dict[str, np.ndarray] | None:
        block = next(self.blocks, None)
        return None if block is None else {self.name: block}


def quantised(model: onnx.ModelProto, faces: np.ndarray) -> onnx.ModelProto:
    """An int8 QDQ copy: all convolutions but each network's first, and what lies between them; the heads stay float32.

    The first convolution reads one channel of raw light, a hundredth of the work and the most sensitive; the heads are a
    thousandth of it. Activations are unsigned: after a ReLU nothing is negative, and a signed step would waste half.
    """
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        ready = onnx.ModelProto()
        ready.CopyFrom(model)
        first = _first_convolutions(ready.graph, faces.shape[1])
        _keep_pooling_in_float(ready.graph, first)
        ready.metadata_props.add(key=_PREPARED[0], value=_PREPARED[1])
        onnx.save(ready, str(before))
        quantize_static(
            str(before),
            str(after),
            _Faces(model.graph.input[0].name, faces),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Add", "MaxPool"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in first],
        )
        made = onnx.load(str(after))
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return made


def _first_convolutions(graph: onnx.GraphProto, channels: int) -> list[onnx.NodeProto]:
    """Every network's convolution that reads the picture, of so many channels. One of each map by itself (depthwise) reads as
    many channels as it has groups; one whose weights are computed is none."""
    kernels = {tensor.name: tensor.dims for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in kernels:
            groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
            if groups * kernels[node.input[1]][1] == channels:
                found.append(node)
    return found


def _keep_pooling_in_float(graph: onnx.GraphProto, first: list[onnx.NodeProto]) -> None:
    """An Abs, which leaves what comes from a ReLU as it is, behind every pooling of the first convolutions' maps. ONNX Runtime
    moves a QuantizeLinear ahead of a MaxPool, and pools wide uint8 maps slowly; it moves none ahead of an Abs."""
    behind = {output for node in first for output in node.output}
    rectified: set[str] = set()
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.append(node)
        if node.op_type == "Relu" and node.input[0] in behind:
            rectified.update(node.output)
        elif node.op_type == "MaxPool" and node.input[0] in rectified:
            name = node.output[0]
            graph.node[-1].output[0] = f"{name}.pooled"
            graph.node.append(helper.make_node("Abs", [f"{name}.pooled"], [name], f"{name}.abs"))
