"""The cluster's end of a folder job: Ray Data hands the files to a pool of actors, and gives their rows back in order.

Each actor holds one reading process (`mien.worker`) with the model loaded, so a file that crashes its decoder is
recorded as on one machine. A node that dies is Ray's to answer: it starts the actor elsewhere and repeats the block of
files that it had in hand; rows come out once, since a block's rows are taken when all of them are there. The journal
and the table stay with the driver (`jobs.run`): either engine goes on with what the other began.

Without an address this starts a Ray of its own for the job: on the loopback address only, with no dashboard, little
shared memory, and Ray's usage reports off.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien import images, storage
from mien.cores import cores
from mien.errors import EngineError, UsageError
from mien.worker import Settings, Worker

if TYPE_CHECKING:
    from mien.tables import Row

BLOCK = 64  # files of one task at most: what a lost node makes Ray read again, against the milliseconds of a task
SHARE = 32  # blocks for each actor at least, where there are so many files: the last ones end together
STORE = 128 * 1024**2  # bytes of shared memory for a Ray of this machine; Ray's own least is 75 MiB. Rows are small
SOURCE_BYTES = 1024  # of shared memory for each file listed: its path, its rows, and Ray's copies of both

# Read by Ray when it is imported or starts; what the user has set stays. _LOOPBACK makes a Ray of this machine listen on
# 127.0.0.1 alone: its name is from the systems where that is the default (ray/_private/ray_constants.py of 2.60).
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def tables(
    left: Sequence[str], settings: Settings, workers: int | None, *, address: str | None = None
) -> Iterator[tuple[str, "list[Row]"]]:
    """Each source with its rows, in order, read by Ray. A `jobs.Engine` once the address is given.

    workers: actors, None is one for each core of the cluster. address: HOST:PORT of a running cluster's head, or "auto"
    on one of its nodes; None takes RAY_ADDRESS, or else starts a Ray on this machine for as long as this runs. A Ray
    that this process has joined already is used, and left running.
    Raises UsageError where Ray is not installed or does not answer, EngineError where the cluster cannot do the job.
    """
    if not left:
        return
    with cluster(address or os.environ.get("RAY_ADDRESS"), workers, len(left)) as ray:
        count = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(left))
        try:
            for batch in _dataset(ray, left, settings, count).iter_batches(batch_size=None, batch_format="numpy"):
                for source, rows in zip(batch["source"], batch["rows"], strict=True):
                    yield json.loads(source), json.loads(rows)
        except ray.exceptions.RayError as error:
            raise EngineError(_told(error)) from None


class Actor:
    """What each member of the pool holds. Raises EngineError where this node cannot do what the driver asks."""

    def __init__(self, settings: Settings, demands: Mapping[str, Any]) -> None:
        _check_node(settings, demands)
        self._worker = Worker(settings)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """source: each a path or URL as JSON, which is ASCII whatever bytes a file name has; the same goes for rows."""
        sources = [str(source) for source in batch["source"]]
        return {"source": sources, "rows": [json.dumps(self._worker.read(json.loads(source))) for source in sources]}


def _demands(left: Sequence[str], settings: Settings) -> dict[str, Any]:
    """What each node must share with this one: mien's version, the model's bytes and the detector's, the drivers of the URLs, and,
    where there are relative paths, the folder that they start from."""
    import mien
    from mien.faces import detect

    files = [settings.model, settings.detector.partition(":")[2]]  # a detector may be NAME:FILE
    paths = [path for path in (*left, *files) if path and not storage.is_url(path)]
    relative = not all(Path(path).is_absolute() for path in paths)
    return {
        "version": mien.__version__,
        "model": _digest(settings.model),
        "detector": detect.identity(settings.detector),
        "folder": str(Path.cwd()) if relative else None,
        "protocols": storage.protocols(left),
    }


def _check_node(settings: Settings, demands: Mapping[str, Any]) -> None:
    import mien
    from mien.faces import detect

    node = socket.gethostname()
    if mien.__version__ != demands["version"]:
        raise EngineError(
            f"node {node} has mien {mien.__version__}, the driver {demands['version']}; install the same on each node"
        )
    storage.check_protocols(demands["protocols"])
    try:
        if demands["folder"]:
            os.chdir(demands["folder"])
        found, detector = _digest(settings.model), detect.identity(settings.detector)
        detect.load(settings.detector, min_face=settings.min_face)  # what is amiss is said once, not in each row
    except OSError as error:
        raise EngineError(
            f"node {node} lacks {error.filename}; give absolute paths on storage that every node sees, or URLs"
        ) from None
    if found != demands["model"]:
        raise EngineError(
            f"node {node}: the model {settings.model or 'of its mien'} has SHA-256 {found}, the driver's has "
            f"{demands['model']}; put the same file there"
        )
    if detector != demands["detector"]:
        raise EngineError(
            f"node {node}: the detector {settings.detector} is {detector}, the driver's is {demands['detector']}; put the same "
            "file there"
        )


def _digest(model: str | None) -> str:
    from mien.classifier import bundled_model

    return hashlib.sha256(Path(model or bundled_model()).read_bytes()).hexdigest()


def _dataset(ray: Any, left: Sequence[str], settings: Settings, count: int) -> Any:
    """The job as a Ray Data pipeline: the sources in blocks, the pool over them, nothing started yet."""
    from ray.data import ActorPoolStrategy, from_items

    blocks = max(-(-len(left) // BLOCK), min(len(left), SHARE * count))
    listed = from_items([{"source": json.dumps(source)} for source in left], override_num_blocks=blocks)
    listed.context.execution_options.preserve_order = True
    return listed.map_batches(
        Actor,
        fn_constructor_args=(settings, _demands(left, settings)),
        batch_size=None,  # a block each
        compute=ActorPoolStrategy(min_size=1, max_size=count, initial_size=_first(ray, count)),
        num_cpus=1,
    )


def _first(ray: Any, count: int) -> int:
    """Actors to start with: as many as there are cores free; a shared cluster may give more later."""
    return max(1, min(count, int(ray.available_resources().get("CPU", 1))))


@contextlib.contextmanager
def cluster(address: str | None, workers: int | None, files: int) -> Iterator[Any]:
    """The module ray, joined to the cluster or to one of its own, which ends with the block."""
    ray = _ray(local=address is None)
    if ray.is_initialized():
        yield ray
        return
    folder = Path(tempfile.mkdtemp(prefix="mien-ray-", dir=_short_folder())) if address is None else None
    try:
        if folder is None:
            _join(ray, address=address)
        else:
            store = STORE + SOURCE_BYTES * files
            _join(
                ray,
                address="local",
                num_cpus=workers or cores(),
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=store,
                _temp_dir=str(folder),
            )
        yield ray
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _join(ray: Any, **options: Any) -> None:
    try:
        # Ray puts the current folder at the front of its workers' import path (ray/_private/worker.py of 2.60, `connect`):
        # in one of pictures from anywhere, a csv.py would be run. The root holds nobody's modules.
        with contextlib.chdir(os.sep):
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
        where = options["address"]
        raise UsageError(
            f"no Ray to work with at {where}: {images.reason(error)}; expected HOST:PORT of a running "
            "cluster's head with this Ray and Python, or no --address for a Ray of this machine"
        ) from None


def _ray(*, local: bool) -> Any:
    """The module ray with ray.data, quietened. Raises UsageError where it is not installed."""
    for name, value in (_QUIET | (_LOOPBACK if local else {})).items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's settings warn of each other's deprecation
            import ray
            import ray.data

            context = ray.data.DataContext.get_current()
    except ImportError:
        raise UsageError('--engine ray needs the extra ray; run `pip install "mien[ray]"`') from None
    context.enable_progress_bars = False  # mien shows its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _short_folder() -> str:
    """Where Ray's sockets may lie: the path of a Unix socket has about 100 bytes, and Ray's own part takes 80 of them."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 20 or sys.platform == "win32" else "/tmp"


def _told(error: BaseException) -> str:
    """What went wrong on the cluster: mien's own words where they are in it, else Ray's first line."""
    lines = str(error).strip().splitlines()
    ours = [line.partition(": ")[2] for line in lines if line.strip().startswith("mien.errors.")]
    return ours[-1] if ours else f"Ray gave up: {lines[0] if lines else type(error).__name__}"
