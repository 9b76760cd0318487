"""The step: augment, forward, loss, and what is averaged, validated and logged. Lightning runs the loop around it."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mien.card import InputSpec
from mien.errors import UsageError
from mien.lab import ranks
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses import Loss
from mien.lab.methods.method import Recipe
from mien.lab.networks import Network
from mien.lab.training import distributed, mixing, randomness, schedule
from mien.lab.training.augment import augment
from mien.lab.training.average import Average
from mien.lab.training.sharpness import Uphill

REPORTED = "reported"  # the validation set that is only watched: what best_on_test.ckpt is chosen by, never best.ckpt
_DRAWN_LABELS = 7  # stream of randomness for FER+'s "probability" rule


class Training(pl.LightningModule):
    """One run. validation: names of the validation sets, in the order of their loaders; REPORTED takes no part in the
    selection."""

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        loss: Loss,
        *,
        spec: InputSpec,
        seed: int,
        steps: int,
        validation: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.recipe, self.spec, self.seed, self.steps, self.validation = recipe, spec, seed, steps, validation
        self.network, self.loss = network, loss
        self.average = Average(network, recipe.ema) if recipe.ema else None
        self.uphill = Uphill(network, recipe.sam_rho) if recipe.sam_rho else None
        self.redraw_labels = False
        self.joint = False  # whether both label sets are learnt: only then does a second head mean anything
        self._tally: dict[str, list[Tensor]] = {}  # 1 or 0 for each validation row, by label set
        self._losses: dict[str, list[Tensor]] = {}  # their cross-entropies
        self._steps: list[tuple[int, dict[str, Tensor]]] = []  # of this epoch, each step's terms, and "loss", their sum
        self._last: tuple[NetworkOutput, Batch] | None = None
        network.freeze(recipe.frozen)

    @property
    def evaluated(self) -> Network:
        """The network that is validated and exported: the averaged one where the recipe averages."""
        return self.network if self.average is None else self.average.network

    def restart_average(self) -> None:
        """Begin the average at the network's present weights (after loading pretrained ones)."""
        if self.average is not None:
            self.average.network.load_state_dict(self.network.state_dict())

    # training

    def on_train_epoch_start(self) -> None:
        self._steps = []

    def training_step(self, batch: Batch, index: int) -> Tensor:
        prepared = self.prepared(batch)
        side = prepared.images.shape[-1]
        mix = mixing.draw(self.recipe.augment, size=side, seed=self.seed, epoch=self.current_epoch, step=index)
        if mix is not None:
            prepared = replace(prepared, images=mix.pictures(prepared.images))
        step_seed = (self.seed * 1_000_003 + self.current_epoch) * 1_000_003 + index
        output, prepared, terms = self._answered(prepared, mix, step_seed)
        total = torch.stack(list(terms.values())).sum()
        self._steps.append((index, {name: value.detach() for name, value in {"loss": total, **terms}.items()}))
        if total.device.type == "cpu":  # elsewhere at the epoch's end: a question at every step would leave it idle
            self._refuse_a_loss_that_is_not_finite(since=-1)
        self._last = (output, prepared)
        if self.uphill is not None:
            self.uphill.climb(total)
            *_, above = self._answered(prepared, mix, step_seed)
            return torch.stack(list(above.values())).sum()
        return total

    def _answered(
        self, prepared: Batch, mix: mixing.Mix | None, step_seed: int
    ) -> tuple[NetworkOutput, Batch, dict[str, Tensor]]:
        """The network's output and the loss's terms, and the batch that they are about: all ranks'."""
        torch.manual_seed(step_seed % 2**64)  # dropout: nothing to restore on resume
        output, prepared = distributed.over_ranks(self.network(prepared.images), prepared)
        terms = self.loss(output, prepared)
        if mix is not None:
            terms = mix.terms(terms, self.loss(output, mixing.next_labels(prepared)))
        return output, prepared, terms

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.uphill is not None:  # the gradient is there by now, the step starts from where the weights were
            self.uphill.back()

    def _refuse_a_loss_that_is_not_finite(self, *, since: int = 0) -> None:
        """Raises UsageError naming the first of the epoch's steps, from the place `since` on, whose loss is not finite."""
        steps = self._steps[since:]
        finite = torch.isfinite(torch.stack([terms["loss"] for _, terms in steps])).tolist()
        if not all(finite):
            step, terms = steps[finite.index(False)]
            found = ", ".join(f"{name}={value.item():.4g}" for name, value in terms.items() if name != "loss")
            raise UsageError(
                f"the loss is not finite at epoch {self.current_epoch}, step {step} ({found}); lower --set lr"
            )

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        if self._last is not None:
            with torch.no_grad():
                self.loss.after_step(*self._last)
        self._last = None
        if self.average is not None:
            self.average.update(self.network)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def prepared(self, batch: Batch) -> Batch:
        """Augment and normalise; redraw the label from the votes where the label rule says so."""
        ids, epoch = batch.ids.numpy(), self.current_epoch
        size = schedule.side(self.recipe, epoch)
        window = self.recipe.size / (self.recipe.resize or self.recipe.size)
        with torch.autocast(batch.images.device.type, enabled=False):  # coordinates in bfloat16 would be too coarse
            images = augment(
                batch.images, ids, self.recipe.augment, size=size, window=window, seed=self.seed, epoch=epoch
            )
        labels = batch.labels
        if self.redraw_labels and batch.votes is not None:
            u = torch.from_numpy(randomness.uniform(self.seed, epoch, ids, draws=1, stream=_DRAWN_LABELS))
            labels = (
                (batch.votes.cumsum(dim=1) < u.to(batch.votes.device)).sum(dim=1).clamp(max=batch.votes.shape[1] - 1)
            )
        return Batch(self._normalised(images), labels, batch.votes, batch.ids)

    def _normalised(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(v).view(1, -1, 1, 1) for v in (self.spec.mean, self.spec.std))
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    # validation

    def on_validation_epoch_start(self) -> None:
        self._tally, self._losses = {}, {}

    def validation_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        output = self.evaluated(self._normalised(centre_window(batch.images, self.recipe)))
        name = self.validation[dataloader_idx]
        logits = head_logits(output, name) if self.joint else output.logits
        self._tally.setdefault(name, []).append((logits.argmax(dim=1) == batch.labels).float())
        losses = F.cross_entropy(logits.float(), batch.labels, reduction="none")
        self._losses.setdefault(name, []).append(losses.double())

    def on_validation_epoch_end(self) -> None:
        accuracies = {name: _mean_of_all(self._tally[name]) for name in self.validation}
        losses = {name: _mean_of_all(self._losses[name]) for name in self.validation}
        if not all(map(math.isfinite, losses.values())):  # the last step's loss was still that of finite weights
            raise UsageError(
                f"the network's answers are not finite after epoch {self.current_epoch}, which is not kept; lower --set lr"
            )
        reported = accuracies.pop(REPORTED, None)
        if reported is not None:
            self.log("reported_accuracy", reported)
        for name, value in accuracies.items():
            self.log(f"valid_accuracy_{name}", value)
        self.log("valid_loss", sum(losses[name] for name in accuracies) / len(accuracies))
        self.log("selection", sum(accuracies.values()) / len(accuracies))

    def on_train_epoch_end(self) -> None:
        self._refuse_a_loss_that_is_not_finite()
        for name, value in self._totals().items():
            self.log(name, value / self.steps)
        for name, found in self.loss.diagnostics().items():
            self.log(f"loss_{name}", found)
        last = self.global_step - 1  # the optimiser's own rate is by now that of the next epoch
        self.log("lr", self.recipe.lr * schedule.step_factor(self.recipe, last, self.steps))

    def _totals(self) -> dict[str, float]:
        """Each term's sum over the epoch's steps so far."""
        names = dict.fromkeys(name for _, terms in self._steps for name in terms)  # a loss may have others at each step
        return {
            f"train_{name}": math.fsum(torch.stack([terms[name] for _, terms in self._steps if name in terms]).tolist())
            for name in names
        }

    # optimisation

    def configure_optimizers(self) -> Any:
        optimiser = build_optimiser(self.recipe, self.network)
        rate = LambdaLR(optimiser, lambda step: schedule.step_factor(self.recipe, step, self.steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step()


def _mean_of_all(values: list[Tensor]) -> float:
    """The mean over every rank's rows."""
    rows = torch.cat(values)
    total, count = ranks.summed(torch.stack([rows.sum(), rows.new_tensor(len(rows))]))  # of 1 and 0 exact up to 2^24
    return (total / count).item()


def head_logits(output: NetworkOutput, name: str) -> Tensor:
    """The logits of the head called `name`, else the main ones."""
    heads: Mapping[str, Tensor] = output.heads or {}
    return heads.get(name, output.logits)


def centre_window(images: Tensor, recipe: Recipe) -> Tensor:
    """The middle `size` pixels of pictures of side `resize`: the single test view."""
    margin = (images.shape[-1] - recipe.size) // 2
    return images[..., margin : margin + recipe.size, margin : margin + recipe.size]


def build_optimiser(recipe: Recipe, network: Network) -> Optimizer:
    """The recipe's optimiser over the trainable weights; norms and biases without decay unless `decay_norms`."""
    trained = [p for p in network.parameters() if p.requires_grad]
    plain = [] if recipe.decay_norms else [p for p in trained if p.ndim <= 1]
    decayed = [p for p in trained if recipe.decay_norms or p.ndim > 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimiser == "sgd":
        return SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    return (Adam if recipe.optimiser == "adam" else AdamW)(groups, lr=recipe.lr)
