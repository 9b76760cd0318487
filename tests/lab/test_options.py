"""What is refused in words before anything is written: options that mean nothing, and files that are damaged."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import scores_fixtures
import torch

from mien import cli
from mien.errors import DataError, UsageError
from mien.lab import methods
from mien.lab.evaluation.scores import Scores
from mien.lab.methods.method import Augment, Recipe
from mien.lab.networks import Mscar
from mien.lab.training import runs, schedule, trainer
from mien.lab.training.checkpoint import KeepRun
from mien.lab.training.module import build_optimiser
from mien.lab.training.recipes import Choice, completed, describe, resolve
from mien.lab.training.trainer import Source, train

REFUSED: tuple[tuple[str, str, str], ...] = (  # method, setting, what is said
    ("mscar", "batch=0", "batch=0: expected 1 or more"),
    ("lban-il", "loss.centre_deviation=0", "Islets: centre_deviation=0.0: expected a number above 0 beside pull=0.2"),
    ("mscar", "epochs=0", "epochs=0: expected 1 or more"),
    ("mscar", "lr=-1", "lr=-1.0: expected a number above 0"),
    ("mscar", "lr=1e999", "lr=inf: expected a number above 0"),
    ("mscar", "momentum=1", "momentum=1.0: expected a number from 0, under 1"),
    ("mien-small", "momentum=0", "momentum=0.0: expected a number above 0, as nesterov is set"),
    ("mscar", "weight_decay=-1", "weight_decay=-1.0: expected 0 or more"),
    ("mscar", "decay=-1", "decay=-1.0: expected 0 or more"),
    ("mscar", "clip=-1", "clip=-1.0: expected 0 or more"),
    ("mscar", "ema=1", "ema=1.0: expected 0 for none, or a decay under 1"),
    ("mscar", "early_stop=-1", "early_stop=-1: expected 0 for never"),
    ("mscar", "frozen=0", "frozen=(0,): expected names of stages"),
    ("mscar", "augment.mix_alpha=1e999", "augment.mix_alpha=inf: expected a number above 0"),
    ("mscar", "warmup=1", "warmup=1.0: expected a fraction of the run from 0, under 1"),
    ("mscar", "warmup=-0.1", "warmup=-0.1: expected a fraction"),
    ("mscar", "optimiser=rmsprop", "optimiser='rmsprop': expected one of sgd, adam, adamw"),
    ("mscar", "schedule=linear", "schedule='linear': expected one of constant, cosine, steps"),
    ("mscar", "precision=float16", "precision='float16': expected one of float32, bfloat16"),
    ("mscar", "views=foo", "views='foo': expected one of single, flip, tencrop"),
    ("mscar", "resize=40", "resize=40: expected None, or the size of 48 px at least"),
    ("mscar", "mean=(0.1,0.2)", "mean=(0.1, 0.2): expected 1 number, or one for each of 1 channels"),
    ("mscar", "std=0", "std=(0,): expected 1 number, or one for each of 1 channels, above 0"),
    ("mscar", "sizes=((0.5,64))", "sizes=(0.5, 64): expected (fraction of the run, side px) pairs"),
    ("mscar", "sizes=((0.5,64),(0.0,48))", "sizes=((0.5, 64), (0.0, 48)): expected (fraction"),
    ("mscar", "sizes=((0.0,4),)", "Mscar: input size 4 px is under its minimum of 8 px"),
    ("mscar", "milestones=(1,2)", "milestones=(1, 2): expected (epoch, factor) pairs"),
    ("mscar", "milestones=((0.5,0.1),)", "milestones=((0.5, 0.1),): expected (epoch, factor) pairs"),
    ("mscar", "augment.fill=nearest", "fill='nearest': expected one of border, zeros, reflection"),
    ("mscar", "augment.flip=1.5", "augment.flip=1.5: expected a probability from 0 to 1"),
    ("mscar", "augment.shear=90", "augment.shear=90.0: expected degrees from 0, under 90"),
    ("mscar", "augment.rotate=-1", "augment.rotate=-1.0: expected degrees from 0 to 180"),
    ("mscar", "augment.shift=2", "augment.shift=2.0: expected a fraction from 0 to 1"),
    ("mscar", "augment.area=0.5", "augment.area=(0.5,): expected (low, high) above 0, to 1"),
    ("mscar", "augment.scale=1.2", "augment.scale=(1.2,): expected (low, high) above 0"),
    ("mscar", "augment.aspect=(2,1)", "augment.aspect=(2, 1): expected (low, high) above 0"),
    ("mscar", "augment.cutout_size=0.3", "augment.cutout_size=(0.3,): expected (low, high) above 0, to 1"),
    ("mien-small", "loss.smoothing=2", "smoothing=2.0: expected a share from 0, under 1"),
    ("mien-small", "loss.labels_weight=-1", "labels_weight=-1.0: expected 0 or more"),
    ("mien-small", "network.dropout=2", "dropout=2.0: expected a share from 0, under 1"),
    ("mien-small", "network.depths=(1,2)", "network.depths=(1, 2): expected as many of each"),
    ("mien-small", "network.depths=(1,2,2,0)", "network.depths=(1, 2, 2, 0): expected a whole number above 0"),
    ("ldg", "loss.smoothing=-1", "smoothing=-1.0: expected a share from 0, under 1"),
    ("mscar", "network.width=0", "Mscar: width=0.0: expected a number above 0"),
    ("mscar", "loss.weight=-1", "Cosine: weight=-1.0: expected 0 or more"),
    ("lban-il", "loss.weight=1e999", "Islets: weight=inf: expected 0 or more"),
    ("lban-il", "loss.pull=-0.1", "Islets: pull=-0.1: expected 0 or more"),
    ("wcl", "loss.gamma=-1", "WeightedCluster: gamma=-1.0: expected 0 or more"),
    ("wcl", "network.head=-1", "SeResNet50: head=-1: expected 0 or more"),
    ("ad-corre", "loss.k=0", "AdCorre: k=0: expected 1 or more"),
    ("ad-corre", "loss.history=-1", "AdCorre: history=-1: expected 0 or more"),
    ("ad-corre", "loss.neg_target=-2", "AdCorre: neg_target=-2.0: expected a correlation from -1 to 1"),
    ("ad-corre", "network.dropout=1", "Xception: dropout=1.0: expected a share from 0, under 1"),
    ("mscar", "label_rule=nonsense", "--set label_rule=nonsense: only ferplus reads a recipe's label rule"),
)  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(command))
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(("method", "setting", "words"), REFUSED, ids=[setting for _, setting, _ in REFUSED])
def test_a_setting_that_means_nothing_is_refused_before_the_folder_is_there(
    method: str, setting: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    said = refused(
        capsys, "train", method, "--data", "synthetic", "-o", str(out), "--preset", "cpu", "--threads", "1",
        *("--set", setting),
    )  # fmt: skip
    assert words in said
    assert not out.exists()


def test_every_preset_of_every_method_can_be_meant() -> None:
    for name in methods.NAMES + methods.OURS + methods.TEACHERS:
        method = methods.load(name)
        for preset in method.recipes:
            resolve(Choice(name, preset))
        for preset, variant in itertools.product(("paper", "cpu"), method.variants):
            resolve(Choice(name, preset, variant=variant))


def test_stages_are_not_frozen_as_they_begin_at_random(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    said = refused(capsys, "train", "wcl", "--data", "synthetic", "-o", str(out), "--threads", "1")
    assert "does not train stem, layer1, layer2, which without start weights are random: pass --pretrained FILE" in said
    assert "by --set 'frozen=()' or as --preset paper/scratch or paper/resnet50-scratch or cpu does" in said
    assert not out.exists()


def test_every_word_that_a_recipe_takes_is_known_where_it_is_read() -> None:
    kinds = get_type_hints(Recipe)
    assert set(get_args(kinds["precision"])) == set(trainer._PRECISIONS)
    recipe, network = methods.load("mscar").recipes["cpu"], torch.nn.Linear(2, 2)
    made = [build_optimiser(replace(recipe, optimiser=word), network) for word in get_args(kinds["optimiser"])]
    assert [type(optimiser).__name__ for optimiser in made] == ["SGD", "Adam", "AdamW"]
    milestones = ((3, 0.1),)
    found = {
        word: schedule.factor(replace(recipe, schedule=word, epochs=12, milestones=milestones), 6)
        for word in get_args(kinds["schedule"])
    }
    assert found == pytest.approx({"constant": 1, "cosine": 0.5, "steps": 0.1})


def test_norms_decay_only_where_the_recipe_says_so() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    for norms, decayed in ((True, 4), (False, 1)):
        recipe = replace(methods.load("mien-small").recipes["cpu"], weight_decay=0.1, decay_norms=norms)
        groups = build_optimiser(recipe, network).param_groups
        assert sum(len(group["params"]) for group in groups if group["weight_decay"] == 0.1) == decayed
        assert sum(len(group["params"]) for group in groups) == 4


def test_what_a_run_knows_of_its_best_epoch_survives_a_kill(tmp_path: Path) -> None:
    before = KeepRun(tmp_path, patience=3, say=print)
    before.rows, before.best, before.best_epoch = [{"epoch": 0.0, "selection": 0.7}], 0.7, 0
    before.best_reported, before.reported_epoch = 0.6, 0
    after = KeepRun(tmp_path, patience=3, say=print)
    after.load_state_dict(before.state_dict())
    assert {**vars(after), "say": None} == {**vars(before), "say": None}


def test_settings_are_made_together() -> None:
    """Each of these alone contradicts the rest of the preset."""
    smaller = ("resize=48", "size=40")
    for settings in (smaller, smaller[::-1]):
        recipe = resolve(Choice("lban-il", settings=settings))[1]
        assert (recipe.size, recipe.resize) == (40, 48)
    grey = resolve(Choice("wcl", settings=("channels=1", "mean=0.5", "std=0.25")))[1]
    assert (grey.channels, grey.mean, grey.std) == (1, (0.5,), (0.25,))
    with pytest.raises(UsageError, match=r"mean=.*expected 1 number, or one for each of 1 channels"):
        resolve(Choice("wcl", settings=("channels=1",)))
    assert resolve(Choice("mscar", settings=("lr=1", "lr=0.5")))[1].lr == 0.5


@pytest.mark.parametrize(("method", "setting", "told"), [
    ("ad-corre", "nesterov=True", "only optimiser=sgd reads it, this recipe has optimiser=adam"),
    ("ad-corre", "momentum=0.5", "only optimiser=sgd reads it"),
    ("mien-small", "milestones=((3,0.1),)", "only schedule=steps reads it, this recipe has schedule=cosine"),
    ("lban-il", "warmup=0.1", "only schedule=cosine reads it, this recipe has schedule="),
])  # fmt: skip
def test_a_setting_that_nothing_reads_is_refused(method: str, setting: str, told: str) -> None:
    with pytest.raises(UsageError, match=f"--set {setting.partition('=')[0]}: {told}"):
        resolve(Choice(method, settings=(setting,)))
    assert resolve(Choice("ad-corre", settings=("momentum=0.5", "optimiser=sgd")))[1].momentum == 0.5


def test_the_fields_annotation_decides_what_a_setting_may_be() -> None:
    settings = ("augment.rotate=12.5", "augment.area=None", "resize=None", "label_rule=None", "batch=4")
    recipe = resolve(Choice("mscar", settings=settings))[1]  # rotate=10 stands in the preset as a whole number
    assert (recipe.augment.rotate, recipe.augment.area, recipe.resize, recipe.label_rule) == (12.5, None, None, None)
    recipe = resolve(Choice("ad-corre", settings=("augment.area=None", "resize=230")))[1]
    assert (recipe.augment.area, recipe.resize) == (None, 230)
    assert resolve(Choice("ad-corre", settings=("augment.area=(0.5,1)",)))[1].augment.area == (0.5, 1)
    assert resolve(Choice("resface", settings=("network.depth=50",)))[1].network.depth == 50
    assert type(resolve(Choice("mscar", settings=("augment.rotate=30",)))[1].augment.rotate) is float
    for setting, words in {
        "batch=4.0": "--set batch=4.0: expected int like 128, not float",
        "batch=True": "expected int like 128, not bool",
        "batch=None": "expected int like 128, not NoneType",
        "nesterov=1": "expected bool like False, not int",
        "lr=fast": "expected float like 0.001, not str",
        "resize=big": r"expected int \| None, not str",
        "augment.area=wide": r"expected tuple\[float, float\] \| None, not str",
        "network=mscar": "--set network: expected one of its fields: network.width,",
    }.items():
        with pytest.raises(UsageError, match=words):
            resolve(Choice("mscar", settings=(setting,)))


def test_a_presets_own_label_rule_is_left_alone(tmp_path: Path) -> None:
    """mien-small's is "joint"; what fails here is what comes after it."""
    with pytest.raises(UsageError, match="select on 'nothing'"):
        train(Choice("mien-small", loss="softmax"), Source("synthetic", None, select_on="nothing"), tmp_path / "run")
    with pytest.raises(UsageError, match="the data are affectnet; leave it out, or pass --label-rule RULE"):
        train(Choice("mscar", settings=("label_rule=7-class",)), Source("affectnet", None), tmp_path / "run")


def test_what_a_run_was_before_a_field_existed_is_what_its_default_says() -> None:
    now = resolve(Choice("mscar", "cpu"))[1]
    before = describe(now)
    for name in ("mixup", "cutmix", "mix_alpha"):
        del before["augment"][name]
    del before["early_stop"], before["network"]["standardise"]
    assert before != describe(now)
    assert completed(before, now) == describe(now)
    for other in (
        replace(now, augment=replace(now.augment, mixup=0.3)),
        replace(now, early_stop=3),
        replace(now, lr=0.5),
        replace(now, network=Mscar(width=0.25, standardise="none")),
    ):
        assert completed(before, other) != describe(other)
    assert completed(None, now) is None  # a run.json that was cut short


def test_augment_is_checked_when_it_is_made() -> None:
    with pytest.raises(UsageError, match=r"augment.scale=\(1.5, 0.5\)"):
        Augment(scale=(1.5, 0.5))


def test_rows_that_are_no_pattern_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    said = refused(capsys, "reproduce", "lban-il", "--rows", "(", "-o", str(out))
    assert "--rows '(': not a regular expression" in said
    assert not out.exists()


# damaged files


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def array_instead(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def without_classes(path: Path) -> None:
    with np.load(path) as held:
        kept = {name: held[name] for name in held.files if name != "classes"}
    np.savez(path, **kept)


def one_label_less(path: Path) -> None:
    with np.load(path) as held:
        kept = {name: held[name] for name in held.files}
    np.savez(path, **{**kept, "labels": kept["labels"][1:]})


@pytest.mark.parametrize("damage", [shortened, emptied, array_instead, without_classes, one_label_less])
def test_a_damaged_scores_file_is_named(damage: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    scores_fixtures.made_up(40).save(path)
    Scores.load(path)
    damage(path)
    with pytest.raises(DataError, match=r"scores.npz: not a scores file .*write one with `mien evaluate`"):
        Scores.load(path)


def run_json(folder: Path, text: bytes) -> Path:
    folder.mkdir()
    (folder / "run.json").write_bytes(text)
    return folder


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[1]", "run.json: expected an object of facts, not list"),
        (b"{}", "run.json: no field 'choice'"),
        (b'{"choice": {"method": "mscar"}}', "run.json: no field 'settings'"),
        (b'{"choice": {"settings": []}}', "run.json: 'choice' is .* not what `mien train` writes"),
        (b'{"choice": [1]}', "run.json: 'choice' is .* not what `mien train` writes"),
        (b'{"choice": {"method": "mscar", "settings": []}}', "run.json: no field 'classes'"),
        (b"{", "run: not a run folder"),
        (b"\xff", "run: not a run folder"),
    ],
)
def test_a_damaged_run_json_is_named(text: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        runs.load_network(run_json(tmp_path / "run", text))


@pytest.mark.parametrize("damage", [shortened, emptied, array_instead])
def test_a_damaged_checkpoint_is_named(damage: Callable[[Path], None], tmp_path: Path) -> None:
    choice = Choice("mscar", "cpu", settings=("network.width=0.0625",))
    facts = {"choice": runs.facts_of_choice(choice), "classes": ["happy", "sad"]}
    folder = run_json(tmp_path / "run", json.dumps(facts).encode())
    _, recipe = resolve(choice)
    network = recipe.network.build(runs.shape_of(facts, recipe))
    path = folder / "best.ckpt"
    torch.save({"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}, path)
    loaded = runs.load_network(folder)[0].state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())
    unknown = {f"network.{name}": value * float("nan") for name, value in network.state_dict().items()}
    torch.save({"state_dict": unknown}, path)
    with pytest.raises(DataError, match=r"best.ckpt: weights that are not finite, first .*; train the run again"):
        runs.load_network(folder)
    damage(path)
    with pytest.raises(DataError, match=r"best.ckpt: the checkpoint is damaged .*; copy it again"):
        runs.load_network(folder)
    torch.save([1], path)
    with pytest.raises(DataError, match=r"best.ckpt: not a checkpoint of mien"):
        runs.load_network(folder)


@pytest.mark.parametrize("damage", [shortened, emptied])
def test_damaged_faces_of_a_run_are_named(damage: Callable[[Path], None], tmp_path: Path) -> None:
    np.save(tmp_path / runs.CROPS, np.zeros((2, 1, 48, 48), np.uint8))
    assert runs.kept_crops(tmp_path).shape == (2, 1, 48, 48)
    damage(tmp_path / runs.CROPS)
    with pytest.raises(DataError, match=r"crops.npy: the faces for export's check are damaged .*pass --root DIR"):
        runs.kept_crops(tmp_path)
