"""Training over several ranks: the same numbers as on one, the same run however it is started, and what a lost rank does.

One pair of ranks takes all the steps that `rank_cases` lists, and again with each exchange taken out; the tests read what it
wrote.
"""

import contextlib
import copy
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import rank_cases
import small_fer
import torch
from rank_cases import CASES, MUTANTS, TOLERANCE, difference
from torch import nn

from mien.errors import RankError, UsageError
from mien.lab import ranks
from mien.lab.losses import LOSSES
from mien.lab.methods import NAMES, OURS, TEACHERS, load
from mien.lab.training import distributed, feed, launch
from mien.lab.training.recipes import Choice
from mien.lab.training.runs import spec_of
from mien.lab.training.trainer import Source, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NOTICED = 1e-4  # a mutant's relative difference is far over rounding
PATIENCE = 240  # s; what is waited for takes a few on a quiet machine


# The same numbers as one process


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("pair")
    launch.spawn(rank_cases.pair, (folder,), {}, launch.Layout(rank_cases.RANKS))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(rank_cases.RANKS)]


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_take_the_steps_of_one_process(case: str, pair: list[dict[str, Any]]) -> None:
    """Loss terms, gradients, weights, running statistics, centres, confusions, the average: float64, five steps."""
    alone = (pair[0]["alone"] | pair[1]["alone"])[case]
    first, second = (found["together"][case] for found in pair)
    assert difference(alone, first) < TOLERANCE
    assert all(
        torch.equal(first[name], second[name]) for name in first
    )  # not a bit apart, although nothing is broadcast


def test_the_cases_cover_every_method_and_loss() -> None:
    assert {case.removeprefix("method ") for case in CASES if case.startswith("method ")} == {*NAMES, *OURS, *TEACHERS}
    for case, recipe in CASES.items():
        if case.startswith("method "):
            assert recipe.loss == load(case.removeprefix("method ")).recipes["cpu"].loss
    assert {type(recipe.loss) for recipe in CASES.values()} >= set(LOSSES.values())


def test_the_steps_move_what_they_should(pair: list[dict[str, Any]]) -> None:
    """A comparison of things that never change would say nothing."""
    alone = pair[0]["alone"] | pair[1]["alone"]
    for case, recipe in CASES.items():
        begun = rank_cases.build(recipe).state_dict()
        same = {name for name, value in begun.items() if torch.equal(value, alone[case][f"state {name}"])}
        kept = {name for name in begun if name.startswith("loss.") and not name.endswith(("weights", "started"))}
        state = {name for name in kept if alone[case][f"state {name}"].numel()}
        assert not state & same, case
        means = {name for name in begun if name.startswith("network.") and name.endswith("running_mean")}
        assert {name.split(".")[1] for name in means & same} <= set(recipe.frozen), case


@pytest.mark.parametrize("mutant", MUTANTS)
def test_it_shows_when_an_exchange_is_missing(mutant: str, pair: list[dict[str, Any]]) -> None:
    for case, gap in pair[0]["mutants"][mutant].items():
        assert gap > NOTICED, case


def test_plain_data_parallelism_would_do_for_means_over_rows_only(pair: list[dict[str, Any]]) -> None:
    """So that the mutants are noticed for what they are, and not because any change would be."""
    assert pair[0]["plain"].keys() == set(rank_cases.ROW_MEANS)
    assert all(gap < TOLERANCE for gap in pair[0]["plain"].values())


def test_every_validation_row_counts_once(pair: list[dict[str, Any]]) -> None:
    """Thirteen rows on two ranks."""
    assert pair[0]["judged"] == pair[1]["judged"] == pair[0]["judged alone"]
    assert pair[0]["judged apart"] != pair[0]["judged alone"]


def test_every_rank_hears_what_rank_0_decides(pair: list[dict[str, Any]]) -> None:
    assert pair[0]["decided alone"] == ([7], "refused by rank 0")
    assert pair[0]["decided"] == pair[1]["decided"] == ([7, 7], "refused by rank 0")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(5), nn.BatchNorm2d(5, momentum=None, eps=1e-3), nn.BatchNorm2d(5, affine=False), nn.BatchNorm1d(5)],
    ids=["usual", "cumulative", "plain", "vectors"],
)
def test_alone_the_batch_norm_of_all_ranks_is_torchs(norm: nn.BatchNorm2d | nn.BatchNorm1d, precision: str) -> None:
    """Forward, backward, statistics and names, also of what autocast hands to it."""
    generator = torch.Generator().manual_seed(0)
    shape = (6, 5, 4, 3) if isinstance(norm, nn.BatchNorm2d) else (6, 5)
    norm = copy.deepcopy(norm)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5, generator=generator)
    holder = nn.Sequential(copy.deepcopy(norm))
    distributed.convert(holder)
    assert isinstance(holder[0], distributed.GlobalBatchNorm)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    near = {"rtol": 2e-2, "atol": 1e-2} if precision == "bfloat16" else {"rtol": 1e-4, "atol": 1e-5}
    for _ in range(2):
        values, gradient = (torch.randn(shape, generator=generator).mul(2).add(1).to(dtype) for _ in range(2))
        made = []
        for module in (norm, holder[0]):
            leaf = values.clone().requires_grad_()
            module.zero_grad()
            output = module(leaf)
            output.backward(gradient)
            assert output.dtype == leaf.grad.dtype == dtype
            made.append([output, leaf.grad, *(p.grad for p in module.parameters())])
        for expected, found in zip(*made, strict=True):
            torch.testing.assert_close(found, expected, **near)
    states = norm.state_dict(), holder[0].state_dict()
    assert list(states[0]) == list(states[1])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(holder[0].eval()(values), norm.eval()(values))


# The same run, however it is started


SETTINGS = (
    "network.widths=(4,8,8,8)", "lr=0.02", "epochs=10", "batch=16", "sizes=()", "precision=float32",
)  # fmt: skip
COMMAND = (
    *("train", "mien-small", "--data", "ferplus", "--allow-partial", "--threads", "1", "--rank-wait", "120"),
    *(word for setting in SETTINGS for word in ("--set", setting)),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIEN_CACHE", str(folder / "cache"))
        yield small_fer.write(folder / "fer", train=84, valid=29)  # an odd number of validation rows


def start(
    folder: Path, root: Path, *more: str, before: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *before, "mien", *COMMAND, "--root", str(root), "-o", str(folder), *more]
    own = {"OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **own},
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What the process printed, after it ended well."""
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return out


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks that were started as SLURM starts them."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    both = {
        "SLURM_JOB_ID": "1234567", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": free_port(),
    }  # fmt: skip
    ranks = [start(folder, data, **both, SLURM_PROCID=str(r), SLURM_LOCALID=str(r)) for r in (0, 1)]
    first, second = [finished(process) for process in ranks]
    assert "best epoch" in first
    assert second == ""  # rank 0 speaks for all
    return folder


def free_port() -> str:
    """Below 32768, where Linux begins to give ports to whoever asks for any: nobody gets it before the ranks do."""
    for port in range(20_000 + os.getpid() % 10_000, 32_768):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return str(port)
    raise AssertionError("no port is free")


def test_a_run_of_two_ranks_is_the_run_of_one(data: Path, whole: Path, tmp_path: Path) -> None:
    """float32 through Lightning: sums in another order, and nothing else, lie between the two."""
    choice, source = Choice("mien-small", settings=SETTINGS), Source("ferplus", data, allow_partial=True)
    alone = train(choice, source, tmp_path / "alone", threads=1, say=lambda line: None)
    for expected, found in zip(rows(alone), rows(whole), strict=True):
        assert found["lr"] == expected["lr"]
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=5e-3)
        assert found["selection"] == pytest.approx(expected["selection"], abs=2 / 29)  # at most two rows of 29
    expected, found = (torch.load(f / "last.ckpt", weights_only=True)["state_dict"] for f in (alone, whole))
    assert difference(expected, found) < 0.05
    assert json.loads((whole / "run.json").read_text())["ranks"] == {"devices": 2, "nodes": 1}


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_a_killed_rank_ends_the_job_and_resuming_ends_like_a_run_never_killed(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    """Started by --devices, SIGKILL to one rank in the middle of an epoch, gone on with by torchrun."""
    folder = tmp_path / "run"
    here = str(Path(__file__).parent)
    job = start(folder, data, "--devices", "2", before=("held_rank",), PYTHONPATH=here)  # so that it cannot end first
    wait_for(folder / "last.ckpt", job)
    rank_process(job, 1).send_signal(signal.SIGKILL)
    began = time.monotonic()
    _, errors = job.communicate(timeout=PATIENCE)
    assert time.monotonic() - began < 60  # not the two minutes of --rank-wait
    assert job.returncode == 1
    assert "rank 1 of 2 was ended by SIGKILL, and the others were stopped" in errors
    assert "go on with --resume" in errors
    assert "Traceback" not in errors
    assert len(rows(folder)) < 10
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    finished(start(folder, data, "--resume", before=torchrun))
    expected, found = (torch.load(f / "last.ckpt", weights_only=True)["state_dict"] for f in (whole, folder))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (whole / "metrics.csv").read_text() == (folder / "metrics.csv").read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_ranks_end_with_what_started_them(data: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Signals to the job's own process, as `kill PID` sends them: its ranks must not train on as nobody's."""
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # what is ignored here is ignored by what is started
    job = start(tmp_path / "run", data, "--devices", "2", "--set", "epochs=1000")
    signal.signal(signal.SIGINT, before)
    wait_for(tmp_path / "run" / "last.ckpt", job)
    both = [rank_process(job, rank) for rank in (0, 1)]
    doors = {door.laddr.ip for door in psutil.Process(job.pid).net_connections("inet") if door.status == "LISTEN"}
    assert doors == {"127.0.0.1"}  # where the ranks meet; SECURITY.md says so
    job.send_signal(number)
    left = psutil.wait_procs(both, timeout=30)[1]
    if left:
        os.killpg(job.pid, signal.SIGKILL)
    job.communicate(timeout=30)
    assert left == [] and job.returncode != 0


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until, f"no {path.name} after {PATIENCE} s"
        time.sleep(0.01)


def rank_process(job: subprocess.Popen[str], rank: int) -> psutil.Process:
    """The job's process that trains as `rank`: its spawned children, in the order in which they were started."""
    children = [p for p in psutil.Process(job.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    assert len(children) == 2
    return sorted(children, key=lambda p: (p.create_time(), p.pid))[rank]


# What is refused


@pytest.mark.soak
def test_a_rank_that_hangs_ends_the_job(data: Path, tmp_path: Path) -> None:
    """SIGSTOP: it is there and does not answer. The other waits for --rank-wait, and the job then ends it."""
    job = start(tmp_path / "run", data, "--devices", "2", "--set", "epochs=1000", "--rank-wait", "15")
    wait_for(tmp_path / "run" / "last.ckpt", job)
    rank_process(job, 1).send_signal(signal.SIGSTOP)
    began = time.monotonic()
    _, errors = job.communicate(timeout=PATIENCE)
    assert time.monotonic() - began < 15 + 3 * launch.GRACE + 30
    assert job.returncode == 1
    assert "had no answer from it for 15 s" in errors
    assert "--resume" in errors


def test_ranks_that_do_not_come_together_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two ranks never comes."""
    only = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**only, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(RankError, match=r"rank 0 of 2: the ranks did not come together at 127.0.0.1:\d+ in 2 s"),
        launch.joined(launch.Layout(2), wait=2),
    ):
        pass


@pytest.mark.parametrize(("batch", "rows"), [(15, 40), (16, 13)])
def test_a_batch_that_does_not_divide_is_refused(batch: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "count", lambda: 2)
    data = rank_cases.faces(rows, split="train")
    with pytest.raises(UsageError, match=f"a batch of {min(batch, rows)} rows does not divide by 2 processes"):
        feed.training_loader(data, spec_of(CASES["softmax"]), batch=batch, seed=0)


def test_ranks_share_each_batch_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th batches of four ranks are, in order, the n-th batch of one; validation rows go round once."""

    def batches(count: int, own: int) -> tuple[list[list[int]], int]:
        monkeypatch.setattr(ranks, "count", lambda: count)
        monkeypatch.setattr(ranks, "own", lambda: own)
        sampler = feed.EpochSampler(67, 3, batch=16)
        sampler.set_epoch(2)
        order = list(sampler)
        judged = feed.ordered_loader(rank_cases.faces(13, split="valid"), spec_of(CASES["softmax"]))
        return [order[i : i + sampler.share] for i in range(0, len(order), sampler.share)], len(judged.dataset)  # type: ignore[arg-type]

    (alone, every), parts = batches(1, 0), [batches(4, own) for own in range(4)]
    assert len(alone) == 4
    assert alone == [
        [row for share in shares for row in share] for shares in zip(*(part for part, _ in parts), strict=True)
    ]
    assert [judged for _, judged in parts] == [4, 3, 3, 3]
    assert every == 13
    with pytest.raises(UsageError, match="3 rows for 4 processes"):
        feed.ordered_loader(rank_cases.faces(3, split="valid"), spec_of(CASES["softmax"]))


def test_several_machines_are_started_from_outside(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="torchrun --nnodes 3 --nproc-per-node 2"):
        train(Choice("mien-small"), Source("ferplus", tmp_path), tmp_path / "run", devices=2, nodes=3)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, launch.Layout(1, 1)),
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}, launch.Layout(2, 3)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}, launch.Layout(4, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_NNODES": "4"}, launch.Layout(2, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NAME": "interactive"}, launch.Layout(1, 1)),
    ],
)
def test_the_layout_is_what_was_started(
    environment: dict[str, str], found: launch.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_") or name.endswith(("RANK", "WORLD_SIZE"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch.layout(None, None) == found
    assert launch.inside() is (found.size > 1)
    if environment and found.size > 1:
        with pytest.raises(UsageError, match="was asked for, but --devices"):
            launch.layout(7, None)


def test_the_reason_of_an_end_is_the_rank_that_began_it() -> None:
    lost, own = RankError("rank 0 lost another rank"), UsageError("the loss is not finite")
    failure = launch.ProcessExitedException("process 0 terminated", 0, 1, 1)
    killed = launch._reason([1, -signal.SIGKILL], {0: lost}, failure)
    assert str(killed).startswith("rank 1 of 2 was ended by SIGKILL")
    assert launch._reason([1, None], {0: own}, failure) is own  # None: it was still running
    assert launch._reason([1, 1], {0: lost, 1: own}, failure) is own
    assert launch._reason([1, None], {0: lost}, failure) is lost
    bug = launch.ProcessRaisedException("Traceback ... KeyError", 1, 2)
    assert launch._reason([1, 1], {0: lost}, bug) is bug
