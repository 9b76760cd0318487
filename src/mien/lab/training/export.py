"""Trained runs -> one ONNX file that carries its card, refused unless ONNX Runtime agrees with torch on real faces."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from mien import writing
from mien.card import METADATA_KEY, CropSpec, Head, ModelCard
from mien.classifier import Classifier, Prediction
from mien.errors import DataError, ModelError, UsageError
from mien.expressions import BASIC
from mien.lab import datasets
from mien.lab.batch import NetworkOutput
from mien.lab.datasets import FaceDataset
from mien.lab.datasets.fer2013 import TEMPLATE
from mien.lab.datasets.ferplus import JOINT
from mien.lab.evaluation.calibration import SMALLEST, apply_temperature, fit_temperature
from mien.lab.evaluation.evaluate import Model, aligned_to, head_for, windows
from mien.lab.methods.method import Recipe
from mien.lab.networks import Network
from mien.lab.protocol import file_sha256
from mien.lab.training import runs
from mien.lab.training.forms import CALIBRATED, PLAIN, Form, Tolerance, stored
from mien.lab.training.module import centre_window
from mien.lab.training.parts import Part
from mien.lab.training.recipes import resolve
from mien.lab.training.trainer import Source, load_data

OPSET = 20
LICENCE = "not stated"
CHECKED = 64  # real faces on which the two must agree


class Exported(nn.Module):
    """The networks as the file holds them: centre window, logits over temperatures, softmax; (probabilities..., features).

    What a network looks at goes through it as one batch. Probabilities (or logits) are the mean over all looks of all
    networks; features are each network's mean over its own looks, side by side.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        recipe: Recipe,
        temperatures: Mapping[str, float],
        card: ModelCard,
        form: Form,
    ) -> None:
        super().__init__()
        self.network, self.others = networks[0], nn.ModuleList(networks[1:])
        self.recipe, self.average = recipe, form.average
        # The card's heads: a network may have one that nothing was learnt by.
        self.heads, self.default = tuple(card.heads), card.default_head
        self.looks = form.looks(len(networks))
        self.temperatures = dict(temperatures)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        logits: dict[str, list[Tensor]] = {}
        features = []
        for network, looks in zip((self.network, *self.others), self.looks, strict=True):
            seen = [images.flip(-1) if mirrored else images for mirrored in looks]
            output: NetworkOutput = network(centre_window(torch.cat(seen) if len(seen) > 1 else seen[0], self.recipe))
            answered = {**(output.heads or {}), self.default: output.logits}
            for name in self.heads:
                logits.setdefault(name, []).append(_by_look(answered[name], len(looks)))
            features.append(_by_look(output.features, len(looks)).mean(dim=0))
        return (*(self._mean(name, values) for name, values in logits.items()), torch.cat(features, dim=1))

    def _mean(self, name: str, logits: list[Tensor]) -> Tensor:
        """Each network's logits (looks, N, K) -> the head's probabilities (N, K)."""
        tempered = torch.cat(logits) / self.temperatures.get(name, 1.0)
        if self.average == "logits":
            return tempered.mean(dim=0).softmax(dim=-1)
        return tempered.softmax(dim=-1).mean(dim=0)


def _by_look(values: Tensor, looks: int) -> Tensor:
    """(looks N, K), all faces of the first look in front -> (looks, N, K)."""
    return values.reshape(looks, -1, values.shape[-1])


class TrainedRun:
    """The network of a run folder, or of several that answer together, behind the same face as `Classifier`: a card, a weight
    hash, `run` on prepared batches. folders: one or more; the first gives the card its seed and commit. Raises
    DataError where a checkpoint cannot be read, and UsageError for several that cannot answer together."""

    def __init__(
        self,
        *folders: Path,
        temperatures: Mapping[str, float] | None = None,
        checkpoint: str = "best.ckpt",
        form: Form = PLAIN,
    ) -> None:
        self.path = folders[0] / checkpoint
        loaded = [runs.load_network(folder, checkpoint) for folder in folders]
        _, method, self.recipe, self.facts = loaded[0]
        card = build_card(self.facts, self.recipe, method.name, temperatures or {})
        for folder, (_, _, recipe, facts) in zip(folders[1:], loaded[1:], strict=True):
            other = build_card(facts, recipe, method.name, temperatures or {})
            if (other.heads, other.input, other.window) != (card.heads, card.input, card.window):
                raise UsageError(
                    f"{folder}: it was trained on other rows or labels, or sees other pictures, than {folders[0]}; networks "
                    "of one file share them"
                )
        self.form = form
        self.card = replace(card, views=form.told(len(folders)), weights=form.weights)
        networks = [network for network, *_ in loaded]
        self.module = Exported(networks, self.recipe, temperatures or {}, self.card, form).eval()

    @property
    def sha256(self) -> str:
        return file_sha256(self.path)

    def run(self, batch: np.ndarray) -> Prediction:
        with torch.no_grad():
            *probabilities, features = self.module(torch.from_numpy(batch))
        return Prediction({n: p.numpy() for n, p in zip(self.card.heads, probabilities, strict=True)}, features.numpy())


def build_card(facts: Mapping[str, Any], recipe: Recipe, method: str, temperatures: Mapping[str, float]) -> ModelCard:
    """The card of a run: everything the file must say of itself. Its main head has the name of what it was trained on."""
    default: str = facts["data"]["name"]
    rule = facts["label_rule"]
    trained_on = f"{facts['data']['name']} train, {facts['rows']:,} rows, fingerprint {facts['data']['fingerprint']}"
    joint = rule == JOINT
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
        licence=LICENCE,
        window=recipe.size if recipe.resize else None,
    )


def export(
    folders: Path | Sequence[Path],
    out: Path,
    *,
    rows: Mapping[str, FaceDataset] | None = None,
    form: Form = PLAIN,
    faces: FaceDataset | None = None,
    temperatures: Mapping[str, float] | None = None,
    licence: str = LICENCE,
) -> Path:
    """Write the run, or the runs that answer together, as `out` in the given form and return it. Raises ModelError, and leaves
    no file, when ONNX Runtime and torch differ by more than the form's tolerance.

    rows: head name -> rows on which that head's temperature is fitted (never rows that are reported); None leaves the
    temperatures at 1. temperatures: already fitted ones, for the same views. faces: training rows that int8's ranges are
    measured on. licence: of the file, in its card. The agreement is checked on the faces of `rows`, else on those kept in the
    first run folder at training.
    """
    chosen = [folders] if isinstance(folders, Path) else list(folders)
    if out.suffix != ".onnx":
        raise UsageError(f"-o {out}: expected a file name that ends in .onnx")
    if temperatures is None and rows:
        try:
            temperatures = fitted_temperatures([TrainedRun(folder) for folder in chosen], rows, form)
        except DataError as error:
            raise DataError(f"{error}; or leave it at 1 by --uncalibrated") from None
    trained = TrainedRun(*chosen, temperatures=temperatures, form=form)
    trained.card = replace(trained.card, licence=licence)
    spec = trained.card.input
    held = next(iter(rows.values()))[:CHECKED] if rows else None
    pixels = runs.kept_crops(chosen[0]) if held is None else spec.pixels([sample.image for sample in held])
    batch = spec.normalise(pixels.astype(np.float32) / np.float32(255))
    if not all(np.isfinite(answers).all() for answers in trained.run(batch).probabilities.values()):
        raise DataError(
            f"{trained.path}: answers about faces that are not finite; train the run again by a lower --set lr"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with writing.whole(out) as partial:
        write_graph(trained, partial, faces=None if faces is None else spec.prepare(_spread(faces)))
        found = disagreement(trained, Classifier(partial), batch)
        allowed = form.tolerance
        if found.largest > allowed.largest or found.mean > allowed.mean:
            raise ModelError(
                f"{out}: ONNX Runtime and torch differ by {found.largest:.2e} at most and {found.mean:.2e} on the mean of "
                f"{len(batch)} faces; {form.weights} may differ by {allowed.largest} and {allowed.mean}"
            )
    return out


def _spread(faces: FaceDataset) -> list[np.ndarray]:
    """CALIBRATED of the faces, evenly over the rows."""
    chosen = np.linspace(0, len(faces) - 1, min(CALIBRATED, len(faces))).astype(int)
    return [faces.read(int(row)) for row in chosen]


def training_rows(folder: Path, root: Path | None) -> FaceDataset:
    """The rows that the run was trained on, for int8's ranges. Raises DataError when `root` gives others."""
    rows = _loaded(folder, root)[0]
    known = runs.read(folder)["data"]["fingerprint"]
    if rows.fingerprint != known:
        raise DataError(
            f"{folder}: the run was trained on {rows.name} rows with fingerprint {known}, {root} now gives "
            f"{rows.fingerprint}; pass the root that it was trained on"
        )
    return rows


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


def _loaded(folder: Path, root: Path | None) -> tuple[FaceDataset, dict[str, FaceDataset]]:
    """The run's training rows, and head name -> its validation rows, read again from `root`."""
    return load_data(*source_of(folder, root))


def source_of(folder: Path, root: Path | None) -> tuple[Source, Recipe]:
    """Where the run's data came from, now under `root`, and its recipe. Counts need not be the official ones: compare
    fingerprints."""
    facts = runs.read(folder)
    _, recipe = resolve(runs.choice_of(facts))
    split = next(iter(facts["validation"].values()))["split"]
    data = facts["data"]
    return Source(
        data["name"],
        root,
        data["protocol"],
        data["fold"],
        facts["label_rule"] if "label_rule" in datasets.OPTIONS[data["name"]] else None,
        "holdout" if split == "holdout" else "valid",
        allow_partial=True,
        leave_out=Part.parse(data["left_out"]) if "left_out" in data else None,
    ), recipe


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


def fitted_temperatures(
    models: Sequence[Model], rows: Mapping[str, FaceDataset], form: Form = PLAIN
) -> dict[str, float]:
    """Head -> the temperature that minimises the negative log-likelihood of that head's rows (Guo et al., 2017), as the
    file will answer: over all looks. models: the file's runs, or their files, at temperature 1 and of a single view."""
    found = {}
    for name, data in rows.items():
        card = models[0].card
        head = head_for(card, data.name, name)
        labels = card.heads[head].labels
        views = [aligned_to(view, labels, data.classes) for view in _views_of(models, data, head, form)]
        if form.average == "logits":  # the mean of the logits is, up to a constant, the mean of the logarithms
            views = [apply_temperature(np.exp(np.mean([np.log(np.maximum(v, SMALLEST)) for v in views], axis=0)), 1.0)]
        found[head] = fit_temperature(data.labels, np.stack(views))
    return found


def _views_of(models: Sequence[Model], data: FaceDataset, head: str, form: Form) -> list[np.ndarray]:
    """Probabilities (N, K) of every row in each of the form's looks."""
    blocks: list[list[np.ndarray]] = []
    looks = form.looks(len(models))
    for part in _parts(len(data)):
        batch = models[0].card.input.prepare([data.read(i) for i in part])
        pictures = [np.ascontiguousarray(view) for view in windows(batch, "flip", (0, 0))]
        blocks.append(
            [model.run(pictures[m]).probabilities[head] for model, own in zip(models, looks, strict=True) for m in own]
        )
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
    with warnings.catch_warnings(), torch.no_grad():
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
