"""benchmarks/peers.py: that it judges an answer by the face's place, and what it says of an installation and of mien.
benchmarks/peers_accuracy.py: that every face and word finds its place."""

import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import peers

    return peers


def test_mien_in_a_process_of_its_own(peers, tiny_model: Path, tmp_path: Path) -> None:
    frames = peers.compose(tmp_path, 0.3)
    command = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--as", "mien"]
    peer = peers.Peer("mien", command, {"model": str(tiny_model)}, 5_400_000)
    row = peers.summary(peer, [peer.run(frames, tmp_path)], frames)
    assert row["found_alone"] == row["found_in_video"] == 1
    assert row["install_mb"] == 5 and 30 < row["peak_mb"] < 1000
    assert row["ms_per_picture"] > 0 and row["frames_per_second"] > 0 and row["first_answer_s"] > 0


def test_an_answer_elsewhere_is_not_found(peers) -> None:
    frames = peers.Frames("", 100, 100, 30, [[10, 10, 50, 50]] * 4)
    boxes = [[12, 8, 52, 48], [60, 60, 90, 90], None, [-100, -100, 160, 160]]
    run = {
        way: {"seconds": [0.5, 0.5, 0.5, 0.1], "boxes": boxes} for way in ("alone", "video")
    } | {"peak_bytes": 2e6, "first_answer_s": 0.5}  # fmt: skip
    row = peers.summary(peers.Peer("it", [], {}, None), [run], frames)
    assert row["found_alone"] == 0.25 and row["install_mb"] is None
    assert row["ms_per_picture"] == 100 and row["frames_per_second"] == 10  # the first three frames warm up


def test_a_peer_that_fails_is_named(peers, tmp_path: Path) -> None:
    frames = peers.Frames("", 1, 1, 30, [])
    with pytest.raises(SystemExit, match=r"it ended with 3"):
        peers.Peer("it", [sys.executable, "-c", "raise SystemExit(3)"], {}, None).run(frames, tmp_path)


def test_caches_are_no_part_of_an_installation(peers, tmp_path: Path) -> None:
    (tmp_path / "a" / "__pycache__").mkdir(parents=True)
    (tmp_path / "a" / "b.py").write_bytes(bytes(70))
    (tmp_path / "a" / "__pycache__" / "b.pyc").write_bytes(bytes(900))
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b.py")
    assert peers.tree_size(tmp_path) == 70


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import peers_accuracy

    return peers_accuracy


ECHO = """
import sys, numpy as np
faces = np.fromfile(sys.argv[1], np.uint8).reshape(-1, 48, 48)
np.stack([faces[:, 0, column] for column in range(7)], axis=1).astype(np.float32).tofile(sys.argv[2])
"""  # a peer whose seven scores are the first seven pixels


def test_a_peers_scores_come_back_row_by_row(accuracy) -> None:
    faces = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    scores = accuracy.asked("it", [sys.executable, "-c", ECHO], faces)
    assert np.array_equal(scores, faces[:, 0, :7])
    with pytest.raises(SystemExit, match=r"it ended with 3"):
        accuracy.asked("it", [sys.executable, "-c", "raise SystemExit(3)"], faces)


def test_words_go_to_their_classes_and_contempt_to_none(accuracy) -> None:
    scores = np.arange(1, 8, dtype=np.float32)[None]
    rows = accuracy.worded(scores, ("neutral", "happy", "contempt", "anger"))
    assert np.allclose(rows, np.array([[7, 4, 0, 1]]) / 12)
