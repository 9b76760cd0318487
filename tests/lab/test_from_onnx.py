"""A network from the bundled int8 file: it is the file's, in training mode too."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from mien import cli
from mien.classifier import Classifier
from mien.errors import ModelError
from mien.expressions import EXPRESSIONS
from mien.lab.datasets import synthetic
from mien.lab.networks import Shape
from mien.lab.networks.from_onnx import weights_of
from mien.lab.networks.mien_small import MienSmall
from mien.lab.networks.network import Network
from mien.lab.networks.pretrained import load_pretrained
from mien.lab.protocol import file_sha256
from mien.lab.training import runs

BUNDLED = Path(str(files("mien.models") / "mien-small.onnx"))
pytestmark = pytest.mark.slow  # the whole network, and a training of it

INT8 = 0.25  # what int8 activations change on drawn faces; a random start is 0.5 away and more
DEPTHS = (1, 3, 4, 3)
SHAPE = Shape(channels=1, classes=len(EXPRESSIONS), size=48)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """(256, 1, 48, 48) float32, prepared: drawn faces."""
    data = synthetic.load(split="valid", spec=synthetic.Spec(rows=(8, 256, 8)))
    return Classifier(BUNDLED).card.input.prepare([data.read(row) for row in range(256)])


@pytest.fixture(scope="module")
def started(faces: np.ndarray) -> Network:
    torch.manual_seed(0)
    network = MienSmall(depths=DEPTHS, dropout=0.0).build(SHAPE)
    transfer = load_pretrained(network, BUNDLED, [torch.from_numpy(faces)], head=True)
    assert transfer.missing == () and transfer.unused == ()
    return network


def gap(network: Network, faces: np.ndarray) -> float:
    """Mean over faces of the distance from the features of the file's first view, as a share of them."""
    theirs = torch.from_numpy(Classifier(BUNDLED).run(faces).features[:, : network.feature_dim])
    with torch.no_grad():
        ours = network(torch.from_numpy(faces)).features
    return float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).mean())


def test_the_network_sees_as_the_file(started: Network, faces: np.ndarray) -> None:
    assert gap(started.eval(), faces) < INT8


def test_its_heads_are_the_files(started: Network) -> None:
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(BUNDLED).graph.initializer}
    state = started.state_dict()
    for name in ("head.weight", "head.bias", "head_fer2013.weight", "head_fer2013.bias"):
        assert np.array_equal(state[name].numpy(), held[f"network.{name}"])


def test_training_mode_starts_from_the_same_function(started: Network, faces: np.ndarray) -> None:
    with torch.no_grad():
        trained, asked = (started.train(mode)(torch.from_numpy(faces)).features for mode in (True, False))
    assert float(((trained - asked).norm(dim=1) / asked.norm(dim=1)).mean()) < 0.01


def test_the_start_is_not_the_random_one(faces: np.ndarray) -> None:
    torch.manual_seed(0)
    assert gap(MienSmall(depths=DEPTHS, dropout=0.0).build(SHAPE).eval(), faces) > 0.5


def test_own_faces_go_on_from_the_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The README's command, on drawn faces in folders."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    for split in ("train", "valid"):
        data = synthetic.load(split=split, spec=synthetic.Spec(rows=(64, 32, 8)))
        for row in range(len(data)):
            path = tmp_path / "faces" / split / data.classes[data.labels[row]] / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data.read(row)).save(path)
    words = ["train", "mien-small", "--data", "folder", "--root", str(tmp_path / "faces"), "-o", str(tmp_path / "run")]
    words += ["--pretrained", str(BUNDLED), "--loss", "softmax", "--set", "network.second_head=False"]
    words += ["--set", f"network.depths={DEPTHS}"]
    words += ["--set", "epochs=1", "--set", "batch=32", "--set", "sizes=()", "--threads", "1"]
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    told = capsys.readouterr()
    assert not ended.value.code, told.err
    # 11 convolutions' weights, their norms' four tensors and the head's two: the eight classes are the file's. The second head,
    # which this network lacks, is not used
    assert "pretrained: 57 tensors matched, 2 of the file unused, 0 of the network" in told.out
    facts = runs.read(tmp_path / "run")
    assert facts["pretrained"]["sha256"] == file_sha256(BUNDLED)


def test_another_width_is_refused_and_left_alone(faces: np.ndarray) -> None:
    network = MienSmall(widths=(8, 16, 32, 64), depths=DEPTHS).build(SHAPE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ModelError, match="tensors match this network"):
        load_pretrained(network, BUNDLED, [torch.from_numpy(faces)])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("depths", "message"),
    [((1, 2, 2, 2), r"stages have \(1, 3, 4, 3\)"), ((1, 3, 4, 4), r"mien-small\.onnx: holds a shallower network")],
)
def test_another_depth_is_refused(depths: tuple[int, ...], message: str, faces: np.ndarray) -> None:
    network = MienSmall(depths=depths).build(SHAPE)
    with pytest.raises(ModelError, match=message):
        load_pretrained(network, BUNDLED, [torch.from_numpy(faces)])


def test_no_picture_to_measure_the_norms_on_is_said() -> None:
    with pytest.raises(ModelError, match="measured on pictures, and none were given"):
        load_pretrained(MienSmall(depths=DEPTHS).build(SHAPE), BUNDLED)


def test_a_file_that_is_no_graph_is_named(tmp_path: Path, faces: np.ndarray) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    with pytest.raises(ModelError, match=r"text\.onnx: not an ONNX file"):
        weights_of(MienSmall().build(SHAPE), path, [torch.from_numpy(faces)])
