"""What protocols say of the program: its commit and not another project's, its command and no one's folders."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mien.lab import protocol


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_of_miens_own_checkout_only(tmp_path: Path) -> None:
    """Installed in a virtual environment inside somebody's checkout, mien has none."""

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=tmp_path, check=True)

    installed = tmp_path / "mien" / "protocol.py"
    installed.parent.mkdir()
    installed.write_bytes(Path(protocol.__file__).read_bytes())
    spec = importlib.util.spec_from_file_location("installed", installed)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "somebody's own")
    assert module.commit() == "unknown"
    git("add", "mien/protocol.py")
    git("commit", "--quiet", "-m", "mien's")
    assert len(module.commit()) == 12
    installed.write_bytes(installed.read_bytes() + b"\n")
    assert module.commit().endswith("-dirty")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("/usr/bin/mien", "train", "mscar", "-o", "/home/a/runs/x"), "mien train mscar -o runs/x"),
        (("/venv/mien/__main__.py", "read", "a.jpg"), "mien read a.jpg"),
        (("/venv/pytest/__main__.py", "read"), "__main__.py read"),
        (("examples/train.py", "/home/a/ex"), "train.py a/ex"),
        (("",), "python"),
        (("mien", "--root=/home/a/b/c", "-o/home/a/b"), "mien --root=b/c -oa/b"),
        (("mien", "--pretrained", "VGGFace2=/home/a/b.pth"), "mien --pretrained VGGFace2=a/b.pth"),
        (("mien", "/home/a/b=c/d.jpg"), "mien b=c/d.jpg"),
        (("mien", "--set", "network.depths=(1,3)", "--rows", "a|b"), "mien --set 'network.depths=(1,3)' --rows 'a|b'"),
        (("mien", "a/b/c", "-o", "../x", "--lr=-/"), "mien a/b/c -o ../x --lr=-/"),
    ],
)
def test_the_command_can_be_typed_again_and_names_no_folders(
    words: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", list(words))
    assert protocol.command_line() == told
