"""The processes of a training over several devices: started here on one machine, by torchrun or SLURM on several.

    mien train ... --devices 4                                                              one machine
    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-endpoint HOST:PORT -m mien train ...      on each of two machines
    srun --nodes 2 --ntasks-per-node 4 mien train ...                                       SLURM

Processes started here find the same environment variables as torchrun's, so that there is one way in.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait as wait_for_any
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from mien.errors import MienError, RankError, UsageError
from mien.lab.orphans import end_with_parent

WAIT = 600.0  # s without an answer from another rank until a rank gives up
GRACE = 5.0  # s that the other ranks get to end by themselves after one has failed; then, twice, to heed a signal
RESUME = "finished epochs are kept: go on with --resume"
# How gloo and torch word a lost peer or a missing answer; all of them are plain RuntimeErrors.
_LOST = ("gloo", "connection closed", "connection reset", "timed out", "timeout", "broken pipe", "nccl", "peer")


@dataclass(frozen=True)
class Layout:
    """devices: processes per machine, one for each device. nodes: machines."""

    devices: int = 1
    nodes: int = 1

    @property
    def size(self) -> int:
        return self.devices * self.nodes

    def __str__(self) -> str:
        return f"--devices {self.devices} --nodes {self.nodes}"


def layout(devices: int | None, nodes: int | None) -> Layout:
    """What was asked for, or what torchrun or SLURM has started; one process where neither says anything.

    Raises UsageError where the two contradict each other.
    """
    started = _started()
    if started is None:
        return Layout(devices or 1, nodes or 1)
    asked = Layout(devices or started.devices, nodes or started.nodes)
    if asked != started:
        raise UsageError(f"{asked} was asked for, but {started} was started by {_starter()}; leave the two options out")
    return started


def inside() -> bool:
    """Whether this process is one rank of several that were started together."""
    started = _started()
    return started is not None and started.size > 1


def _starter() -> str | None:
    """What started this process as one of several: "torchrun" or "srun", else None."""
    if {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"} <= set(os.environ):
        return "torchrun"
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # as Lightning has it: a shell, no job
    return "srun" if {"SLURM_PROCID", "SLURM_NTASKS"} <= set(os.environ) and not interactive else None


def _started() -> Layout | None:
    starter = _starter()
    if starter is None:
        return None
    if starter == "torchrun":
        local, size = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    else:
        size = int(os.environ["SLURM_NTASKS"])
        local = int(os.environ.get("SLURM_NTASKS_PER_NODE") or size // int(os.environ.get("SLURM_NNODES", "1")))
    return Layout(local, size // local)


@contextmanager
def joined(ranks: Layout, *, wait: float = WAIT) -> Iterator[ClusterEnvironment | None]:
    """A process group of all ranks for as long as the block lasts; nothing, and None, for one rank.

    wait: seconds after which a rank that hears nothing from another gives up. Raises RankError when ranks do not come
    together, or when one is lost inside the block.
    """
    if ranks.size == 1:
        yield None
        return
    place = _place(ranks)
    _join(place, ranks, wait)
    try:
        yield place
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise RankError(
            f"rank {place.global_rank()} of {ranks.size} lost another rank, or had no answer from it for {wait:.0f} s "
            f"({_first_line(error)}); {RESUME}"
        ) from error
    dist.destroy_process_group()


def _place(ranks: Layout) -> ClusterEnvironment:
    """Who and where this rank is, as Lightning wants to be told."""
    if _starter() == "torchrun":
        return TorchElasticEnvironment()
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(ranks.devices))  # Lightning refuses to count them itself
    return SLURMEnvironment(auto_requeue=False)


def _join(place: ClusterEnvironment, ranks: Layout, wait: float) -> None:
    """Find the other ranks."""
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = place.main_address, str(place.main_port)
    cuda = torch.cuda.is_available()
    if cuda:
        if ranks.devices > torch.cuda.device_count():
            raise UsageError(
                f"--devices {ranks.devices}: this machine has {torch.cuda.device_count()} GPUs; ask for fewer"
            )
        torch.cuda.set_device(place.local_rank())
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            rank=place.global_rank(),
            world_size=ranks.size,
            timeout=timedelta(seconds=wait),
        )
        dist.barrier()
    except RuntimeError as error:
        raise RankError(
            f"rank {place.global_rank()} of {ranks.size}: the ranks did not come together at {place.main_address}:"
            f"{place.main_port} in {wait:.0f} s ({_first_line(error)}); start all {ranks.size} with one torchrun per machine or "
            "one srun, and let them reach that address"
        ) from error


def _lost(error: RuntimeError) -> bool:
    """Whether `error` says that another rank is gone, and not that something is wrong with the training itself."""
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return any(isinstance(e, dist.DistError) or any(word in str(e).lower() for word in _LOST) for e in chain)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def spawn(work: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any], ranks: Layout) -> None:
    """Run `work(*arguments, **options)` as every rank of one machine, and wait for all of them.

    The error of a rank that fails is raised here, after the others were ended: a MienError as it is, a killed rank as a
    RankError. `work` and what it gets must be picklable.
    """
    if ranks.nodes > 1:
        raise UsageError(
            f"{ranks}: the ranks of several machines are started from outside: on each machine `torchrun --nnodes {ranks.nodes} "
            f"--nproc-per-node {ranks.devices} --rdzv-endpoint HOST:PORT -m mien train ...`, or under SLURM `srun --nodes "
            f"{ranks.nodes} --ntasks-per-node {ranks.devices} mien train ...`"
        )
    door = socket.create_server(("127.0.0.1", 0))  # by itself the store would listen on every interface
    store = dist.TCPStore(
        "127.0.0.1", door.getsockname()[1], is_master=True, wait_for_workers=False, master_listen_fd=door.detach()
    )  # its free port is the meeting point
    told = multiprocessing.get_context("spawn").SimpleQueue()
    context = start_processes(
        _rank, (work, tuple(arguments), dict(options), ranks, store.port, told), nprocs=ranks.size, join=False
    )
    codes: list[int | None] = []
    try:
        codes = _ended(context.processes)
        while not context.join(grace_period=GRACE):  # ends those that are still there
            pass
    except KeyboardInterrupt:  # which a terminal sends to all, and `kill -INT` to this process alone
        for process in context.processes:
            process.kill()
        raise
    except (ProcessExitedException, ProcessRaisedException) as failure:
        raise _reason(codes, _told(told), failure) from None


def _ended(processes: Sequence[Any]) -> list[int | None]:
    """Exit statuses when all ranks have ended well, or GRACE after one has not; None for one that is still running then."""
    running = {process.sentinel: process for process in processes}
    while running and not any(process.exitcode for process in processes):
        for sentinel in wait_for_any(list(running)):
            running.pop(sentinel).join()
    until = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    return [process.exitcode for process in processes]


def _rank(
    rank: int, work: Callable[..., Any], arguments: Any, options: Any, ranks: Layout, port: int, told: Any
) -> None:
    """One rank: torchrun's environment variables, then the work."""
    end_with_parent()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "mien"}
    os.environ |= {"WORLD_SIZE": str(ranks.size), "LOCAL_WORLD_SIZE": str(ranks.size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }  # the store is the parent's
    try:
        work(*arguments, **options)
    except MienError as error:
        told.put((rank, error))
        sys.exit(1)


def _told(queue: Any) -> dict[int, MienError]:
    """What the ranks said before they ended, by rank."""
    said = {}
    while not queue.empty():
        rank, error = queue.get()
        said[rank] = error
    return said


def _reason(codes: Sequence[int | None], said: Mapping[int, MienError], failure: Exception) -> Exception:
    """Why the ranks ended: one that was killed, else the first that said what was wrong, else the bug in one."""
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return RankError(f"rank {rank} of {len(codes)} was ended by {name}, and the others were stopped; {RESUME}")
    own = [said[rank] for rank in sorted(said) if not isinstance(said[rank], RankError)]
    if own or isinstance(failure, ProcessRaisedException):
        return own[0] if own else failure
    return said[min(said)] if said else RankError(f"a rank ended ({failure}), and the others were stopped; {RESUME}")
