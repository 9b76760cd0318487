"""The trainer: what a run folder holds, that a killed run ends like one never killed, and what it refuses."""

import contextlib
import csv
import errno
import json
import logging
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_fer
import torch

from mien import cli, writing
from mien.errors import DataError, UsageError
from mien.lab import methods
from mien.lab.batch import Batch
from mien.lab.losses import Task
from mien.lab.losses.softmax import Softmax
from mien.lab.methods.method import Augment
from mien.lab.networks import Shape
from mien.lab.networks.mien_small import MienSmall
from mien.lab.training import runs, schedule, times
from mien.lab.training.checkpoint import save
from mien.lab.training.module import REPORTED, Training
from mien.lab.training.parts import holdout_ids
from mien.lab.training.recipes import Choice, apply_settings, resolve
from mien.lab.training.times import KeepTimes
from mien.lab.training.trainer import Source, load_data, train

TINY = ("network.width=0.0625", "epochs=3", "batch=16", "lr=0.01")
SMALL = ("network.widths=(4,8,8,8)", "epochs=1", "batch=16", "sizes=()")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return small_fer.write(tmp_path / "data")


def source(root: Path, **options: str) -> Source:
    return Source("fer2013", root, allow_partial=True, **options)


# recipes and schedules


def test_mscars_printed_rates() -> None:
    recipe = methods.load("mscar").recipes["paper"]
    found = {epoch: recipe.lr * schedule.factor(recipe, epoch) for epoch in (0, 80, 81, 120, 121, 160, 161, 180, 181)}
    assert found == pytest.approx(
        {0: 1e-3, 80: 1e-3, 81: 1e-4, 120: 1e-4, 121: 1e-5, 160: 1e-5, 161: 1e-6, 180: 1e-6, 181: 5e-7}
    )


def test_cosine_warms_up_and_ends_at_zero() -> None:
    recipe = replace(methods.load("mien-small").recipes["paper"], epochs=100, warmup=0.1)
    assert schedule.factor(recipe, 5) == pytest.approx(0.5)
    assert schedule.factor(recipe, 10) == pytest.approx(1)
    assert schedule.factor(recipe, 55) == pytest.approx(0.5)
    assert schedule.factor(recipe, 100) == pytest.approx(0)


def test_progressive_sizes() -> None:
    recipe = replace(methods.load("mien-small").recipes["paper"], epochs=10, sizes=((0.0, 32), (0.5, 40), (0.8, 48)))
    assert [schedule.side(recipe, epoch) for epoch in (0, 4, 5, 7, 8, 9)] == [32, 32, 40, 40, 48, 48]


def test_settings_are_checked() -> None:
    _, recipe = resolve(Choice("mscar", settings=("epochs=2", "augment.rotate=30", "mean=0.5", "label_rule=argmax8")))
    assert (recipe.epochs, recipe.augment.rotate, recipe.mean, recipe.label_rule) == (2, 30, (0.5,), "argmax8")
    for setting, words in {
        "epochs": "expected key=value",
        "epoch=2": "has no field 'epoch'; it has .*epochs",
        "epochs=2.5": "expected int like",
        "epochs=many": "expected int like",
        "augment.rotation=3": "Augment has no field 'rotation'",
        "lr.x=3": "is a plain value",
    }.items():
        with pytest.raises(UsageError, match=words):
            apply_settings(recipe, [setting])


def test_unknown_names_list_the_known_ones() -> None:
    for choice, words in (
        (Choice("vgg"), "expected one of lban-il"),
        (Choice("mscar", preset="gpu"), "no preset 'gpu': expected one of paper"),
        (Choice("mscar", network="vgg"), "unknown network 'vgg'"),
        (Choice("mscar", loss="l2"), "unknown loss 'l2'"),
    ):
        with pytest.raises(UsageError, match=words):
            resolve(choice)


# runs


def trained(folder: Path, root: Path, *settings: str, **options: bool) -> Path:
    choice = Choice("mscar", "cpu", settings=TINY + settings)
    return train(choice, source(root), folder, threads=1, say=lambda line: None, **options)


@pytest.mark.slow
def test_a_run_folder_says_everything(data: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", data)
    facts = json.loads((run / "run.json").read_text())
    assert facts["rows"] == 140
    assert facts["recipe"]["epochs"] == 3
    assert facts["selection_rule"].startswith("epoch with the highest accuracy on the valid split")
    assert facts["notes"] == []
    assert {"command", "commit", "versions", "macs", "seed", "label_rule", "class_counts", "data"} <= set(facts)
    assert str(tmp_path) not in (run / "run.json").read_text()
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 4
    assert {"epoch", "train_loss", "train_cosine", "selection", "valid_accuracy_fer2013", "valid_loss", "lr"} <= set(
        rows[0].split(",")
    )
    took = times.read(run)
    assert list(took) == [0, 1, 2]
    for row in took.values():
        assert 0 < row["train_s"] <= row["epoch_s"]
        images = 140 // facts["recipe"]["batch"] * facts["recipe"]["batch"]
        rounding = 0.005 * row["images_per_s"] + 0.05 * row["train_s"] + 1  # of hundredths of s and tenths of images/s
        assert row["images_per_s"] * row["train_s"] == pytest.approx(images, abs=rounding)
    assert (run / "best.ckpt").is_file()
    assert (run / "last.ckpt").is_file()
    assert any((run / "tensorboard").iterdir())


@pytest.mark.slow
def test_a_random_start_where_the_papers_was_another_is_told(data: Path, tmp_path: Path) -> None:
    small = ("network.width=0.05", "epochs=1", "batch=32")
    for network, told in ((None, 1), ("mscar", 0)):
        heard: list[str] = []
        choice = Choice("ad-corre", "cpu", network=network, settings=small)
        run = train(choice, source(data), tmp_path / str(network), threads=1, say=heard.append)
        notes = json.loads((run / "run.json").read_text())["notes"]
        assert len(notes) == told and all("starts from ImageNet weights" in note for note in notes)
        assert [line for line in heard if line.startswith("note: ")] == [f"note: {note}" for note in notes]


@pytest.mark.slow
def test_a_run_takes_the_threads_that_it_is_given_and_lightning_is_quiet(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    logging.getLogger("pytorch_lightning").setLevel(logging.INFO)
    train(
        Choice("mscar", "cpu", settings=(*TINY, "epochs=1")),
        source(data),
        tmp_path / "run",
        threads=3,
        say=lambda line: None,
    )
    assert given == [3] and logging.getLogger("pytorch_lightning").level == logging.WARNING


@pytest.mark.slow
def test_the_rate_on_record_is_the_epochs_own(data: Path, tmp_path: Path) -> None:
    steps = ("lr=0.004", "schedule=steps", "milestones=((1,0.1),(2,0.01))")
    run = trained(tmp_path / "run", data, *steps)
    with (run / "metrics.csv").open(newline="") as file:
        assert [float(row["lr"]) for row in csv.DictReader(file)] == pytest.approx([4e-3, 4e-4, 4e-5])


@pytest.mark.slow
def test_it_learns(data: Path, tmp_path: Path) -> None:
    run = trained(
        tmp_path / "run", data, "epochs=15", "network.width=0.125", "augment.scale=(1.0, 1.0)", "augment.rotate=0"
    )
    rows = (run / "metrics.csv").read_text().splitlines()
    last = dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))
    assert float(last["selection"]) > 0.8  # seven classes: guessing gives 0.14


@pytest.mark.slow
def test_gradients_are_clipped_to_a_length(data: Path, tmp_path: Path) -> None:
    def weights(name: str, *settings: str) -> torch.Tensor:
        plain = ("epochs=1", "optimiser=sgd", "momentum=0", "nesterov=False", "weight_decay=0", "warmup=0")
        run = trained(tmp_path / name, data, *plain, *settings)
        found: torch.Tensor = torch.load(run / "last.ckpt", weights_only=True)["state_dict"][
            "network.head.classify.weight"
        ]
        return found

    start, clipped, free = weights("start", "lr=1e-12"), weights("clipped", "clip=1e-3"), weights("free")
    assert (free - start).norm() > 1e-3
    steps = 140 // 16
    assert 0 < (clipped - start).norm() <= steps * 0.01 * 1e-3 * 1.001


@pytest.mark.slow
def test_another_run_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", data, "epochs=1")
    with pytest.raises(UsageError, match="already holds a run; add --resume"):
        trained(run, data, "epochs=1")
    with pytest.raises(
        UsageError, match=r"holds another run: choice.settings differs, recipe.lr was 0.01, now 0.02; choose"
    ):
        trained(run, data, "epochs=1", "lr=0.02", resume=True)
    with pytest.raises(UsageError, match="holds another run: seed was 0, now 1; choose"):
        trained(run, data, "epochs=1", resume=True, seed=1)


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_validation_rows_or_votes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its best epoch would be the best on two sets of rows, or its targets those of two tables."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    roots = [small_fer.write(tmp_path / name, valid=rows) for name, rows in (("one", 42), ("fewer", 35), ("voted", 42))]
    table = roots[2] / "ferplus" / "fer2013new.csv"
    table.write_text(table.read_text().replace(",7,3,", ",6,4,"))
    choice, folder = Choice("mien-small", settings=SMALL), tmp_path / "run"

    def taught(root: Path, *, resume: bool = True) -> Path:
        return train(choice, Source("ferplus", root, allow_partial=True), folder, resume=resume, threads=1, say=len)

    run = taught(roots[0], resume=False)
    with pytest.raises(
        UsageError, match=r"holds another run: validation.fer2013.fingerprint was .*, validation.fer2013.rows "
    ):
        taught(roots[1])
    with pytest.raises(UsageError, match="holds another run: votes_sha256 differs"):
        taught(roots[2])
    facts = json.loads((run / "run.json").read_text())
    del facts["votes_sha256"]  # as before there was such a field
    (run / "run.json").write_text(json.dumps(facts))
    taught(roots[0])


@pytest.mark.slow
def test_two_do_not_train_into_one_folder(data: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", data, "epochs=1")
    with writing.held(run), pytest.raises(UsageError, match="run: another mien is writing here"):
        trained(run, data, "epochs=1", resume=True)
    (run / "best.ckpt").unlink()
    with pytest.raises(UsageError, match=r"best.ckpt is gone: copy it, too, or delete .*last.ckpt to begin again"):
        trained(run, data, "epochs=1", resume=True)
    seen = []

    def say(line: str) -> None:
        if line.startswith("epoch"):
            with contextlib.suppress(UsageError), writing.held(tmp_path / "new"):
                seen.append(line)

    choice = Choice("mien-small", settings=SMALL)
    train(choice, Source("ferplus", data, allow_partial=True), tmp_path / "new", threads=1, say=say)
    assert seen == []  # a new run keeps its folder, too
    other = tmp_path / "other"

    def begin(line: str) -> None:  # another run, while this one's first words are said
        if not other.exists():
            trained(other, data, "epochs=1")

    at_random = Choice(
        "ad-corre", "cpu", settings=("network.width=0.05", "size=32", "epochs=1")
    )  # it says a note before it trains
    with pytest.raises(UsageError, match="other already holds a run"):
        train(at_random, Source("ferplus", data, allow_partial=True), other, threads=1, say=begin)
    assert runs.read(other)["choice"]["method"] == "mscar"


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("tensorboard", "train mscar --data synthetic -o runs"),
        ("onnxscript", "export runs -o model.onnx"),
    ],
)
def test_a_part_of_the_lab_that_is_lacking_is_told_before_the_work(
    package: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        cli.main(command.split())
    assert ended.value.code == 2
    assert f'({package} is not installed); run `pip install "mien[lab]"`' in " ".join(capsys.readouterr().err.split())


def test_a_full_disk_names_the_checkpoint(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError) as full:
            save({"state_dict": {"weight": torch.zeros(100_000)}}, tmp_path / "last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (full.value.errno, full.value.filename) == (errno.EFBIG, str(tmp_path / "last.ckpt"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_times(tmp_path: Path) -> None:
    (tmp_path / times.NAME).symlink_to("/dev/full")
    lightning = SimpleNamespace(is_global_zero=True, num_training_batches=1, current_epoch=0)
    keep = KeepTimes(tmp_path, 8)
    keep.trained = 1.0
    with pytest.raises(OSError) as full:
        keep.on_train_epoch_end(lightning, None)
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, str(tmp_path / times.NAME))


@pytest.mark.slow
def test_a_run_of_before_a_field_existed_goes_on(data: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", data, "epochs=1")
    facts = json.loads((run / "run.json").read_text())
    for name in ("mixup", "cutmix", "mix_alpha"):
        del facts["recipe"]["augment"][name]
    (run / "run.json").write_text(json.dumps(facts))
    trained(run, data, "epochs=1", resume=True)
    del facts["recipe"]["augment"]["scale"]  # another one than its default
    (run / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match=r"holds another run: recipe.augment.scale was \[1.0, 1.0\], now \["):
        trained(run, data, "epochs=1", resume=True)


@pytest.mark.slow
def test_a_damaged_last_checkpoint_is_replaced_by_the_best(data: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", data)
    last, best = run / "last.ckpt", run / "best.ckpt"
    expected, metrics = torch.load(last, weights_only=True)["state_dict"], (run / "metrics.csv").read_text()
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.raises(DataError, match=rf"{last}: the checkpoint is damaged .*; copy {best} over it"):
        trained(run, data, resume=True)
    last.write_bytes(best.read_bytes())
    found = torch.load(trained(run, data, resume=True) / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (run / "metrics.csv").read_text() == metrics


@pytest.mark.slow
def test_early_stopping(data: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", data, "epochs=30", "early_stop=2", "lr=1e-9")
    assert len((run / "metrics.csv").read_text().splitlines()) < 10


def test_the_holdout_is_a_fixed_stratified_tenth(data: Path) -> None:
    _, recipe = resolve(Choice("mscar"))
    rows, validation = load_data(source(data, select_on="holdout"), recipe)
    held = validation["fer2013"]
    assert held.split == "holdout"
    assert held.class_counts == (2,) * 7
    assert rows.class_counts == (18,) * 7
    assert not set(rows.ids) & set(held.ids)
    assert held.ids == holdout_ids(source(data).load("train"))


def test_copies_stay_on_one_side_of_the_holdout(data: Path) -> None:
    """A third of the rows are copies of another row, ten of them under a contradicting label."""
    whole = source(data).load("train")
    shown = np.arange(140)
    shown[100:140] = np.arange(40)
    shown[130:140] = np.arange(1, 11)  # the classes go round: the neighbour's picture has another label
    copied = replace(whole, read=lambda i: whole.read(int(shown[i])))
    held = {int(row) for row in holdout_ids(copied)}
    pictures, others = {shown[row] for row in held}, {shown[row] for row in set(range(140)) - held}
    assert not pictures & others
    assert 7 <= len(held) <= 14
    assert holdout_ids(copied) == holdout_ids(copied)
    assert len(pictures) < len(held)  # some copies are among them, together


def test_joint_training_validates_both_heads(data: Path) -> None:
    _, recipe = resolve(Choice("mien-small"))
    rows, validation = load_data(Source("ferplus", data, allow_partial=True), recipe)
    assert rows.label_rule == "joint"
    assert {name: (s.name, s.label_rule) for name, s in validation.items()} == {
        "fer2013": ("fer2013", "fer2013"), "ferplus": ("ferplus", "majority"),
    }  # fmt: skip


@pytest.mark.parametrize("file", ["pack.json", "align.json"])
def test_both_label_sets_need_the_original_files(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("{}")
    _, recipe = resolve(Choice("mien-small"))
    with pytest.raises(UsageError, match="a packed or aligned copy has one; pass --root the original files"):
        load_data(Source("ferplus", tmp_path), recipe)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["majority", "probability"])
def test_labels_are_drawn_where_the_rule_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    changed: list[bool] = []
    prepare = Training.prepared

    def prepared(self: Training, batch: Batch) -> Batch:
        found = prepare(self, batch)
        changed.append(not torch.equal(found.labels, batch.labels))
        return found

    monkeypatch.setattr(Training, "prepared", prepared)
    votes = Source("ferplus", data, label_rule=rule, allow_partial=True)
    train(
        Choice("mscar", "cpu", settings=(*TINY, "epochs=1")), votes, tmp_path / "run", threads=1, say=lambda line: None
    )
    assert any(changed) == (rule == "probability")


COMMAND = (
    "train", "mien-small", "--data", "ferplus", "--allow-partial", "--threads", "1", "--set", "network.widths=(4,8,8,8)",
    "--set", "epochs=16", "--set", "batch=16", "--set", "sizes=()",
)  # fmt: skip


DYING = """
import signal, sys
from mien.cli import main
from mien.lab.training.checkpoint import SaveEpoch
save = SaveEpoch.on_train_epoch_end
def save_and_die(self, *arguments):
    save(self, *arguments)
    if signal.getitimer(signal.ITIMER_REAL)[0] == 0:
        signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
SaveEpoch.on_train_epoch_end = save_and_die
main(sys.argv[2:])
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    """Killed at seeded random moments, also while a checkpoint is written, then --resume. The kernel's own timer, started
    when the process has finished one more epoch, ends it with SIGALRM, which nobody handles: none runs on to its end
    because this process looks late."""
    random = np.random.default_rng(11)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, data).wait() == 0
    epoch = min(row["epoch_s"] for row in times.read(whole).values())
    for _ in range(3):
        seconds = random.uniform(0.01, 1.5 * epoch)
        assert start(killed, data, "--resume", run=("-c", DYING, str(seconds))).wait() == -signal.SIGALRM
    (killed / ".0123456789abcdef.partial").touch()  # as a kill in the middle of a checkpoint leaves it
    assert start(killed, data, "--resume").wait() == 0
    expected, found = (torch.load(run / "last.ckpt", weights_only=True)["state_dict"] for run in (whole, killed))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}  # nothing half-written
    assert (whole / "metrics.csv").read_text() == (killed / "metrics.csv").read_text()


INTERRUPTED = """
import signal, sys
from mien.cli import main
from mien.lab.training.checkpoint import SaveEpoch
save = SaveEpoch.on_train_epoch_end
def save_and_interrupt(self, *arguments):
    save(self, *arguments)
    signal.raise_signal(signal.SIGINT)
SaveEpoch.on_train_epoch_end = save_and_interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may inherit that it is ignored
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(data: Path, tmp_path: Path) -> None:
    assert start(tmp_path / "run", data, run=("-c", INTERRUPTED)).wait() == 130
    said = (tmp_path / "log").read_text()
    assert f"mien: stopped; the same command with --resume goes on in {tmp_path / 'run'}" in said
    assert "Traceback" not in said and (tmp_path / "run" / "last.ckpt").is_file()


def start(folder: Path, root: Path, *more: str, run: tuple[str, ...] = ("-m", "mien")) -> subprocess.Popen[bytes]:
    command = [sys.executable, *run, *COMMAND, "--root", str(root), "-o", str(folder), *more]
    with (folder.parent / "log").open("ab") as log:
        return subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)


def step_of_noise(seed: int = 0) -> tuple[Training, Batch]:
    """A small network's training module, and a batch for it."""
    torch.manual_seed(seed)
    small = MienSmall(widths=(4, 8), depths=(1, 1), dropout=0.0)
    recipe = replace(
        methods.load("mien-small").recipes["cpu"],
        network=small,
        loss=Softmax(),
        size=8,
        sizes=(),
        augment=Augment(),
        ema=0.9,
    )
    network = small.build(Shape(1, 7, 8, 0))
    loss = Softmax().build(Task((1,) * 7, network.feature_dim))
    module = Training(recipe, network, loss, spec=runs.spec_of(recipe), seed=0, steps=2, validation=("valid",))
    return module, Batch(torch.rand(14, 1, 8, 8), torch.arange(14) % 7, None, torch.arange(14))


def test_a_loss_that_is_not_finite_ends_the_run_before_its_epoch_is_kept() -> None:
    """On a CPU at once, on an accelerator at the epoch's end; the bad step is named."""
    module, faces = step_of_noise()
    bad = replace(faces, images=torch.full_like(faces.images, torch.nan))
    told = r"the loss is not finite at epoch 0, step 1 \(softmax=nan\); lower --set lr"
    module.on_train_epoch_start()
    module.training_step(faces, 0)
    with pytest.raises(UsageError, match=told):
        module.training_step(bad, 1)
    module.training_step(faces, 2)
    with pytest.raises(UsageError, match=told):
        module.on_train_epoch_end()


def test_answers_that_are_not_finite_end_the_run_before_its_epoch_is_kept() -> None:
    """The epoch's last step may be the one that goes too far: its loss is still that of the weights before it."""
    module, faces = step_of_noise()
    with torch.no_grad():
        module.evaluated.head.weight[0, 0] = torch.inf
    module.on_validation_epoch_start()
    module.validation_step(faces, 0)
    with pytest.raises(UsageError, match="answers are not finite after epoch 0, which is not kept; lower --set lr"):
        module.on_validation_epoch_end()


def test_watched_rows_have_no_part_in_the_loss_that_training_is_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    module, faces = step_of_noise()
    told: dict[str, float] = {}
    monkeypatch.setattr(module, "log", lambda name, value: told.update({name: float(value)}))
    module.on_validation_epoch_start()
    module.validation_step(faces, 0)
    module.on_validation_epoch_end()
    alone = dict(told)
    module.validation += (REPORTED,)
    module.on_validation_epoch_start()
    module.validation_step(faces, 0)
    module.validation_step(replace(faces, images=1 - faces.images, labels=faces.labels.flip(0)), 0, 1)
    module.on_validation_epoch_end()
    assert 0 <= told.pop("reported_accuracy") <= 1
    assert told == alone and {"valid_loss", "selection"} < alone.keys()


def test_terms_that_only_some_steps_have_are_counted() -> None:
    module, _ = step_of_noise()
    module._steps = [(0, {"loss": torch.tensor(3.0), "norm": torch.tensor(1.0)}), (1, {"loss": torch.tensor(2.0)})]
    module._steps.append((2, {"loss": torch.tensor(1.0), "late": torch.tensor(0.5)}))
    assert module._totals() == {"train_loss": 6.0, "train_norm": 1.0, "train_late": 0.5}


def test_an_average_goes_on_counting_where_its_state_left_off() -> None:
    module, _ = step_of_noise()
    assert module.average is not None
    average, network = module.average, module.network

    def weight_after(moved: float) -> float:
        """The share of the next update that the network gets."""
        with torch.no_grad():
            for mine, theirs in zip(average.network.parameters(), network.parameters(), strict=True):
                mine.zero_()
                theirs.fill_(moved)
        average.update(network)
        return float(next(average.network.parameters()).flatten()[0]) / moved

    shares = [weight_after(2.0) for _ in range(3)]
    assert shares == pytest.approx([1 - (1 + t) / (10 + t) for t in (1, 2, 3)], rel=1e-5)
    average.load_state_dict({**average.state_dict(), "steps": torch.tensor(40)})
    assert weight_after(2.0) == pytest.approx(1 - (1 + 41) / (10 + 41), rel=1e-5)
    assert int(average.steps) == 41
