"""What a wheel holds, and that the generated parts of the documents are fresh."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

import mien
from mien.faces import mtcnn, yunet
from mien.faces.weights import Wheel

ROOT = Path(__file__).resolve().parents[1]


def built(what: str, folder: Path) -> Path:
    """The file that `python -m build` makes of a copy of the project without what earlier builds and runs left there."""
    everywhere = shutil.ignore_patterns(".*_cache", ".hypothesis", "*.egg-info", "__pycache__")
    left = {str(ROOT): {".git", ".venv", "build", "dist", "out", "runs"}}  # benchmarks/runs is the project's
    tree = shutil.copytree(
        ROOT, folder / "tree", ignore=lambda place, names: everywhere(place, names) | left.get(place, set())
    )
    command = [sys.executable, "-m", "build", f"--{what}", "--no-isolation", "--outdir", str(folder), str(tree)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("mien-*"))


@pytest.mark.slow
def test_the_wheel_holds_the_model_its_card_and_the_page_and_no_tests_or_data(tmp_path: Path) -> None:
    names = zipfile.ZipFile(built("wheel", tmp_path)).namelist()
    assert sum(name.endswith(".onnx") for name in names) == 1
    assert "mien/models/MODEL_CARD.md" in names
    assert "mien/py.typed" in names
    assert {"LICENSE", "NOTICE"} <= {name.rpartition("/")[2] for name in names if ".dist-info/licenses/" in name}
    page = {f"mien/web/{path.name}" for path in (ROOT / "src/mien/web").iterdir() if path.is_file()}
    assert page <= set(names) and {".html", ".css", ".js"} <= {Path(name).suffix for name in page}
    strange = [n for n in names if not n.startswith(("mien/", "mien-"))]
    strange += [n for n in names if n.endswith((".csv", ".png", ".jpg", ".xz", ".npz")) or "test" in n.lower()]
    assert strange == []


@pytest.mark.slow
def test_the_source_distribution_holds_the_whole_project(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as archive:
        held = {member.name.partition("/")[2] for member in archive if member.isfile()}
    tree = tmp_path / "tree"
    missing = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()} - held
    assert {name for name in missing if ".egg-info/" not in name} == set()


def test_the_version_is_told_once() -> None:
    """And the citation file, which cannot ask for it, tells the same."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["dynamic"] == ["version"]
    assert importlib.metadata.version("mien") == mien.__version__
    assert f"\nversion: {mien.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("wheel", [mtcnn.WHEEL, yunet.WHEEL], ids=lambda wheel: wheel.distribution)
def test_the_wheels_whose_files_are_read_are_pinned_alike_everywhere(wheel: Wheel) -> None:
    pinned = f"{wheel.distribution}=={wheel.version}"
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = project["optional-dependencies"].values()
    named = [one for one in chain(project["dependencies"], *extras) if one.startswith(wheel.distribution)]
    assert named == [pinned]
    elsewhere = (ROOT / "Makefile").read_text() + (ROOT / "constraints.txt").read_text()
    assert set(re.findall(rf"{wheel.distribution}==\S+", elsewhere)) == {pinned}


def test_the_documents_generated_tables_are_fresh() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import documents
    finally:
        sys.path.pop(0)
    for document in documents.DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert "<!-- begin" in text
        assert text == documents.filled(text), f"{document.name} is stale: run python benchmarks/documents.py"


def test_the_documents_name_no_folder_of_their_writer() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/results/*.json")]:
        text = document.read_text(encoding="utf-8")
        assert "/root/" not in text, document
        assert "/home/" not in text, document
