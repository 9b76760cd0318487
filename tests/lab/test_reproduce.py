"""The reproduction engine, with a runner that makes Scores up instead of training."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from scores_fixtures import made_up

from mien.errors import DataError, ModelError, UsageError
from mien.lab.evaluation.metrics import summary
from mien.lab.evaluation.paper_table import html_body, to_csv, to_markdown, verdicts
from mien.lab.evaluation.report import page
from mien.lab.evaluation.scores import SCORES, Scores
from mien.lab.reproduce import BIASED, Job, Outcome, Plan, jobs, lay_out, run_cells, selected, write_pages

pytestmark = pytest.mark.slow  # seconds in all: left to `make test`

pytest.importorskip("sklearn", reason="needs the extra eval")


@dataclass(frozen=True)
class Number:
    """The fields of methods.method.Published, so that these tests need no torch."""

    table: str
    row: str
    column: str
    value: float
    unit: str = "%"
    dataset: str = ""
    metric: str = ""
    variant: str = ""
    quoted: str = ""
    note: str = ""


@dataclass(frozen=True)
class Paper:
    published: tuple[Number, ...]
    name: str = "lban-il"


@dataclass
class Runner:
    """Makes scores up; `strong` is skilled. Refuses dataset "absent", breaks on variant "broken"."""

    ran: list[Job] = field(default_factory=list)

    def __call__(self, job: Job, folder: Path) -> Outcome:
        assert folder.is_dir()
        self.ran.append(job)
        if job.dataset == "absent":
            raise DataError("absent: no files under ROOT; pass --root")
        if job.variant == "broken":
            raise ModelError("broken: the loss is not finite")
        seed = job.seed + 10 * (job.fold or 0)
        skill = 3.0 if job.variant == "strong" else 1.5
        chosen = made_up(400, seed=seed, skill=skill, dataset=job.dataset)
        return Outcome(chosen, made_up(400, seed=seed, skill=skill + 1))


def acc(row: str, variant: str, value: float, dataset: str = "fer2013", table: str = "Table 6") -> Number:
    return Number(table, row, f"{dataset} Acc", value, "%", dataset, "accuracy", variant)


PAPER = Paper(
    (
        acc("LBAN softmax", "weak", 71.58),
        acc("LBAN-IL", "strong", 73.11),
        acc("LBAN-IL", "strong", 85.0, dataset="absent"),
        Number("Table 6", "DNNRL", "fer2013 Acc", 71.33, "%", "fer2013", "accuracy", quoted="DNNRL"),
        Number("Table 6", "LBAN-IL", "fear recall", 62.16, "%", "fer2013", "recall/fear", "strong"),
        Number("Table 2", "LBAN", "params", 19.8, "M", "", "parameters", "strong"),
        Number("Table 2", "other", "params", 1.0, "M", "", "parameters"),
        Number("Fig. 6", "fear to surprise", "share", 0.18, "fraction", "fer2013", "confusion/fear/surprise", "strong"),
    )
)


def run(out: Path, runner: Runner, seeds: int = 2, paper: Paper = PAPER) -> dict[Job, str]:
    return run_cells(jobs(paper, Plan("cpu", seeds)), out, runner=runner)


def cells_of(out: Path, **options: object) -> Sequence:
    return lay_out(PAPER, out, Plan("cpu", 2), **options)


def test_every_number_has_a_cell_and_each_run_is_made_once(tmp_path: Path) -> None:
    runner = Runner()
    problems = run(tmp_path, runner)
    assert [(job.variant, job.dataset, job.seed) for job in runner.ran] == [
        ("weak", "fer2013", 0), ("weak", "fer2013", 1), ("strong", "fer2013", 0), ("strong", "fer2013", 1),
        ("strong", "absent", 0), ("strong", "absent", 1),
    ]  # fmt: skip
    cells = cells_of(tmp_path, problems=problems, counts=lambda variant: {"parameters": 19_630_279, "trainable": 5_000})
    assert [cell.published for cell in cells] == list(PAPER.published)
    assert [cell.status.split(":")[0] for cell in cells] == [
        "measured", "measured", "no data", "quoted from DNNRL", "measured", "counted",
        "no variant of ours stands for this row", "measured",
    ]  # fmt: skip


def test_a_measured_cell_is_what_its_files_say(tmp_path: Path) -> None:
    run(tmp_path, Runner())
    found = cells_of(tmp_path)[0].measured
    files = [tmp_path / f"lban-il/cpu/weak--fer2013/seed{seed}" / SCORES for seed in (0, 1)]
    by_hand = [100 * summary(made_up(400, seed=seed))["accuracy"] for seed in (0, 1)]
    assert found.values == pytest.approx(by_hand)
    assert found.mean == pytest.approx(sum(by_hand) / 2)
    assert found.low < found.mean < found.high
    assert "2 seeds" in found.how
    assert [digest for _, digest in found.files] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    biased = [100 * summary(made_up(400, seed=seed, skill=2.5))["accuracy"] for seed in (0, 1)]
    assert found.biased == pytest.approx(sum(biased) / 2)
    assert (files[0].parent / BIASED).is_file()


def test_finished_cells_are_never_run_twice_and_a_deleted_file_empties_its_cell(tmp_path: Path) -> None:
    runner = Runner()
    run(tmp_path, runner)
    count = len(runner.ran)
    run(tmp_path, runner)
    assert {job.dataset for job in runner.ran[count:]} == {"absent"}
    (tmp_path / "lban-il/cpu/weak--fer2013/seed1" / SCORES).unlink()
    assert len(cells_of(tmp_path)[0].measured.values) == 1
    (tmp_path / "lban-il/cpu/weak--fer2013/seed0" / SCORES).unlink()
    emptied = cells_of(tmp_path)[0]
    assert (emptied.status, emptied.measured) == ("not run", None)
    run(tmp_path, runner)
    assert cells_of(tmp_path)[0].status == "measured"


def test_runs_of_two_protocols_have_no_mean(tmp_path: Path) -> None:
    run(tmp_path, Runner())
    path = tmp_path / "lban-il/cpu/weak--fer2013/seed1" / SCORES
    scores = Scores.load(path)
    replace(scores, protocol={**scores.protocol, "views": "flip"}).save(path)
    told = cells_of(tmp_path)[0]
    assert told.measured is None and told.status.startswith("no mean: its runs differ in views; make them anew")
    replace(scores, protocol={**scores.protocol, "data_fingerprint": "of others"}).save(path)
    assert cells_of(tmp_path)[0].status.startswith("no mean: its runs differ in their rows; make them anew")


def test_a_cell_tells_how_its_rows_were_divided(tmp_path: Path) -> None:
    """CK+ by MSCAR's protocol, say, has frames of one sequence on both sides."""
    run(tmp_path, Runner())
    path = tmp_path / "lban-il/cpu/weak--fer2013/seed0" / SCORES
    scores = Scores.load(path)
    replace(scores, protocol={**scores.protocol, "note": "protocol mscar"}).save(path)
    assert "; rows: protocol mscar" in cells_of(tmp_path)[0].measured.protocol


def test_a_run_that_is_killed_leaves_no_finished_cell(tmp_path: Path) -> None:
    def killed(job: Job, folder: Path) -> Outcome:
        (folder / "last.ckpt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(jobs(PAPER, Plan("cpu", 1)), tmp_path, runner=killed)
    assert all(cell.status != "measured" for cell in cells_of(tmp_path))
    kept = tmp_path / "lban-il/cpu/weak--fer2013/seed0/last.ckpt"
    runner = Runner()
    run(tmp_path, runner)
    assert kept.is_file()
    assert cells_of(tmp_path)[0].status == "measured"


def test_a_failure_is_told_and_the_rest_still_runs(tmp_path: Path) -> None:
    paper = Paper((acc("a", "broken", 50.0), acc("b", "weak", 60.0)))
    said: list[str] = []
    problems = run_cells(jobs(paper, Plan("cpu", 1)), tmp_path, runner=Runner(), say=said.append)
    assert list(problems.values()) == ["failed: broken: the loss is not finite"]
    assert [cell.status for cell in lay_out(paper, tmp_path, Plan("cpu", 1), problems=problems)] == [
        "failed: broken: the loss is not finite",
        "measured",
    ]
    assert len(said) == 2


def test_one_run_has_the_interval_of_its_rows(tmp_path: Path) -> None:
    run(tmp_path, Runner(), seeds=1)
    found = lay_out(PAPER, tmp_path, Plan("cpu", 1))[4].measured
    assert "over rows" in found.how
    assert found.low <= found.mean <= found.high


def test_folds_are_runs_of_their_own_and_the_mean_needs_them_all(tmp_path: Path) -> None:
    numbers = tuple(
        Number("Table 7", "islets", f"ExpW {name}", 60.0, "%", "expw", "accuracy", "strong")
        for name in ("fold 1", "fold 2", "mean")
    )
    paper, runner = Paper(numbers), Runner()
    run(tmp_path, runner, seeds=1, paper=paper)
    assert [job.fold for job in runner.ran] == [1, 2]
    first, second, mean = lay_out(paper, tmp_path, Plan("cpu", 1))
    assert mean.measured.mean == pytest.approx((first.measured.mean + second.measured.mean) / 2)
    assert len(mean.measured.files) == 2
    (tmp_path / "lban-il/cpu/strong--expw--fold2/seed0" / SCORES).unlink()
    assert lay_out(paper, tmp_path, Plan("cpu", 1))[2].status == "not run"


def test_rows_that_share_a_variant_but_not_the_recipe_are_told_apart() -> None:
    rates = tuple(
        acc(row, "mscar", 80.0, "ferplus", "Table 2") for row in ("0.01", "0.001", "our learning rate strategy")
    )
    found = jobs(Paper(rates, "mscar"), Plan("cpu", 1))
    assert [job.settings for job in found] == [
        ("lr=0.01", "schedule=constant"), ("lr=0.001", "schedule=constant"), (),
    ]  # fmt: skip
    assert len({job.folder for job in found}) == 3
    starts = tuple(acc(row, "wcl", 60.0, "affectnet", "Table 5") for row in ("5: scratch, W", "10: VGGFace2, W"))
    assert [job.condition for job in jobs(Paper(starts, "wcl"), Plan(seeds=1))] == [
        "start scratch", "start VGGFace2",
    ]  # fmt: skip


def test_damaged_scores_are_named_with_the_way_out(tmp_path: Path) -> None:
    run(tmp_path, Runner())
    file = tmp_path / jobs(PAPER, Plan("cpu", 2))[0].folder / SCORES
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(
        DataError, match=f"{SCORES}: not a scores file .*; deleted, it is made anew by the same command"
    ):
        cells_of(tmp_path)


def test_tables_and_figures_are_chosen_by_number() -> None:
    assert {number.table for number in selected(PAPER.published, Plan(table="6"))} == {"Table 6"}
    assert {number.table for number in selected(PAPER.published, Plan(table="2", figure="6"))} == {"Table 2", "Fig. 6"}
    with pytest.raises(UsageError, match=r"Table 9: there are Table 6, Table 2, Fig\. 6"):
        selected(PAPER.published, Plan(table="9"))


def test_a_difference_over_seeds_gets_a_verdict_with_what_could_be_seen(tmp_path: Path) -> None:
    wanted = jobs(PAPER, Plan("cpu", 3))
    run_cells(wanted, tmp_path, runner=Runner())
    found = verdicts(lay_out(PAPER, tmp_path, Plan("cpu", 3)))
    assert [(verdict.row, verdict.baseline) for verdict in found] == [("LBAN-IL", "LBAN softmax")]
    assert found[0].printed == pytest.approx(1.53)
    assert found[0].low > 0
    assert 0 < found[0].detectable < found[0].found
    assert found[0].words == "same direction as printed"


def test_the_pages_hold_every_number_with_file_and_hash(tmp_path: Path) -> None:
    problems = run(tmp_path, Runner())
    cells = cells_of(tmp_path, problems=problems)
    rows = list(csv.DictReader(io.StringIO(to_csv(cells))))
    assert [float(row["published"]) for row in rows] == [number.value for number in PAPER.published]
    assert rows[2]["status"].startswith("no data: absent")
    assert len(rows[0]["sha256"].split()) == 2
    markdown = to_markdown("LBAN-IL", cells)
    html = page("LBAN-IL", html_body(cells))
    for text in (markdown, html):
        assert "“71.33”" in text  # a quotation looks like one
        assert "weak--fer2013/seed0/scores.npz" in text
        assert rows[0]["sha256"][:12] in text
        assert "best on test (biased)" in text
        assert "could be seen" in text
    assert markdown.index("## Table 6") < markdown.index("## Table 2") < markdown.index("## Fig. 6")


@pytest.mark.slow
def test_every_published_number_of_every_method_has_a_cell(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the methods need the extra lab")
    from mien.lab import methods

    for name in methods.NAMES:
        method = methods.load(name)
        cells = lay_out(method, tmp_path, Plan())
        assert len(cells) == len(method.published) > 0
        measurable = [cell for cell in cells if cell.status == "not run"]
        assert measurable, name
        for job in jobs(method, Plan(seeds=1)):
            assert job.variant in method.variants, job


def test_pages_are_written_whole_in_three_formats(tmp_path: Path) -> None:
    run(tmp_path, Runner())
    paths = write_pages("LBAN-IL", cells_of(tmp_path), tmp_path, name="lban-il", intro=["Six minutes a run."])
    assert [path.name for path in paths] == ["lban-il.md", "lban-il.csv", "lban-il.html"]
    assert "Six minutes a run." in paths[0].read_text(encoding="utf-8")
    assert "Six minutes a run." in paths[2].read_text(encoding="utf-8")
    assert not list(tmp_path.glob(".partial*"))


def test_a_table_on_other_data_compares_rows_but_not_with_the_paper(tmp_path: Path) -> None:
    plan = Plan("cpu", 2, table="6", rows="softmax|IL$", data="synthetic")
    runner = Runner()
    run_cells(jobs(PAPER, plan), tmp_path, runner=runner)
    assert {job.dataset for job in runner.ran} == {"synthetic"}
    assert len(runner.ran) == 4  # the row's FER-2013, other and recall columns share their runs
    cells = lay_out(PAPER, tmp_path, plan)
    assert [cell.published.row for cell in cells] == ["LBAN softmax", "LBAN-IL", "LBAN-IL", "LBAN-IL"]
    assert cells[0].status == "measured on synthetic, the paper's is fer2013"
    rows = list(csv.DictReader(io.StringIO(to_csv(cells))))
    assert rows[0]["measured"]
    assert rows[0]["difference"] == ""
    assert "measured on synthetic" in to_markdown("t", cells)
    assert [verdict.row for verdict in verdicts(cells)] == ["LBAN-IL"]
    for table, where in ((None, "the paper"), ("6", "Table 6")):
        with pytest.raises(
            UsageError, match=f"--rows 'nothing': like no row of {where}; there are LBAN softmax; LBAN-IL"
        ):
            jobs(PAPER, Plan(table=table, rows="nothing"))
