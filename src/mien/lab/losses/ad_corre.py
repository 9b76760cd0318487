"""Ad-Corre: adaptive correlation losses over k parallel embeddings (Ad-Corre paper, section III, eqs. 1-12).

    FD = 1/(k n^2)  sum_l sum_{i != j} (w_i + w_j) |phi_ij - corr(e_il, e_jl)|      eq. 9: feature discriminator
    MD = 1/(k K^2)  sum_l sum_{c != d} |target - corr(mean_cl, mean_dl)|           eq. 10: mean discriminator
    ED = 1/(n k^2)  sum_i sum_{l != m} |target - corr(e_il, e_im)|                 eq. 11: embedding discriminator
    L  = cross_entropy * CE + weight * (FD + MD + ED)                              eq. 12

phi is +1 within a class and `target` between classes; w(c) = 1 - CONF[c, c] + 1e-6 from the last batches' confusions
(eq. 7). All in torch operations: the released code takes its correlations in NumPy, which passes no gradient.
The D tags refer to methods/ad_corre.py.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.errors import UsageError
from mien.lab.batch import Batch, NetworkOutput
from mien.lab.losses.inputs import full_precision, inputs
from mien.lab.losses.loss import Loss, Task
from mien.lab.options import Options

WEIGHT_FLOOR = 1e-6  # epsilon of eq. 7, printed as 10e-7
VARIANCE_FLOOR = 1e-12  # D1: keeps the correlation of a constant vector finite


@dataclass(frozen=True)
class AdCorre(Options):
    """cross_entropy, weight: the factors of eq. 12 (1 and lambda); the sweep of Fig. 6 reads as (lambda, 1), D6.
    fd, md, ed: factor on each discriminator, 0 leaves it out (Table 8). k: number of embeddings. neg_target: the
    correlation asked of different classes, means and embeddings, -1 (paper) or 0 (uncorrelated). history: batches whose
    predictions make the confusion matrix, 0 for constant weights. virtual: batches whose embeddings enter the three
    discriminators together; gradients reach the newest (D8)."""

    cross_entropy: float = 1.0
    weight: float = 0.5
    fd: float = 1.0
    md: float = 1.0
    ed: float = 1.0
    k: int = 7
    neg_target: float = -1.0
    history: int = 5
    virtual: int = 1

    @property
    def embeddings(self) -> int:
        return self.k

    def build(self, task: Task) -> Loss:
        return AdCorreLoss(self, task)


def correlations(vectors: Tensor) -> Tensor:
    """Pearson's correlation of every pair of vectors (eqs. 1, 2): (..., n, E) -> (..., n, n)."""
    centred = vectors - vectors.mean(dim=-1, keepdim=True)
    products = centred @ centred.transpose(-1, -2)
    squares = centred.square().sum(dim=-1)
    return products / (squares[..., :, None] * squares[..., None, :] + VARIANCE_FLOOR).sqrt()


def _without_diagonal(matrices: Tensor) -> Tensor:
    """beta of eq. 6: zero the diagonal of (..., n, n)."""
    return matrices * (1 - torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device))


def feature_discriminator(embeddings: Tensor, labels: Tensor, weights: Tensor, *, neg_target: float) -> Tensor:
    """FD (eqs. 3-9). embeddings (n, k, E), labels (n,), weights (K,): w by class."""
    n, k, _ = embeddings.shape
    same = labels[:, None] == labels[None]
    phi = torch.where(same, 1.0, neg_target).to(embeddings.dtype)  # Eqs. 3, 4
    omega = weights[labels][:, None] + weights[labels][None]  # Eq. 8
    gaps = (phi - correlations(embeddings.transpose(0, 1))).abs()
    return (_without_diagonal(gaps) * omega).sum() / (k * n * n)


def mean_discriminator(embeddings: Tensor, labels: Tensor, classes: int, *, neg_target: float) -> Tensor:
    """MD (eq. 10): over the pairs of classes that the batch has; the normaliser stays k K^2 (D4)."""
    k = embeddings.shape[1]
    members = F.one_hot(labels, classes).to(embeddings.dtype).T  # (K, n)
    counts = members.sum(dim=1)
    means = torch.einsum("cn,nke->kce", members, embeddings) / counts.clamp_min(1)[:, None]
    gaps = _without_diagonal((correlations(means) - neg_target).abs())
    present = (counts > 0).to(embeddings.dtype)
    return (gaps * present[:, None] * present[None]).sum() / (k * classes * classes)


def embedding_discriminator(embeddings: Tensor, *, neg_target: float) -> Tensor:
    """ED (eq. 11): over the pairs of embeddings of each picture."""
    n, k, _ = embeddings.shape
    return _without_diagonal((correlations(embeddings) - neg_target).abs()).sum() / (n * k * k)


class AdCorreLoss(Loss):
    """Terms "softmax", "fd", "md", "ed". Buffers: `confusions` (history, K, K), counts of true by predicted class of
    the last batches, and `batches`, how many have been seen. The batches remembered for virtual ones are in the state, too."""

    confusions: Tensor
    batches: Tensor

    def __init__(self, options: AdCorre, task: Task) -> None:
        super().__init__()
        self.options = options
        self.classes = task.classes
        self.register_buffer("confusions", torch.zeros(options.history, task.classes, task.classes))
        self.register_buffer("batches", torch.tensor(0))
        self.memory: deque[tuple[Tensor, Tensor]] = deque(maxlen=options.virtual - 1)

    def get_extra_state(self) -> Tensor:
        """(m, N, k E + 1): the remembered batches, newest first, their labels as the last column; empty where there are none."""
        rows = [torch.cat([e.flatten(1), y[:, None].to(e)], dim=1) for e, y in self.memory]
        return torch.stack(rows) if rows else torch.zeros(0)

    def set_extra_state(self, state: Tensor) -> None:
        self.memory.clear()
        for rows in state:
            self.memory.append((rows[:, :-1].reshape(len(rows), self.options.k, -1), rows[:, -1].long()))

    def forward(self, output: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        with full_precision(output.logits):
            data = inputs(output, batch)
            if data.embeddings is None:
                raise UsageError(
                    f"ad-corre loss: the network gives no embeddings; build it with Shape(embeddings={self.options.k})"
                )
            terms = {"softmax": self.options.cross_entropy * F.cross_entropy(data.logits, data.labels)}
            return terms | self._discriminators(*self._virtual_batch(data.embeddings, data.labels))

    def _virtual_batch(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """This batch's embeddings and labels followed by those remembered of the batches before (D8)."""
        kept = [(e.to(embeddings), y.to(labels)) for e, y in self.memory] if self.training else []
        return torch.cat([embeddings, *(e for e, _ in kept)]), torch.cat([labels, *(y for _, y in kept)])

    def _discriminators(self, embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
        options, terms = self.options, {}
        weights = self.class_weights().to(embeddings.dtype)
        target = options.neg_target
        if options.fd:
            terms["fd"] = options.fd * feature_discriminator(embeddings, labels, weights, neg_target=target)
        if options.md:
            terms["md"] = options.md * mean_discriminator(embeddings, labels, self.classes, neg_target=target)
        if options.ed:
            terms["ed"] = options.ed * embedding_discriminator(embeddings, neg_target=target)
        return {name: options.weight * term for name, term in terms.items()}  # Eq. 12

    @torch.no_grad()
    def class_weights(self) -> Tensor:
        """w(c) = 1 - CONF[c, c] + 1e-6 (eq. 7): (K,); a class not seen in the last batches has CONF[c, c] = 0 (D5)."""
        counts = self.confusions.sum(dim=0)
        return 1 - counts.diagonal() / counts.sum(dim=1).clamp_min(1) + WEIGHT_FLOOR

    @torch.no_grad()
    def after_step(self, output: NetworkOutput, batch: Batch) -> None:
        """Remember this batch's predictions (eq. 7) and, for virtual batches, its embeddings."""
        data = inputs(output, batch)
        if self.options.history:
            pairs = data.labels * self.classes + data.logits.argmax(dim=1)
            counts = torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)
            self.confusions[int(self.batches) % self.options.history] = counts.to(self.confusions)
            self.batches += 1
        if self.memory.maxlen and data.embeddings is not None:
            self.memory.appendleft((data.embeddings.detach(), data.labels))

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """The smallest and largest class weight of the adaptive attention map."""
        weights = self.class_weights()
        return {"ad_corre_weight_min": weights.min().item(), "ad_corre_weight_max": weights.max().item()}
