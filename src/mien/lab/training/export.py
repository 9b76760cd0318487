"""A trained run -> one ONNX file that carries its card, refused unless ONNX Runtime agrees with torch on real faces."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mien.card import METADATA_KEY, CropSpec, Head, ModelCard
from mien.classifier import Classifier, Prediction
from mien.errors import DataError, ModelError, UsageError
from mien.expressions import BASIC
from mien.lab.datasets import FaceDataset
from mien.lab.datasets.fer2013 import TEMPLATE
from mien.lab.evaluation.calibration import fit_temperature
from mien.lab.evaluation.evaluate import aligned_to, head_for
from mien.lab.methods.method import Recipe
from mien.lab.networks import Network
from mien.lab.protocol import file_sha256
from mien.lab.training import runs
from mien.lab.training.module import centre_window
from mien.lab.training.recipes import resolve
from mien.lab.training.trainer import Source, load_data

TOLERANCE = 1e-4  # largest difference of a probability or a relative feature between ONNX Runtime and torch
OPSET = 20
CHECKED = 64  # real faces on which the two must agree


class Exported(nn.Module):
    """The network as the file holds it: centre window, logits over temperatures, softmax; (probabilities..., features)."""

    def __init__(self, network: Network, recipe: Recipe, temperatures: Mapping[str, float], default: str) -> None:
        super().__init__()
        self.network, self.recipe, self.default = network, recipe, default
        self.temperatures = dict(temperatures)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        output = self.network(centre_window(images, self.recipe))
        named = runs.named_probabilities(output, self.temperatures, self.default)
        return (*named.values(), output.features)


class TrainedRun:
    """A run folder's network behind the same face as `Classifier`: a card, a weight hash, `run` on prepared batches."""

    def __init__(
        self, folder: Path, *, temperatures: Mapping[str, float] | None = None, checkpoint: str = "best.ckpt"
    ) -> None:
        self.path = folder / checkpoint
        network, method, self.recipe, self.facts = runs.load_network(folder, checkpoint)
        default = default_head(self.facts)
        self.card = build_card(self.facts, self.recipe, method.name, temperatures or {}, default)
        self.module = Exported(network, self.recipe, temperatures or {}, default).eval()

    @property
    def sha256(self) -> str:
        return file_sha256(self.path)

    def run(self, batch: np.ndarray) -> Prediction:
        with torch.no_grad():
            *probabilities, features = self.module(torch.from_numpy(batch))
        return Prediction({n: p.numpy() for n, p in zip(self.card.heads, probabilities, strict=True)}, features.numpy())


def default_head(facts: Mapping[str, Any]) -> str:
    """The name of the main head: the dataset it was trained on."""
    name: str = facts["data"]["name"]
    return name


def build_card(
    facts: Mapping[str, Any], recipe: Recipe, method: str, temperatures: Mapping[str, float], default: str
) -> ModelCard:
    """The card of a run: everything the file must say of itself."""
    rule = facts["label_rule"]
    trained_on = f"{facts['data']['name']} train, {facts['rows']:,} rows, fingerprint {facts['data']['fingerprint']}"
    joint = rule == "joint"
    main_rule = "vote distribution of every row with two equal votes for an expression" if joint else rule
    heads = {
        default: Head("probabilities", tuple(facts["classes"]), main_rule, temperatures.get(default, 1.0), trained_on)
    }
    if joint:
        heads["fer2013"] = Head("probabilities_fer2013", BASIC, "fer2013", temperatures.get("fer2013", 1.0), trained_on)
    return ModelCard(
        heads=heads,
        default_head=default,
        input=runs.spec_of(recipe, recipe.resize),
        crop=CropSpec(TEMPLATE),
        method=method,
        seed=facts["seed"],
        commit=facts["commit"],
        licence="Apache-2.0",
    )


def export(folder: Path, out: Path, *, rows: Mapping[str, FaceDataset] | None = None) -> Path:
    """Write `out` and return it. Raises ModelError, and leaves no file, when ONNX Runtime and torch differ by over 1e-4.

    rows: head name -> rows on which that head's temperature is fitted (never rows that are reported); None leaves the
    temperatures at 1. The agreement is checked on these rows' faces, else on those kept in the run folder at training.
    """
    if out.suffix != ".onnx":
        raise UsageError(f"-o {out}: expected a file name that ends in .onnx")
    trained = TrainedRun(folder)
    if rows:
        trained = TrainedRun(folder, temperatures=fitted_temperatures(trained, rows))
    spec = trained.card.input
    faces = next(iter(rows.values()))[:CHECKED] if rows else None
    pixels = runs.kept_crops(folder) if faces is None else spec.pixels([sample.image for sample in faces])
    batch = spec.normalise(pixels.astype(np.float32) / np.float32(255))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.stem}.partial.onnx")
    try:
        write_graph(trained, partial)
        difference = disagreement(trained, Classifier(partial), batch)
        if difference > TOLERANCE:
            raise ModelError(
                f"{out}: ONNX Runtime and torch differ by {difference:.2e} on {len(batch)} faces, over {TOLERANCE}"
            )
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def validation_rows(folder: Path, root: Path) -> dict[str, FaceDataset]:
    """Head name -> the rows that the run was selected on, for fitting temperatures. Raises DataError when `root` gives
    other rows than the run saw."""
    facts = runs.read(folder)
    _, recipe = resolve(runs.choice_of(facts))
    split = next(iter(facts["validation"].values()))["split"]
    data = facts["data"]
    source = Source(
        data["name"],
        root,
        data["protocol"],
        data["fold"],
        facts["label_rule"],
        "holdout" if split == "holdout" else "valid",
    )
    rows = load_data(source, recipe)[1]
    for name, held in rows.items():
        known = facts["validation"][name]["fingerprint"]
        if held.fingerprint != known:  # fitted on other rows, a temperature could see training rows
            raise DataError(
                f"{folder}: the run was selected on {name} rows with fingerprint {known}, {root} now gives "
                f"{held.fingerprint}; pass the root that it was trained on, or leave --root out and keep T = 1"
            )
    return rows


def described(path: Path) -> list[str]:
    """What the written file says of itself, a line for each head."""
    card = Classifier(path).card
    return [
        f"head {name}{' (default)' if name == card.default_head else ''}: {', '.join(head.labels)}; T = {head.temperature:.3f}"
        for name, head in card.heads.items()
    ]


def fitted_temperatures(trained: TrainedRun, rows: Mapping[str, FaceDataset]) -> dict[str, float]:
    """Head -> the temperature that minimises the negative log-likelihood of that head's rows (Guo et al., 2017)."""
    found = {}
    for name, data in rows.items():
        head = head_for(trained.card, data.name, name)
        blocks = [trained.run(trained.card.input.prepare([data.read(i) for i in part])) for part in _parts(len(data))]
        probabilities = np.concatenate([block.probabilities[head] for block in blocks])
        found[head] = fit_temperature(
            data.labels, aligned_to(probabilities, trained.card.heads[head].labels, data.classes)
        )
    return found


def _parts(count: int, size: int = 256) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def write_graph(trained: TrainedRun, path: Path) -> None:
    """The graph with a dynamic batch, its outputs named as the card says, and the card as metadata."""
    spec = trained.card.input
    example = torch.zeros(2, len(spec.mean), spec.height, spec.width)
    names = [head.output for head in trained.card.heads.values()] + ["features"]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            trained.module, (example,), dynamo=True, input_names=["images"], output_names=names, opset_version=OPSET,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}}, verbose=False,
        )  # fmt: skip
    model = program.model_proto  # type: ignore[union-attr]
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=trained.card.to_json())
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces with the builder's paths
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    onnx.save(model, str(path))


def disagreement(trained: TrainedRun, classifier: Classifier, batch: np.ndarray) -> float:
    """The largest absolute difference of a probability, or of a feature relative to the largest feature."""
    theirs, ours = classifier.run(batch), trained.run(batch)
    found = [np.abs(theirs.probabilities[name] - ours.probabilities[name]).max() for name in trained.card.heads]
    scale = max(1.0, float(np.abs(ours.features).max()))
    return float(max([*found, np.abs(theirs.features - ours.features).max() / scale]))
