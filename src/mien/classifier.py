"""An ONNX file with its card -> probabilities (N, C) and features (N, D). Batches of any size, no torch."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnxruntime as ort

from mien import images
from mien.card import METADATA_KEY, ModelCard
from mien.errors import ModelError

if os.environ.get("ORT_DISABLE_TELEMETRY") != "0":
    ort.disable_telemetry_events()  # all that is left to do where somebody imported onnxruntime before mien set the variable

BATCH = 256  # crops made ready at once
SUM_TOLERANCE = 0.01  # how far from 1 a row of probabilities may be: float16 rounds
ROWS = 16  # rows that a CPU's graph sees at once: more costs memory and gains next to nothing (benchmarks/rows.py)


@dataclass(frozen=True)
class Prediction:
    """probabilities: head name -> (N, C) float32, rows sum to 1. features: (N, D) float32."""

    probabilities: dict[str, np.ndarray]
    features: np.ndarray


def bundled_model() -> Path:
    """The path of the one .onnx file inside the package. Raises ModelError where there is none, or more than one."""
    folder = Path(str(files("mien") / "models"))
    found = sorted(folder.glob("*.onnx"))
    if len(found) != 1:
        raise ModelError(
            f"{folder}: expected exactly one bundled model, found {len(found)}: install mien again, unpacked, not as a zip "
            "file, or pass model=FILE"
        )
    return found[0]


class _Session(ort.InferenceSession):
    """One that can be sent to another process, which makes it again."""

    again: Callable[[], "_Session"]

    def __reduce__(self) -> tuple[Callable[[], "_Session"], tuple[()]]:
        return self.again, ()


def session(model: Path | bytes, *, threads: int = 1, providers: Sequence[str] | None = None) -> _Session:
    """An ONNX Runtime session of a file or its content, with `threads` intra-op threads that do not spin while they wait. A pickle
    of it holds the file's path, or the content. Raises ModelError for a provider that is not installed, and for what cannot be
    loaded."""
    wanted = list(providers) if providers is not None else ["CPUExecutionProvider"]
    unknown = [name for name in wanted if name not in ort.get_available_providers()]
    if unknown:
        available = ", ".join(ort.get_available_providers())
        raise ModelError(f"execution provider {', '.join(unknown)} is not installed: this onnxruntime has {available}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        opened = _Session(_as_onnxruntime_takes(model), options, providers=wanted)
    except Exception as error:  # onnxruntime raises its own untyped family
        name = "the model" if isinstance(model, bytes) else model
        raise ModelError(
            f"{name}: ONNX Runtime cannot load it ({images.reason(error)}); is it an ONNX file that mien exported?"
        ) from None
    where = model if isinstance(model, bytes) else model.absolute()
    opened.again = partial(session, where, threads=threads, providers=providers)
    return opened


def _as_onnxruntime_takes(model: Path | bytes) -> str | bytes:
    """The path, or the content where that is given or the path is not UTF-8."""
    if isinstance(model, bytes):
        return model
    try:
        str(model).encode()
    except UnicodeEncodeError:
        return model.read_bytes()
    return str(model)


class Classifier:
    """A loaded model. `card` says everything about it; `sha256` names the file in protocols."""

    def __init__(
        self, model: str | Path | None = None, *, threads: int = 1, providers: Sequence[str] | None = None
    ) -> None:
        """model: an .onnx file that mien exported; None is the bundled one. threads: of one answer on the CPU. providers: ONNX
        Runtime's, None for the CPU. Raises ModelError for a file that is absent, cannot be loaded, has no card, or whose graph is
        not what its card says."""
        self.path = bundled_model() if model is None else Path(model)
        if not self.path.is_file():
            raise ModelError(f"{model or repr(model)}: no such model file; pass an .onnx file written by `mien export`")
        self._session = session(self.path, threads=threads, providers=providers)
        self._rows = ROWS if self._session.get_providers() == ["CPUExecutionProvider"] else BATCH
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise ModelError(
                f"{self.path}: it carries no card (metadata key {METADATA_KEY!r}); export it with `mien export`"
            )
        self.card = ModelCard.from_json(text, str(self.path))
        self._check_graph()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def _check_graph(self) -> None:
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if inputs else []
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not shape or isinstance(shape[0], int):
            taken = ", ".join(f"{one.name}: {one.type} {one.shape}" for one in inputs)
            raise ModelError(
                f"{self.path}: the graph takes {taken}; expected one input, tensor(float) with a batch of any size; export it again"
            )
        spec = self.card.input
        told = [len(spec.mean), spec.height, spec.width]
        if len(shape) != 4 or any(isinstance(n, int) and n != said for n, said in zip(shape[1:], told, strict=True)):
            shown = [" x ".join(map(str, sides)) for sides in (told, shape[1:])]
            raise ModelError(
                f"{self.path}: the card says {shown[0]} pictures, the graph takes {shown[1]}; export it again"
            )
        outputs = {output.name: output.shape for output in self._session.get_outputs()}
        for name, head in self.card.heads.items():
            width = (outputs.get(head.output) or [None])[-1]
            if width != len(head.labels):
                raise ModelError(
                    f"{self.path}: head {name!r} names output {head.output!r} with {len(head.labels)} labels, "
                    f"but the graph gives {width}; export it again"
                )
        if "features" not in outputs:
            raise ModelError(f"{self.path}: the graph has no output named 'features'; export it again")
        self._check_answers()

    def _check_answers(self) -> None:
        """Two grey pictures must give probabilities."""
        spec = self.card.input
        try:
            found = self._graph(np.zeros((2, len(spec.mean), spec.height, spec.width), np.float32))
        except Exception as error:  # onnxruntime raises its own untyped family
            raise ModelError(
                f"{self.path}: the graph fails on a batch of 2 ({images.reason(error)}); export it again"
            ) from None
        for name, rows in found.probabilities.items():
            sums_to_one = np.abs(rows.sum(axis=1) - 1) < SUM_TOLERANCE  # a NaN does not
            if len(rows) != 2 or not sums_to_one.all() or rows.min() < 0:
                raise ModelError(f"{self.path}: head {name!r} answers with no probabilities; export it again")

    def predict(self, crops: Sequence[np.ndarray]) -> Prediction:
        """Classify RGB uint8 crops (H, W, 3), cut as `card.crop` says."""
        blocks = [self.run(self.card.input.prepare(crops[i : i + BATCH])) for i in range(0, len(crops), BATCH)]
        return joined(blocks) if blocks else self._empty()

    def run(self, batch: np.ndarray) -> Prediction:
        """A batch (N, C, height, width) float32, already normalised, through the graph, a few rows at a time."""
        blocks = [self._graph(batch[i : i + self._rows]) for i in range(0, len(batch), self._rows)]
        return joined(blocks) if blocks else self._empty()

    def _graph(self, batch: np.ndarray) -> Prediction:
        names = [head.output for head in self.card.heads.values()]
        *probabilities, features = self._session.run([*names, "features"], {self._session.get_inputs()[0].name: batch})
        return Prediction(dict(zip(self.card.heads, probabilities, strict=True)), features)

    def _empty(self) -> Prediction:
        shapes = {name: np.zeros((0, len(head.labels)), np.float32) for name, head in self.card.heads.items()}
        width = next(o.shape[-1] for o in self._session.get_outputs() if o.name == "features")
        return Prediction(shapes, np.zeros((0, width), np.float32))


def joined(blocks: Sequence[Prediction]) -> Prediction:
    """The rows of all blocks, in their order."""
    heads = blocks[0].probabilities
    probabilities = {name: np.concatenate([block.probabilities[name] for block in blocks]) for name in heads}
    return Prediction(probabilities, np.concatenate([block.features for block in blocks]))
