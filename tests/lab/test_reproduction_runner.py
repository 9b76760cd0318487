"""`mien reproduce` with real, tiny trainings: cells fill once, empty with their file, and go on without absent data."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_fer

from mien import cli
from mien.errors import DataError, UsageError
from mien.lab import methods, reproduction_runner, results_cli
from mien.lab.evaluation.scores import SCORES, Scores
from mien.lab.networks.resnet import ResNet50
from mien.lab.reproduce import BIASED, FEATURES, Job, Plan, jobs, lay_out
from mien.lab.reproduction_runner import (
    Conduct,
    TrainingRunner,
    choice_of,
    counted,
    introduction,
    page_name,
    remember,
    reproduce,
    settings_for,
    source_of,
)
from mien.lab.training import runs
from mien.lab.training.recipes import Choice, resolve

pytest.importorskip("sklearn", reason="needs the extra eval")

SETTINGS = ("network.width=0.05", "epochs=2", "batch=32", "lr=0.001")
TABLE_10 = Plan("cpu", 1, table="10", rows="^ResNet-50$")  # columns FER-2013, RAF-DB and AffectNet
FER_CELL = "ad-corre/cpu/resnet50-ce--fer2013/seed0"


@pytest.fixture
def conduct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Conduct:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    root = small_fer.write(tmp_path / "data")
    return Conduct(root, SETTINGS, threads=1, allow_partial=True)


def quiet(line: str) -> None:
    """Says nothing."""


def forbidden(*arguments: object, **options: object) -> None:
    raise AssertionError("a finished run was trained again")


@pytest.mark.slow
def test_cells_fill_once_empty_with_their_file_and_absent_data_stop_nothing(
    conduct: Conduct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = reproduce("ad-corre", TABLE_10, out, conduct=conduct, say=quiet)
    statuses = {cell.published.dataset: cell.status for cell in first.cells}
    assert statuses["fer2013"] == "measured"
    assert statuses["rafdb"].startswith("no data: ")
    assert statuses["affectnet"].startswith("no data: ")
    rows = list(csv.DictReader(io.StringIO(first.pages[1].read_text(encoding="utf-8"))))
    assert [bool(row["measured"]) for row in rows] == [True, False, False]
    assert rows[0]["scores"] == f"{FER_CELL}/{SCORES}"
    assert "selection rule epoch with the highest accuracy on a fixed stratified 10 % of train" in rows[0]["protocol"]
    scores = Scores.load(out / FER_CELL / SCORES)
    assert (scores.protocol["split"], scores.protocol["variant"], len(scores.labels)) == ("valid", "resnet50-ce", 42)
    assert scores.features is None
    assert len(np.load(out / FER_CELL / FEATURES)["features"]) == 42
    assert runs.read(out / FER_CELL)["choice"]["variant"] == "resnet50-ce"
    biased = Scores.load(out / FER_CELL / BIASED)
    assert biased.protocol["selection_rule"] == "epoch that was best on these rows: biased"
    assert rows[0]["best_on_test_biased"] == f"{100 * (biased.predictions == biased.labels).mean():.2f}"
    curves = list(csv.DictReader(io.StringIO((out / FER_CELL / "metrics.csv").read_text(encoding="utf-8"))))
    assert max(float(row["reported_accuracy"]) for row in curves) == pytest.approx(
        (biased.predictions == biased.labels).mean(), abs=1e-5
    )

    train = reproduction_runner.train
    monkeypatch.setattr(reproduction_runner, "train", forbidden)
    again = reproduce("ad-corre", TABLE_10, out, conduct=conduct, say=quiet)
    assert again.cells == first.cells

    (out / FER_CELL / SCORES).unlink()
    emptied = lay_out(methods.load("ad-corre"), out, TABLE_10)
    assert [cell.status for cell in emptied] == ["not run"] * 3

    monkeypatch.setattr(reproduction_runner, "train", train)
    before = (out / FER_CELL / "metrics.csv").read_bytes()
    refilled = reproduce("ad-corre", TABLE_10, out, conduct=conduct, say=quiet)
    assert (out / FER_CELL / "metrics.csv").read_bytes() == before  # evaluated again from its checkpoint
    assert refilled.cells[0].measured.values == first.cells[0].measured.values

    with pytest.raises(UsageError, match=r"holds runs of another reproduction: settings was .*choose another -o"):
        reproduce("ad-corre", TABLE_10, out, conduct=replace(conduct, settings=(*SETTINGS, "lr=0.01")), say=quiet)


@pytest.mark.slow
def test_the_command_line_measures_on_other_data_and_draws_the_figure(
    conduct: Conduct, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        cli.main(
            [
                *("reproduce", "ad-corre", "--figure", "4", "--data", "ferplus", "--preset", "cpu", "--seeds", "1"),
                *("--root", str(conduct.root), "--allow-partial", "--threads", "1", "-o", str(out), *settings),
            ]
        )
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "ad-corre-cpu-ferplus-figure4-seeds1.html" in printed
    page = (out / "ad-corre-cpu-ferplus-figure4-seeds1.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3  # the same run stands for the paper's three datasets
    assert "rows can be compared with each other" in page
    assert "affectnet: fear -&gt; surprise" in page and "which is the truth is ours" in page  # its printed numbers
    assert (out / "ad-corre/cpu/ad-corre--ferplus/seed0" / SCORES).is_file()


def job(variant: str, dataset: str, *, method: str = "ad-corre", condition: str = "", **changes: object) -> Job:
    return replace(Job(method, variant, dataset, "cpu", 0, None, condition), **changes)


def test_a_variant_keeps_the_presets_width_and_takes_its_own_network_and_loss() -> None:
    _, recipe = resolve(Choice("ad-corre", "cpu", variant="resnet50-ce"))
    variant = methods.load("ad-corre").variants["resnet50-ce"]
    assert isinstance(recipe.network, ResNet50)
    assert recipe.network == replace(variant.network, width=methods.load("ad-corre").recipes["cpu"].network.width)

    assert recipe.loss == variant.loss
    assert recipe.epochs == methods.load("ad-corre").recipes["cpu"].epochs
    assert (
        resolve(Choice("ad-corre", "paper", variant="k3"))[1].network == methods.load("ad-corre").variants["k3"].network
    )
    with pytest.raises(UsageError, match="unknown variant of ad-corre 'k4': expected one of ad-corre, ce,"):
        resolve(Choice("ad-corre", variant="k4"))


def test_the_cpu_presets_weight_of_the_loss_holds_for_its_variants() -> None:
    """At the printed ones a random start collapses (D16 of lban-il, D12 of wcl)."""
    for method, variant, weight in (("lban-il", "lban-il", 0.03), ("lban-il", "centre", 0.03), ("wcl", "wcl", 0.1)):
        assert resolve(Choice(method, "cpu", variant=variant))[1].loss.weight == weight
        assert resolve(Choice(method, "paper", variant=variant))[1].loss == methods.load(method).variants[variant].loss


def test_runs_of_before_there_were_variants_are_read_and_go_on() -> None:
    old = {"method": "mscar", "preset": "cpu", "network": None, "loss": None, "settings": ["epochs=2"]}
    choice = runs.choice_of({"choice": old})
    assert choice == Choice("mscar", "cpu", settings=("epochs=2",))
    assert runs.facts_of_choice(choice) == old
    new = Choice("mscar", variant="se")
    assert runs.choice_of({"choice": runs.facts_of_choice(new)}) == new


def test_settings_for_all_and_for_one_variant() -> None:
    given = ("epochs=2", "ce:loss.fd=1.0", "schedule=a:b")
    assert settings_for("ce", given) == ("epochs=2", "loss.fd=1.0", "schedule=a:b")
    assert settings_for("k3", given) == ("epochs=2", "schedule=a:b")


def test_a_label_rule_is_set_where_it_is_read() -> None:
    conduct = Conduct(settings=("epochs=1", "label_rule=argmax8"))
    for dataset, expected in (("ferplus", ("epochs=1", "label_rule=argmax8")), ("ckplus", ("epochs=1",))):
        assert choice_of(job("mscar", dataset, method="mscar"), conduct).settings == expected


def test_the_presets_own_recipe_for_a_dataset_or_start_is_taken() -> None:
    paper = {"preset": "paper"}
    lban = choice_of(job("lban-il", "fer2013", method="lban-il", **paper), Conduct())
    assert (lban.preset, lban.variant) == ("paper/fer2013", "lban-il")
    scratch = choice_of(job("wcl", "affectnet", method="wcl", condition="start scratch", **paper), Conduct())
    assert scratch.preset == "paper/scratch"
    assert choice_of(job("wcl", "affectnet", method="wcl", condition="start scratch"), Conduct()).preset == "cpu"


def test_rows_that_are_reported_never_choose_the_epoch() -> None:
    with pytest.raises(UsageError, match="fer2013 valid is reported, so it cannot choose the epoch"):
        source_of(job("ce", "fer2013"), Conduct(select_on="valid"))
    with pytest.raises(UsageError, match="fer2013 test is reported"):  # Ad-Corre's test is PublicTest and PrivateTest
        source_of(job("ce", "fer2013"), Conduct(select_on="valid", report_on="test"))
    assert source_of(job("ce", "fer2013"), Conduct(select_on="holdout", report_on="test")).protocol == "ad-corre"
    assert source_of(job("ce", "affectnet"), Conduct()).label_rule == "7-class"
    assert source_of(job("wcl", "affectnet", method="wcl"), Conduct(select_on="valid")).protocol == "wcl"


def test_absent_weights_and_teachers_are_data_that_is_absent(tmp_path: Path, conduct: Conduct) -> None:
    run: Callable[[Job, Path], object] = TrainingRunner(replace(conduct, settings=()), quiet)
    with pytest.raises(DataError, match=r"starts from VGGFace2 weights.*--pretrained VGGFace2=FILE"):
        run(job("wcl", "fer2013", method="wcl", condition="start VGGFace2"), tmp_path / "run")
    with pytest.raises(DataError, match=r"learns from a teacher.*--set resface18-abc:loss.source=votes"):
        run(job("resface18-abc", "ferplus", method="resface"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_counted_cells_are_of_the_papers_network() -> None:
    method = methods.load("mscar")
    found = counted(method, "mscar")
    assert found["parameters"] > 0
    assert found["macs"] > found["parameters"]
    with pytest.raises(UsageError, match="no variant 'x'"):
        counted(method, "x")


def test_the_lbans_row_counts_what_learns_and_the_lbcs_all(tmp_path: Path) -> None:
    """Table 2 mixes the two (D15): 19.8 M printed for 19.63 M that learn, 16.7 M for LBC's with its fixed filters."""
    method = methods.load("lban-il")
    cells = lay_out(
        method, tmp_path, Plan("cpu", 1, table="2", rows="^(LBAN|LBC)$"), counts=lambda v: counted(method, v)
    )
    found = {cell.published.row: cell.measured.mean for cell in cells if cell.status == "counted"}
    assert found["LBAN"] == pytest.approx(19.630279)
    assert found["LBC"] == pytest.approx(counted(method, "lbc")["parameters"] / 1e6)

    how = {cell.published.row: cell.measured.how for cell in cells if cell.status == "counted"}
    assert how["LBAN"] == "counted from the network: 19,630,279 that learn, 30,763,207 in all"


def test_the_papers_own_validation_rows_choose_the_epoch_where_it_draws_some() -> None:
    wcl = job("wcl", "affectnet", method="wcl")
    assert source_of(wcl, Conduct()).select_on == "valid"
    assert source_of(wcl, Conduct(report_on="valid")).select_on == "holdout"  # they are reported then
    assert source_of(wcl, Conduct(select_on="holdout")).select_on == "holdout"
    assert source_of(job("wcl", "fer2013", method="wcl"), Conduct()).select_on == "holdout"
    said = introduction(methods.load("wcl"), Plan("cpu", 1), Conduct(), [wcl, job("wcl", "rafdb", method="wcl")])
    assert "Epochs are chosen on a fixed tenth of train or valid." in said


def test_a_page_of_some_rows_leaves_the_whole_tables_page_alone() -> None:
    whole = Plan("cpu", table="8", data="fer2013")
    some = replace(whole, rows=r"^CE \+ (MD|ED)$")
    assert page_name("ad-corre", whole) == "ad-corre-cpu-fer2013-table8"
    assert page_name("ad-corre", replace(whole, rows="CE")) == "ad-corre-cpu-fer2013-table8-CE"
    assert page_name("ad-corre", some).startswith("ad-corre-cpu-fer2013-table8-CE-MD-ED-")
    others = [replace(whole, rows=r"^CE \+ (MD|ED)"), replace(whole, rows="CE-MD-ED"), replace(whole, seeds=1)]
    assert len({page_name("ad-corre", plan) for plan in (whole, some, *others)}) == 5
    assert len(page_name("ad-corre", replace(whole, rows="x" * 300))) < 120
    assert "Only rows like" not in " ".join(introduction(methods.load("ad-corre"), whole, Conduct(), []))
    assert repr(some.rows) in " ".join(introduction(methods.load("ad-corre"), some, Conduct(), []))


def test_what_was_asked_is_kept_beside_the_runs(tmp_path: Path) -> None:
    wanted = [job("ce", "fer2013")]
    remember(tmp_path, Conduct(settings=("epochs=2",)), wanted)
    assert json.loads((tmp_path / "asked.json").read_text())["settings"] == ["epochs=2"]
    remember(tmp_path, Conduct(root=tmp_path, settings=("epochs=2",), threads=1), wanted)
    with pytest.raises(UsageError, match="fer2013: reported split was valid, now test"):
        remember(tmp_path, Conduct(settings=("epochs=2",), report_on="test"), wanted)
    with pytest.raises(UsageError, match="settings was"):
        remember(tmp_path, Conduct(), wanted)


@pytest.mark.parametrize("damage", ['{"settings": [', "[1]", "3"])
def test_a_damaged_record_of_what_was_asked_is_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / "asked.json").write_text(damage)
    with pytest.raises(DataError, match=r"asked\.json: cannot be read \(.*copy it again"):
        remember(tmp_path, Conduct(), [])
    assert (tmp_path / "asked.json").read_text() == damage


def test_what_chooses_the_epoch_is_kept_as_it_was_not_as_it_was_asked(tmp_path: Path) -> None:
    """WCL's own division of AffectNet has rows for it, which are the default there alone."""
    wanted = [job("wcl", dataset, method="wcl") for dataset in ("affectnet", "rafdb")]
    remember(tmp_path, Conduct(), wanted)
    kept = json.loads((tmp_path / "asked.json").read_text())
    chosen = [kept[f"{dataset}: epochs chosen on"] for dataset in ("affectnet", "rafdb")]
    assert chosen == ["valid", "holdout"]
    with pytest.raises(UsageError, match="affectnet: epochs chosen on was valid, now holdout"):
        remember(tmp_path, Conduct(select_on="holdout"), wanted)
    remember(tmp_path, Conduct(select_on="holdout"), wanted[1:])


def test_runs_of_another_teacher_are_another_reproduction(tmp_path: Path) -> None:
    """One that was absent at first may come later."""
    teachers = [tmp_path / "one.onnx", tmp_path / "other.onnx"]
    for number, teacher in enumerate(teachers):
        teacher.write_bytes(bytes([number]))
    out = tmp_path / "out"
    remember(out, Conduct(), [])
    remember(out, Conduct(teacher=teachers[0], weights={"VGGFace2": tmp_path / "absent.pth"}), [])
    remember(out, Conduct(), [])
    remember(out, Conduct(teacher=teachers[0], weights={"VGGFace2": teachers[1]}), [])
    with pytest.raises(UsageError, match=r"teacher was [0-9a-f]{64}, now [0-9a-f]{64}"):
        remember(out, Conduct(teacher=teachers[1]), [])
    with pytest.raises(UsageError, match="pretrained VGGFace2 was"):
        remember(out, Conduct(weights={"VGGFace2": teachers[0]}), [])


def test_words_that_cannot_be_meant_leave_no_folder_behind(conduct: Conduct, tmp_path: Path) -> None:
    for options, told in (
        ({"select_on": "holdut"}, "--select-on holdut: expected one of holdout, valid"),
        ({"report_on": "trian"}, "--report-on trian: expected one of valid, test"),
    ):
        with pytest.raises(UsageError, match=told):
            replace(conduct, **options)
    misspelt = replace(conduct, settings=("msacr:lr=5",))
    with pytest.raises(UsageError, match=r"--set msacr:lr=5: ad-corre has no variant 'msacr'; expected one of"):
        reproduce("ad-corre", TABLE_10, tmp_path / "out", conduct=misspelt, say=quiet)
    for name, plan, told in (
        (
            "mscar",
            Plan("cpu", 1, table="3", data="fer"),
            "--data fer: unknown dataset; expected one of fer2013, ferplus",
        ),
        ("mscar", Plan("cpu", 1, table="3", figure="99"), "mscar has no figure '99': there are 1, 2"),
        ("ad-corre", Plan("cpu", 1, table="99", figure="6"), "no printed numbers in Table 99: there are Table 2"),
        ("mien-small", Plan("paper", 1), "mien-small is no paper's method: .* train it by `mien train mien-small`"),
    ):
        with pytest.raises(UsageError, match=told):
            reproduce(name, plan, tmp_path / "out", conduct=conduct, say=quiet)
    assert not (tmp_path / "out").exists()


def test_a_folder_takes_partial_data_later(conduct: Conduct, tmp_path: Path) -> None:
    """What the page itself advises where counts are not the official ones."""
    remember(tmp_path / "out", replace(conduct, allow_partial=False), [])
    remember(tmp_path / "out", conduct, [])


@pytest.mark.slow
def test_runs_on_other_rows_are_another_reproduction(
    conduct: Conduct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a first seed was tried on a part of the data. The page says that a part was admitted."""
    out = tmp_path / "out"
    first = reproduce("ad-corre", TABLE_10, out, conduct=conduct, say=quiet)
    assert "Datasets need not have all their rows (--allow-partial)." in first.pages[0].read_text(encoding="utf-8")
    monkeypatch.setattr(reproduction_runner, "train", forbidden)
    other = replace(conduct, root=small_fer.write(tmp_path / "other", train=280))
    told: list[str] = []
    again = reproduce("ad-corre", replace(TABLE_10, seeds=2), out, conduct=other, say=told.append)
    assert [cell.measured for cell in again.cells] == [cell.measured for cell in first.cells]
    (refused,) = [line for line in told if "resnet50-ce--fer2013/seed1" in line]
    assert "holds runs of another reproduction: rows of fer2013 train, fer2013 was" in refused


@pytest.mark.parametrize(
    ("method", "plan", "setting", "told"),
    [
        ("mscar", Plan("cpu", 1, table="2", rows="^0.01$"), "lr=0.5", "it is what the row 'lr 0.01' is about"),
        (
            "ad-corre",
            Plan("cpu", 1, figure="6", rows="eq"),
            "loss.weight=0.1",
            "is what the row 'lambda .*eq. 12' is about",
        ),
        (
            "ad-corre",
            Plan("cpu", 1, table="9"),
            "loss.k=7",
            "the rows differ in it (.*), and would no more; set it for one",
        ),
        (
            "mscar",
            Plan("cpu", 1, table="3"),
            "network.bn=True",
            r"differ in it \(False of no-se-no-bn, True of bn\).*--set no-se-no-bn:network.bn=True",
        ),
        ("lban-il", Plan("cpu", 1, table="6", rows="LBAN"), "loss.weight=0.03", "the rows differ in it"),
    ],
)
def test_a_setting_that_cancels_what_rows_are_about_is_refused(
    method: str, plan: Plan, setting: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"--set {setting}: .*{told}"):
        reproduce(method, plan, tmp_path / "out", conduct=Conduct(settings=(setting,)), say=quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("preset", ["paper", "cpu"])
@pytest.mark.parametrize("name", methods.NAMES)
def test_every_run_of_every_paper_has_a_recipe(name: str, preset: str) -> None:
    wanted = jobs(methods.load(name), Plan(preset, 1))
    assert wanted
    for one in wanted:
        resolve(choice_of(one, Conduct()))


def test_figure_6_is_measured_by_both_readings() -> None:
    found = {
        one.condition: resolve(choice_of(one, Conduct()))[1].loss
        for one in jobs(methods.load("ad-corre"), Plan("paper", 1, figure="6"))
    }
    assert len(found) == 8
    assert (found["lambda 0.1"].cross_entropy, found["lambda 0.1"].weight) == (0.1, 1.0)
    assert (found["lambda 0.1 by eq. 12"].cross_entropy, found["lambda 0.1 by eq. 12"].weight) == (1.0, 0.1)


@pytest.mark.parametrize(
    ("method", "preset", "own"),
    [
        ("ad-corre", "paper/eq12-0.01", "loss"),
        ("ad-corre", "paper/resnet50", "network"),
        ("resface", "paper/ce", "loss"),
    ],
)
def test_a_preset_that_a_variant_would_replace_is_refused(method: str, preset: str, own: str) -> None:
    variant = next(iter(methods.load(method).variants))
    with pytest.raises(UsageError, match=f"preset {preset} has its own {own}, which variant {variant} would replace"):
        resolve(Choice(method, preset, variant=variant))


def test_start_weights_and_teachers_that_no_row_reads_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "start.pth"
    for given, plan, words in (
        (
            {"weights": {"ImageNet": file}},
            ("ad-corre", "8"),
            "starts from ImageNet; pass --pretrained .*start.pth for rows that",
        ),
        (
            {"weights": {"": file}},
            ("wcl", "5"),
            "every row of it names its start; pass --pretrained NAME=.*start.pth with one of VGGFace2",
        ),
        ({"teacher": tmp_path}, ("ad-corre", "8"), "no row of this reproduction learns from a teacher"),
    ):
        name, table = plan
        with pytest.raises(UsageError, match=words):
            reproduce(name, Plan("cpu", 1, table=table), tmp_path / "out", conduct=Conduct(**given), say=quiet)
    assert not (tmp_path / "out").exists()


def test_weights_without_a_name_are_for_rows_that_name_none(tmp_path: Path) -> None:
    runner = TrainingRunner(Conduct(weights={"": tmp_path, "VGGFace2": tmp_path / "faces"}), quiet)
    assert runner._weights(job("ce", "fer2013")) == tmp_path
    assert runner._weights(job("wcl", "affectnet", method="wcl", condition="start VGGFace2")) == tmp_path / "faces"
    assert runner._weights(job("wcl", "affectnet", method="wcl", condition="start scratch")) is None
    assert results_cli._weights(["VGGFace2=a.pth", "b.pth"]) == {"VGGFace2": Path("a.pth"), "": Path("b.pth")}
    for wrong in ("VGGFace2=", "=a.pth"):
        with pytest.raises(UsageError, match=r"expected NAME=FILE"):
            results_cli._weights([wrong])
