"""Folder jobs on Ray and on storage by URL: the same rows as on one machine, whatever dies meanwhile."""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import psutil
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from mien import cli, draw, images, jobs, parts, ray_engine, storage, tables, worker
from mien.errors import EngineError, ImageError, UsageError

pytestmark = pytest.mark.slow  # a Ray takes seconds to start

SMALL = 30  # pictures of the larger folder
WAIT = 200  # s; a busy machine is no failure


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, hopper: np.ndarray, astronaut: np.ndarray) -> Path:
    """Faces, a faceless picture, a broken file, an empty one, and a name that is no UTF-8."""
    root = tmp_path_factory.mktemp("tree")
    (root / "b").mkdir()
    Image.fromarray(hopper).resize((96, 112)).save(root / "hopper.jpg")
    Image.fromarray(astronaut).resize((120, 120)).save(root / "b" / "z é.png")
    Image.new("RGB", (100, 80), "navy").save(root / "b" / "blank.png")
    (root / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    (root / "empty.png").write_bytes(b"")
    with open(os.fsencode(root) + b"/b/\xff.jpg", "wb") as file:  # noqa: PTH123 - bytes, which a Path cannot be
        file.write((root / "hopper.jpg").read_bytes())
    return root


@pytest.fixture(scope="module")
def many(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `SMALL` pictures, faces and broken files in turn."""
    root = tmp_path_factory.mktemp("many")
    for number in range(SMALL):
        (root / f"{number:03}.jpg").symlink_to(tree / ("hopper.jpg" if number % 3 else "empty.png"))
    return root


@pytest.fixture(scope="module")
def settings(tiny_model: Path) -> worker.Settings:
    return worker.Settings(str(tiny_model))


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray for all the tests here, as a job without an address starts it, with two cores whatever there are."""
    with ray_engine.cluster(None, 2, 1000) as module:
        yield module


def run(pictures: Sequence[Path | str], out: Path | str, settings: worker.Settings, **options: Any) -> jobs.Summary:
    if isinstance(out, Path):
        out.mkdir(exist_ok=True)
    return jobs.run(pictures, out, settings=settings, **options)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same(found: list[dict[str, str]], expected: list[dict[str, str]]) -> None:
    """The same texts, and numbers to four decimals."""
    assert [row["source"] for row in found] == [row["source"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        for name, value in other.items():
            if name.startswith(("p_", "conf", "det")) and value:
                assert float(one[name]) == pytest.approx(float(value), abs=5e-5), (one["source"], name)
            else:
                assert one[name] == value, (one["source"], name)


def held(gate: Path, free: int) -> type[ray_engine.Actor]:
    """The pool's actor, which reads the first `free` files of `many` and the others only once the file `gate` is there:
    however slowly anybody looks, there is work left. Ray sends the class itself, so it names nothing of this module."""

    class Held(ray_engine.Actor):
        def __call__(self, batch: Any) -> dict[str, list[str]]:
            number = int(Path(json.loads(str(batch["source"][0]))).stem)
            while number >= free and not gate.exists():
                time.sleep(0.05)
            return super().__call__(batch)

    return Held


def actors() -> list[psutil.Process]:
    """The reading pool's processes below this one."""
    return [child for child in psutil.Process().children(recursive=True) if title(child).startswith("ray::MapWorker")]


def title(process: psutil.Process) -> str:
    """What the process calls itself, "" when it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_the_rows_of_the_local_engine(ray: Any, tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    seen: list[tuple[int, int]] = []
    here = run(images.in_folder(tree), tmp_path / "here", settings, workers=1)
    there = run(
        images.in_folder(tree),
        tmp_path / "there",
        settings,
        engine=ray_engine.tables,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert_same(table(tmp_path / "there" / "faces.csv"), table(tmp_path / "here" / "faces.csv"))
    assert (there.read, there.no_face, there.failed, there.faces) == (3, 1, 2, 3)
    assert (here.read, here.no_face, here.failed, here.faces) == (3, 1, 2, 3)
    assert seen == [(done, 6) for done in range(7)]


def test_the_current_folder_is_not_on_the_workers_import_path(ray: Any) -> None:
    """A csv.py in a folder of pictures from anywhere would be run."""
    paths = ray.get(ray.remote(num_cpus=0)(lambda: sys.path).remote())
    assert str(Path.cwd()) not in paths and "" not in paths


def test_a_killed_ray_worker_loses_and_repeats_nothing(
    ray: Any, many: Path, tmp_path: Path, settings: worker.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(ray_engine, "Actor", held(tmp_path / "gate", 8))

    def kill(done: int, total: int) -> None:
        if done == 3:
            for process in actors():
                process.kill()
                killed.append(process.pid)
            (tmp_path / "gate").touch()

    summary = run(images.in_folder(many), tmp_path / "out", settings, engine=ray_engine.tables, progress=kill)
    assert killed
    rows = table(tmp_path / "out" / "faces.csv")
    assert [row["source"] for row in rows] == [str(path) for path in images.in_folder(many)]
    assert {row["status"] for row in rows[::3]} == {"error: the file is empty"}
    assert {row["status"] for row in rows[1::3] + rows[2::3]} == {"ok"}
    assert (summary.read, summary.failed) == (SMALL - SMALL // 3, SMALL // 3)


def test_a_killed_driver_takes_its_ray_along_and_the_same_command_goes_on(
    ray: Any,
    many: Path,
    tmp_path: Path,
    settings: worker.Settings,
    capfd: pytest.CaptureFixture[str],
    short_folder: Path,
) -> None:
    """The first run has a Ray of its own; the second, in this process, takes the one that is there."""
    out = tmp_path / "out"
    arguments = ["read", str(many), "-o", str(out), "--model", str(settings.model), "--engine", "ray", "--workers", "1"]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path; from mien import cli, ray_engine; from test_ray import held\n"
        f"ray_engine.Actor = held(Path({str(tmp_path / 'never')!r}), 8)\ncli.main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    variables = os.environ | {"TMPDIR": str(short_folder)}  # what is killed cannot clean up
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=variables) as process:
        until(lambda: len(lines(out / jobs.JOURNAL)) >= 3 or process.poll() is not None)
        at_work = [one for one in psutil.Process(process.pid).children(recursive=True) if not waits_a_minute(one)]
        assert process.poll() is None and len(at_work) > 3
        process.kill()
    assert not psutil.wait_procs(at_work, timeout=WAIT)[1]
    before = lines(out / jobs.JOURNAL)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 1  # files that cannot be read
    assert f"{SMALL - SMALL // 3} read, 0 without a face, {SMALL // 3} failed" in capfd.readouterr().out
    assert 1 < len(before) <= 1 + 8 and lines(out / jobs.JOURNAL)[: len(before) - 1] == before[:-1]
    assert [row["source"] for row in table(out / "faces.csv")] == [str(path) for path in images.in_folder(many)]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for Ray's sockets, which pytest's do not."""
    with tempfile.TemporaryDirectory(prefix="mien-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


def waits_a_minute(process: psutil.Process) -> bool:
    """Whether it is one of Ray's two agents, which ask for a minute whether the cluster comes back, then end."""
    return title(process).startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.is_file() else []


def until(condition: Any) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def test_a_cluster_by_its_address(ray: Any, tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    address = ray.get_runtime_context().gcs_address
    picture, out = tree / "hopper.jpg", tmp_path / "out"
    options = ["--model", str(settings.model), "--engine", "ray", "--address", address, "--format", "jsonl"]
    command = [sys.executable, "-m", "mien", "read", picture.name, "-o", str(out), *options]  # a relative path
    ran = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=WAIT, check=False)
    assert ran.returncode == 0, ran.stderr
    row = json.loads((out / "faces.jsonl").read_text())
    assert (row["source"], row["status"]) == ("hopper.jpg", "ok")
    assert ray.is_initialized() and ray.cluster_resources()["CPU"] == 2  # it was left running


def test_urls_in_and_out(ray: Any, tree: Path, tmp_path: Path, settings: worker.Settings) -> None:
    """A list and a folder by URL, read on Ray into a URL: the rows of the same files by path."""
    (tmp_path / "list.txt").write_text(f"{(tree / 'hopper.jpg').as_uri()}\nabsent.png\n")
    pictures = storage.gather([(tmp_path / "list.txt").as_uri(), f"file://{tree}/b"])
    out = f"file://{tmp_path}/out"
    summary = run(pictures, out, settings, engine=ray_engine.tables, format="parquet")
    assert summary.out == f"{out}/faces.parquet"
    found = parquet_rows(tmp_path / "out" / "faces.parquet")
    statuses = {row["source"].rpartition("/")[2]: row["status"].split(" (")[0] for row in found}
    assert statuses == {
        "hopper.jpg": "ok",
        "absent.png": "error: no such file",
        "blank.png": "no face",
        "broken.jpg": "error: its header cannot be read",
        "z é.png": "ok",
        "\\udcff.jpg": "ok",
    }
    again = run(pictures, out, settings, engine=None, format="parquet")  # nothing is left to read, for either engine
    assert again == summary and parquet_rows(tmp_path / "out" / "faces.parquet") == found


def parquet_rows(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(folder).to_pylist()
    return rows


def test_a_cluster_that_lacks_something_says_what(ray: Any, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of a node's check comes through Ray in mien's own words."""
    monkeypatch.setattr("mien.__version__", "99")
    engine = ray_engine.tables([str(tree / "hopper.jpg")], worker.Settings(), 1)
    with pytest.raises(EngineError, match=r"node \S+ has mien \S+, the driver 99; install the same"):
        list(engine)


def test_nodes_are_checked(tree: Path, settings: worker.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    demands = ray_engine._demands([str(tree / "hopper.jpg")], settings)
    assert demands["folder"] is None  # every path is absolute
    ray_engine._check_node(settings, demands)
    with pytest.raises(EngineError, match=r"SHA-256 \w+, the driver's has other"):
        ray_engine._check_node(settings, demands | {"model": "other"})
    with pytest.raises(EngineError, match="the detector mtcnn is mtcnn, the driver's is yunet:other; put the same"):
        ray_engine._check_node(settings, demands | {"detector": "yunet:other"})
    with pytest.raises(EngineError, match="lacks /no/such/folder; give absolute paths"):
        ray_engine._check_node(settings, demands | {"folder": "/no/such/folder"})
    with pytest.raises(UsageError, match="nosuch:// is not a scheme"):
        ray_engine._check_node(settings, demands | {"protocols": ("nosuch",)})
    monkeypatch.chdir(tree)
    assert ray_engine._demands(["hopper.jpg"], settings)["folder"] == str(tree)


def test_this_machines_ray_listens_to_this_machine_only_and_reports_nothing(ray: Any) -> None:
    listening = [
        connection.laddr.ip
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in connections(process)
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening and {ip.removeprefix("::ffff:") for ip in listening} <= {"127.0.0.1", "::1"}
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()


def connections(process: psutil.Process) -> list[Any]:
    """Of a process; none of one that has ended meanwhile."""
    try:
        return process.net_connections("inet")
    except psutil.NoSuchProcess:
        return []


def test_without_ray_the_extra_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r'pip install "mien\[ray\]"'):
        list(ray_engine.tables([str(tree / "hopper.jpg")], worker.Settings(), 1))


def test_no_import_of_mien_loads_ray() -> None:
    code = (
        "import sys, mien.cli, mien.jobs, mien.ray_engine, mien.storage, mien.parts\n"
        "mien.cli.application()\n"
        "print(sorted({'ray', 'fsspec', 'pyarrow'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT, check=True)
    assert ran.stdout == "[]\n"


def test_what_the_command_line_refuses(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["read", *arguments])
        assert ended.value.code == 2
        return capsys.readouterr().err

    out = ("-o", str(tmp_path / "out"))
    assert "expected one of local, ray" in refused(str(tree), *out, "--engine", "spark")
    assert "add --engine ray" in refused(str(tree), *out, "--address", "head:6379")
    assert "-o s3://bucket/out is a URL: add --engine ray" in refused(str(tree), "-o", "s3://bucket/out")
    assert "name a folder or URL with -o" in refused(str(tree), "--engine", "ray")
    assert "never fetches from the web" in refused("https://example.org/a.jpg", *out, "--engine", "ray")
    assert "nosuch:// is not a scheme that fsspec knows" in refused("nosuch://a/b", *out, "--engine", "ray")
    assert not (tmp_path / "s3:").exists()


# Storage by URL, without Ray


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def read_by_name(left: Sequence[str], settings: worker.Settings, workers: int | None) -> Iterator[Any]:
    """An engine that opens nothing: a face for each name with an `f`, none for others."""
    for source in left:
        empty = dict.fromkeys(tables.COLUMNS)
        face = {"face": 1, "expression": "happy", "status": "ok"} if "f" in source else {"status": "no face"}
        yield source, [{**empty, "source": source, **face}]


def rows_in(system: Any, folder: str) -> list[dict[str, Any]]:
    """The rows of a JSON-lines table in parts."""
    names = sorted(system.ls(folder, detail=False))
    return [json.loads(line) for name in names for line in system.cat_file(name).splitlines()]


def test_a_url_is_a_url_and_a_path_a_path() -> None:
    assert storage.is_url("s3://bucket/a.jpg") and storage.is_url("file:///a.jpg")
    assert not storage.is_url("C:/a.jpg") and not storage.is_url("a/b://c") and not storage.is_url(Path("s3://b/c"))
    assert storage.protocols(["s3://a", "x/y.jpg", "gs://b", "s3://c"]) == ("gs", "s3")


def test_a_mistyped_bucket_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drivers of object stores take making a folder for leave to make its bucket."""
    made: list[str] = []

    class Buckets(MemoryFileSystem):
        protocol = "oss"
        store: dict[str, Any] = {}  # noqa: RUF012 (fsspec's way to share it)
        pseudo_dirs = [""]  # noqa: RUF012

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.removeprefix("oss://").strip("/")

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            made.append(path)

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
            if not path.startswith("/faces/"):
                raise FileNotFoundError("The specified bucket does not exist")
            super().pipe_file(path, value, mode, **kwargs)

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "oss", Buckets)
    storage.Folder("oss://faces/out/journal").write("0.json", b"{}")
    assert storage.Folder("oss://faces/out/journal").names() == ["0.json"]
    with pytest.raises(UsageError, match=r"oss://fcaes/out: cannot be written .*bucket does not exist.*check the URL"):
        storage.Folder("oss://fcaes/out").write("0.json", b"{}")
    assert made == []


def test_folders_and_lists_by_url_are_gathered_in_order(memory: Any, tmp_path: Path, tree: Path) -> None:
    for name in ("b/c/z.jpg", "b/a.png", "z.png", "notes.txt", "a.JPG", "b-1/a.png"):
        memory.pipe_file(f"/in/{name}", b"x")
    names = ["a.JPG", "z.png", "b/a.png", "b/c/z.jpg", "b-1/a.png"]  # as os.walk and sorted folders have it
    assert storage.gather(["memory://in"]) == [f"memory:///in/{name}" for name in names]
    memory.pipe_file("/in/l.csv", b'id,path\n1,"a,b.jpg"\n2,memory://other/c.jpg\n3,/x/y.jpg\n2,memory://other/c.jpg\n')
    assert storage.gather(["memory://in/l.csv"]) == ["memory://in/a,b.jpg", "memory://other/c.jpg", "/x/y.jpg"]
    own = ["=x.jpg", "memory://in/=y.jpg", "sub/é.jpg"]  # of mien's own table, whose paths start where mien ran
    tables.write_csv([tables.failure(name, "") for name in own], tmp_path / "faces.csv")
    memory.pipe_file("/in/faces.csv", (tmp_path / "faces.csv").read_bytes())
    assert storage.gather(["memory://in/faces.csv"]) == storage.gather([str(tmp_path / "faces.csv")]) == own
    (tmp_path / "l.txt").write_text("memory://in/z.png\nd.jpg\n")
    assert storage.gather([str(tmp_path / "l.txt")]) == ["memory://in/z.png", str(tmp_path / "d.jpg")]
    assert storage.gather([str(tree)]) == [str(path) for path in images.in_folder(tree)]
    assert storage.gather(["memory://in/single"]) == ["memory://in/single"]


def test_a_folder_by_url_is_walked_as_by_path(tree: Path) -> None:
    by_url = storage.gather([f"file://{tree}"])
    assert [url.removeprefix("file://") for url in by_url] == [str(path) for path in images.in_folder(tree)]


def test_what_mien_drew_is_left_out_by_url_as_by_path(tmp_path: Path, hopper: np.ndarray) -> None:
    """The copies of a job, those beside a table, and none of somebody's own of such names."""
    for folder, first in (("job", b'{"annotated": true}\n'), ("own", b'{"other": 1}\n{"annotated": true}\n')):
        (tmp_path / folder / "annotated").mkdir(parents=True)
        (tmp_path / folder / "journal.jsonl").write_bytes(first)
        (tmp_path / folder / "annotated" / "a.jpg").write_bytes(b"x")
    draw.save(Image.fromarray(hopper), tmp_path / "job" / "b-mien.jpg")
    (tmp_path / "own" / "b-mien.jpg").write_bytes(b"x")
    (tmp_path / "own" / "c-mien.png").touch()
    by_url = storage.gather([tmp_path.as_uri()])
    assert [url.removeprefix("file://") for url in by_url] == [str(path) for path in images.in_folder(tmp_path)]
    names = [Path(url).relative_to(tmp_path.as_uri()).as_posix() for url in by_url]
    assert names == ["own/b-mien.jpg", "own/c-mien.png", "own/annotated/a.jpg"]


def test_what_cannot_be_gathered_says_why(memory: Any, tmp_path: Path) -> None:
    memory.pipe_file("/in/notes.md", b"x")
    with pytest.raises(UsageError, match="no pictures there; expected files ending in"):
        storage.gather(["memory://in"])
    with pytest.raises(UsageError, match=r"memory://in/l.txt: the list cannot be opened"):
        storage.gather(["memory://in/l.txt"])
    (tmp_path / "l.txt").write_text("https://example.org/a.jpg\n")
    with pytest.raises(UsageError, match="never fetches from the web"):
        storage.gather([str(tmp_path / "l.txt")])


@pytest.mark.parametrize(
    "chain", ["zip://a.jpg::http://h/x.zip", "zip://a::simplecache::https://h/x.zip", "HTTP://h/a.jpg"]
)
def test_a_chain_does_not_lead_to_the_web(chain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*arguments: object, **options: object) -> None:
        raise AssertionError("it was asked")

    monkeypatch.setattr(fsspec.core, "url_to_fs", reached)
    for use in (storage.open_picture, storage.Folder, lambda url: storage.gather([url])):
        with pytest.raises(UsageError, match="never fetches from the web"):
            use(chain)
    assert storage.protocols([chain])[0].startswith(("http", "HTTP", "https"))
    with pytest.raises(UsageError, match="never fetches from the web"):  # as each node is asked
        storage.check_protocols(storage.protocols([chain]))


def test_a_chain_within_storage_is_read(memory: Any, tmp_path: Path, tree: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tree / "hopper.jpg", "a.jpg")
    memory.pipe_file("/in/x.zip", (tmp_path / "x.zip").read_bytes())
    for chain in (f"zip://a.jpg::{tmp_path}/x.zip", "zip://a.jpg::memory://in/x.zip"):
        assert storage.gather([chain]) == [chain]
        assert storage.open_picture(chain).read() == (tree / "hopper.jpg").read_bytes()


def test_pictures_by_url_fail_as_files_do(memory: Any, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^memory://in/absent.jpg: no such file$"):
        storage.open_picture("memory://in/absent.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=r"^file:///.*pipe.jpg: not a regular file$"):
        storage.open_picture((tmp_path / "pipe.jpg").as_uri())
    memory.pipe_file("/in/empty.jpg", b"")
    with pytest.raises(ImageError, match=r"^memory://in/empty.jpg: the file is empty$"):
        images.load(storage.open_picture("memory://in/empty.jpg"))


@pytest.mark.parametrize("format", tables.FORMATS)
def test_parts_hold_the_rows_of_a_table(memory: Any, tmp_path: Path, settings: worker.Settings, format: str) -> None:
    pictures = [f"memory://in/{name}.jpg" for name in ("face", "none", "off")]
    run(pictures, tmp_path / "out", settings, engine=read_by_name, format=format)
    summary = run(pictures, "memory://out", settings, engine=read_by_name, format=format)
    part = memory.cat_file(f"/out/faces.{format}/part-000000.{format}")
    (tmp_path / f"part.{format}").write_bytes(part)
    if format == "parquet":
        assert parquet_rows(tmp_path / "part.parquet") == parquet_rows(tmp_path / "out" / "faces.parquet")
    else:
        assert part == (tmp_path / "out" / f"faces.{format}").read_bytes()
    assert summary == jobs.Summary(2, 1, 0, 2, f"memory://out/faces.{format}")


def test_every_torn_state_at_a_url_is_taken_up(
    memory: Any, settings: worker.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal cut anywhere, a part too many, one too few: the same table comes out, and only what is lost is read."""
    monkeypatch.setattr(parts.PartSink, "ROWS", 2)
    pictures = [f"memory://in/f{number}.jpg" for number in range(7)]
    start = partial(run, pictures, "memory://out", settings, engine=read_by_name, format="jsonl")
    summary = start()
    whole, journal = rows_in(memory, "/out/faces.jsonl"), sorted(memory.ls("/out/journal", detail=False))
    assert [row["source"] for row in whole] == pictures and len(journal) == 5
    monkeypatch.setattr(parts.PartSink, "ROWS", 3)
    kept = {name: memory.cat_file(name) for name in [*journal, *memory.ls("/out/faces.jsonl", detail=False)]}
    torn = [*kept[journal[3]][:9].splitlines(), b"", b"\xff"]
    for keep, tail in [(1, None), (3, torn[0]), (4, torn[1]), (2, torn[2]), (5, None)]:
        for name in journal[keep:]:
            memory.rm_file(name)
        if tail is not None:
            memory.pipe_file(journal[keep], tail)
        assert start() == summary
        assert rows_in(memory, "/out/faces.jsonl") == whole, (keep, tail)
        for name in [*memory.ls("/out/journal", detail=False), *memory.ls("/out/faces.jsonl", detail=False)]:
            memory.rm_file(name)
        for name, data in kept.items():
            memory.pipe_file(name, data)
    memory.rm_file("/out/faces.jsonl/part-000001.jsonl")
    assert start() == summary and rows_in(memory, "/out/faces.jsonl") == whole
    for name in memory.ls("/out/journal", detail=False):
        memory.rm_file(name)
    with pytest.raises(UsageError, match=r"faces\.jsonl is there already, and no job at a URL wrote it"):
        start()
    assert rows_in(memory, "/out/faces.jsonl") == whole


def test_a_url_that_holds_something_else_is_refused(memory: Any, settings: worker.Settings) -> None:
    pictures = ["memory://in/f.jpg"]
    run(pictures, "memory://out", settings, engine=read_by_name)
    with pytest.raises(UsageError, match=r"another job \(format was 'csv', now 'jsonl'\)"):
        run(pictures, "memory://out", settings, engine=read_by_name, format="jsonl")
    for entry, content in (("000001", b"{}"), ("000000", b"[]")):
        memory.pipe_file(f"/out/journal/{entry}.json", content)
        with pytest.raises(UsageError, match="not a journal that mien wrote"):
            run(pictures, "memory://out", settings, engine=read_by_name)


@pytest.mark.parametrize("format", tables.FORMATS)
def test_another_table_in_the_tables_place_at_a_url_is_refused(
    memory: Any, settings: worker.Settings, format: str
) -> None:
    start = partial(run, ["memory://in/f.jpg"], "memory://out", settings, engine=read_by_name, format=format)
    part, summary = f"/out/faces.{format}/part-000000.{format}", start()
    whole, entries = memory.cat_file(part), memory.ls("/out/journal", detail=False)
    memory.pipe_file(part, whole[:-9] + b"x" + whole[-8:])
    with pytest.raises(UsageError, match=rf"out/faces\.{format} is no longer the table that the job there wrote"):
        start()
    assert memory.ls("/out/journal", detail=False) == entries
    memory.pipe_file(part, whole)
    assert start() == summary
    entry = json.loads(memory.cat_file(entries[1]))
    del entry["check"]  # as an earlier mien wrote it
    memory.pipe_file(entries[1], json.dumps(entry).encode())
    assert start() == summary


@pytest.mark.parametrize("name", ["out[1]", "o*1"])
def test_a_folder_at_a_url_is_no_pattern(tmp_path: Path, settings: worker.Settings, name: str) -> None:
    """Also beside one that would fit it."""
    start = partial(run, ["memory://in/f.jpg"], settings=settings, engine=read_by_name)
    assert start(out=f"file://{tmp_path}/out1", settings=replace(settings, abstain_below=0.5)).read == 1
    for _ in range(2):
        assert start(out=f"file://{tmp_path}/{name}").read == 1


def test_a_second_job_at_a_url_is_noticed(memory: Any, settings: worker.Settings) -> None:
    first = parts.PartJournal("memory://out", {"format": "csv"})
    second = parts.PartJournal("memory://out", {"format": "csv"})
    first.commit([jobs.Outcome("a", "ok", 1)], 0)
    with pytest.raises(UsageError, match="another mien is writing here"):
        second.commit([jobs.Outcome("b", "ok", 1)], 0)


@pytest.mark.parametrize("kept", [0, 9, None])
def test_an_entry_whose_writing_fails_is_nobody_elses(
    memory: Any, settings: worker.Settings, monkeypatch: pytest.MonkeyPatch, kept: int | None
) -> None:
    """On a full disk, or by Ctrl-C, which may come when all is written."""
    write, failed = storage.Folder.write, []

    def fail(folder: storage.Folder, name: str, data: bytes) -> None:
        if name == "000001.json" and len(failed) < 2:
            failed.append(name)
            write(folder, name, data[:kept])
            raise UsageError("no space")
        write(folder, name, data)

    monkeypatch.setattr(storage.Folder, "write", fail)
    monkeypatch.setattr(parts.PartSink, "ROWS", 1)
    pictures = ["memory://in/f.jpg"]
    with pytest.raises(UsageError, match="no space"):
        run(pictures, "memory://out", settings, engine=read_by_name, format="jsonl")
    assert run(pictures, "memory://out", settings, engine=read_by_name, format="jsonl").read == 1
    assert len(rows_in(memory, "/out/faces.jsonl")) == 1


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(protocol: str) -> None:
        raise ImportError(f"Install {protocol}fs to access {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    with pytest.raises(UsageError, match="s3:// needs its driver: Install s3fs"):
        storage.gather(["s3://bucket/a.jpg"])
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r'pip install "mien\[ray\]"'):
        storage.gather(["s3://bucket/a.jpg"])
