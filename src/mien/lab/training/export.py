"""A trained run -> one ONNX file that carries its card, refused unless ONNX Runtime agrees with torch on real faces."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
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
from mien.lab.batch import NetworkOutput
from mien.lab.datasets import FaceDataset
from mien.lab.datasets.fer2013 import TEMPLATE
from mien.lab.evaluation.calibration import SMALLEST, apply_temperature, fit_temperature
from mien.lab.evaluation.evaluate import Model, aligned_to, head_for, windows
from mien.lab.methods.method import Recipe
from mien.lab.networks import Network
from mien.lab.protocol import file_sha256
from mien.lab.training import runs
from mien.lab.training.forms import CALIBRATED, PLAIN, Form, Tolerance, stored
from mien.lab.training.module import centre_window
from mien.lab.training.recipes import resolve
from mien.lab.training.trainer import Source, load_data

OPSET = 20
CHECKED = 64  # real faces on which the two must agree


class Exported(nn.Module):
    """The network as the file holds it: centre window, logits over temperatures, softmax; (probabilities..., features).

    With the flip folded in, the pictures and their mirror images go through as one batch of 2N, and probabilities (or
    logits) and features are the means of the two.
    """

    def __init__(
        self, network: Network, recipe: Recipe, temperatures: Mapping[str, float], default: str, form: Form
    ) -> None:
        super().__init__()
        self.network, self.recipe, self.default, self.form = network, recipe, default, form
        self.temperatures = dict(temperatures)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        flipped = self.form.views == "flip"
        seen = torch.cat((images, images.flip(-1))) if flipped else images  # (2N, C, h, w)
        output: NetworkOutput = self.network(centre_window(seen, self.recipe))
        if flipped and self.form.average == "logits":
            heads = {name: _mean_of_views(value) for name, value in (output.heads or {}).items()}
            output = replace(output, logits=_mean_of_views(output.logits), heads=heads)
        named = runs.named_probabilities(output, self.temperatures, self.default)
        if flipped and self.form.average == "probabilities":
            named = {name: _mean_of_views(value) for name, value in named.items()}
        return (*named.values(), _mean_of_views(output.features) if flipped else output.features)


def _mean_of_views(values: Tensor) -> Tensor:
    """(2N, K), the mirror images behind the pictures -> (N, K)."""
    return values.reshape(2, -1, values.shape[-1]).mean(dim=0)


class TrainedRun:
    """A run folder's network behind the same face as `Classifier`: a card, a weight hash, `run` on prepared batches."""

    def __init__(
        self,
        folder: Path,
        *,
        temperatures: Mapping[str, float] | None = None,
        checkpoint: str = "best.ckpt",
        form: Form = PLAIN,
    ) -> None:
        self.path = folder / checkpoint
        network, method, self.recipe, self.facts = runs.load_network(folder, checkpoint)
        default = default_head(self.facts)
        self.form = form
        card = build_card(self.facts, self.recipe, method.name, temperatures or {}, default)
        self.card = replace(card, views=form.told, weights=form.weights)
        self.module = Exported(network, self.recipe, temperatures or {}, default, form).eval()

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


def export(
    folder: Path,
    out: Path,
    *,
    rows: Mapping[str, FaceDataset] | None = None,
    form: Form = PLAIN,
    faces: FaceDataset | None = None,
    temperatures: Mapping[str, float] | None = None,
) -> Path:
    """Write `out` in the given form and return it. Raises ModelError, and leaves no file, when ONNX Runtime and torch
    differ by more than the form's tolerance.

    rows: head name -> rows on which that head's temperature is fitted (never rows that are reported); None leaves the
    temperatures at 1. temperatures: already fitted ones, for the same views. faces: training rows that int8's ranges are
    measured on. The agreement is checked on the faces of `rows`, else on those kept in the run folder at training.
    """
    if out.suffix != ".onnx":
        raise UsageError(f"-o {out}: expected a file name that ends in .onnx")
    if temperatures is None and rows:
        temperatures = fitted_temperatures(TrainedRun(folder), rows, form)
    trained = TrainedRun(folder, temperatures=temperatures, form=form)
    spec = trained.card.input
    held = next(iter(rows.values()))[:CHECKED] if rows else None
    pixels = runs.kept_crops(folder) if held is None else spec.pixels([sample.image for sample in held])
    batch = spec.normalise(pixels.astype(np.float32) / np.float32(255))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.stem}.partial.onnx")
    try:
        write_graph(trained, partial, faces=None if faces is None else spec.prepare(_spread(faces)))
        found = disagreement(trained, Classifier(partial), batch)
        allowed = form.tolerance
        if found.largest > allowed.largest or found.mean > allowed.mean:
            raise ModelError(
                f"{out}: ONNX Runtime and torch differ by {found.largest:.2e} at most and {found.mean:.2e} on the mean of "
                f"{len(batch)} faces; {form.weights} may differ by {allowed.largest} and {allowed.mean}"
            )
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return out


def _spread(faces: FaceDataset) -> list[np.ndarray]:
    """CALIBRATED of the faces, evenly over the rows."""
    chosen = np.linspace(0, len(faces) - 1, min(CALIBRATED, len(faces))).astype(int)
    return [faces.read(int(row)) for row in chosen]


def training_rows(folder: Path, root: Path) -> FaceDataset:
    """The rows that the run was trained on, for int8's ranges."""
    return _loaded(folder, root)[0]


def validation_rows(folder: Path, root: Path) -> dict[str, FaceDataset]:
    """Head name -> the rows that the run was selected on, for fitting temperatures. Raises DataError when `root` gives
    other rows than the run saw."""
    facts = runs.read(folder)
    rows = _loaded(folder, root)[1]
    for name, held in rows.items():
        known = facts["validation"][name]["fingerprint"]
        if held.fingerprint != known:  # fitted on other rows, a temperature could see training rows
            raise DataError(
                f"{folder}: the run was selected on {name} rows with fingerprint {known}, {root} now gives "
                f"{held.fingerprint}; pass the root that it was trained on, or leave --root out and keep T = 1"
            )
    return rows


def _loaded(folder: Path, root: Path) -> tuple[FaceDataset, dict[str, FaceDataset]]:
    """The run's training rows, and head name -> its validation rows, read again from `root`."""
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
    return load_data(source, recipe)


def described(path: Path) -> list[str]:
    """What the written file says of itself, a line for each head."""
    card = Classifier(path).card
    return [
        f"views: {card.views}; weights: {card.weights}",
        *(
            f"head {name}{' (default)' if name == card.default_head else ''}: {', '.join(head.labels)}; "
            f"T = {head.temperature:.3f}"
            for name, head in card.heads.items()
        ),
    ]


def fitted_temperatures(model: Model, rows: Mapping[str, FaceDataset], form: Form = PLAIN) -> dict[str, float]:
    """Head -> the temperature that minimises the negative log-likelihood of that head's rows (Guo et al., 2017), as the
    file will answer: over the form's views. model: the run, or its file, at temperature 1 and of a single view."""
    found = {}
    for name, data in rows.items():
        head = head_for(model.card, data.name, name)
        labels = model.card.heads[head].labels
        views = [aligned_to(view, labels, data.classes) for view in _views_of(model, data, head, form)]
        if form.average == "logits":  # the mean of the logits is, up to a constant, the mean of the logarithms
            views = [apply_temperature(np.exp(np.mean([np.log(np.maximum(v, SMALLEST)) for v in views], axis=0)), 1.0)]
        found[head] = fit_temperature(data.labels, np.stack(views))
    return found


def _views_of(model: Model, data: FaceDataset, head: str, form: Form) -> list[np.ndarray]:
    """Probabilities (N, K) of every row in each of the form's views."""
    blocks: list[list[np.ndarray]] = []
    for part in _parts(len(data)):
        batch = model.card.input.prepare([data.read(i) for i in part])
        seen = windows(batch, form.views, 0)
        blocks.append([model.run(np.ascontiguousarray(view)).probabilities[head] for view in seen])
    return [np.concatenate(view) for view in zip(*blocks, strict=True)]


def _parts(count: int, size: int = 256) -> list[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def write_graph(trained: TrainedRun, path: Path, *, faces: np.ndarray | None = None) -> None:
    """The graph with a dynamic batch, its outputs named as the card says, its weights stored as the form says, and the
    card as metadata. faces: prepared (N, C, height, width) float32, for int8's ranges."""
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
    onnx.save(stored(model, trained.form.weights, faces), str(path))


def disagreement(trained: TrainedRun, classifier: Classifier, batch: np.ndarray) -> Tolerance:
    """How far the file is from torch on this batch, in the terms of `Tolerance`."""
    theirs, ours = classifier.run(batch), trained.run(batch)
    gaps = [np.abs(theirs.probabilities[name] - ours.probabilities[name]).max(axis=1) for name in trained.card.heads]
    scale = max(1.0, float(np.abs(ours.features).max()))
    feature = float(np.abs(theirs.features - ours.features).max() / scale)
    return Tolerance(largest=max(float(np.max(gaps)), feature), mean=float(np.mean(gaps)))
