"""Would the oracles notice? Each loss with a sign, a normaliser or a mask changed must disagree with its oracle."""

import inspect
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
from loss_cases import CASES, mismatches

pytestmark = pytest.mark.soak


@dataclass(frozen=True)
class Mutant:
    """cases: the cases, by the beginning of their names, one of which must notice. old -> new: the change in the source."""

    cases: str
    kind: str
    old: str
    new: str


MUTANTS = (
    Mutant("softmax", "sign", '{"softmax": self.options.weight * loss}', '{"softmax": -self.options.weight * loss}'),
    Mutant("softmax", "normaliser", "smoothing=self.options.smoothing)", 'smoothing=0.1, reduction="sum")'),
    Mutant("softmax", "mask", "label_smoothing=self.options.smoothing", "label_smoothing=0.0"),
    Mutant("weighted-softmax", "sign", "each * F.cross_entropy(", "-each * F.cross_entropy("),
    Mutant("weighted-softmax", "normaliser", "values.sum() / weights.sum()", "values.sum() / len(weights)"),
    Mutant("weighted-softmax", "mask", "self.weights.to(logits.dtype)[labels]", "self.weights.to(logits.dtype)[0 * labels]"),
    Mutant("cosine", "sign", "-self.options.weight * cosine", "self.options.weight * cosine"),
    Mutant("cosine", "normaliser", "probabilities.norm(dim=1)", "probabilities.sum(dim=1)"),
    Mutant("cosine", "mask", "data.labels[:, None])[:, 0]", "0 * data.labels[:, None])[:, 0]"),
    Mutant("centre", "sign", "* (centres - means)", "* (means - centres)"),
    Mutant("centre", "normaliser", "counts / (1 + counts)", "counts / counts.clamp_min(1)"),
    Mutant("centre", "mask", "features - centres[labels]", "features - centres[0 * labels]"),
    Mutant("island", "sign", "directions.T + 1", "directions.T - 1"),
    Mutant("island", "normaliser", "/ norms / (len(centres) - 1)", "/ norms / len(centres)"),
    Mutant("island", "mask", "cosines.sum() - cosines.diagonal().sum()", "cosines.sum()"),
    Mutant("islets", "sign", "torch.exp(-0.5 *", "torch.exp(0.5 *"),
    Mutant("islets", "normaliser", "/ (2 * classes)", "/ classes"),
    Mutant("islets", "mask", "offset=1", "offset=2"),
    Mutant("weighted-cluster", "sign", "rates.clamp_max(1)[:, None] * (centres", "-rates.clamp_max(1)[:, None] * (centres"),
    Mutant("weighted-cluster", "normaliser", "[labels] + self.options.alpha)", "[labels] + 2 * self.options.alpha)"),
    Mutant("weighted-cluster", "mask", "rates.clamp_max(1)", "rates"),
    Mutant("label-distribution", "sign", "return -(targets", "return (targets"),
    Mutant("label-distribution", "normaliser", "log_softmax(dim=1)).mean(dim=1)", "log_softmax(dim=1)).sum(dim=1)"),
    Mutant("label-distribution", "mask", "voted.sum().clamp_min(1)", "len(voted)"),
    Mutant("ad-corre", "sign", "correlations(means) - neg_target", "correlations(means) + neg_target"),
    Mutant("ad-corre", "normaliser", "(k * classes * classes)", "(k * k * k)"),
    Mutant("ad-corre", "mask", "present[:, None] * present[None]", "present[:, None]"),
    Mutant("ad-corre", "sign of FD", "(phi - correlations", "(phi + correlations"),
    Mutant("ad-corre", "normaliser of FD", "(k * n * n)", "(k * n * (n - 1))"),
    Mutant("ad-corre", "mask of ED", "_without_diagonal((correlations(embeddings)", "((correlations(embeddings)"),
)  # fmt: skip


def _mutated(module: ModuleType, mutant: Mutant) -> ModuleType:
    """The module compiled from its source with the one change made."""
    source = inspect.getsource(module)
    assert source.count(mutant.old) == 1, f"the mutant's text occurs {source.count(mutant.old)} times"
    made = ModuleType("mutated_loss")
    sys.modules[made.__name__] = made  # dataclasses look their module up
    exec(compile(source.replace(mutant.old, mutant.new), module.__file__ or "", "exec"), made.__dict__)
    return made


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.cases} {m.kind}")
def test_the_oracle_notices(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mutated_loss", ModuleType("mutated_loss"))
    cases = [case for case in CASES if case.name.split()[0] == mutant.cases]
    assert cases and all(mismatches(case) == [] for case in cases)
    assert any(mismatches(case, _mutated(case.module, mutant)) for case in cases)


def test_every_loss_has_three_mutants() -> None:
    names = {case.name.split()[0] for case in CASES}
    assert all(sum(mutant.cases == name for mutant in MUTANTS) >= 3 for name in names)
