"""What importing and reading may load: no torch, and nothing heavy before it is needed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

HEAVY = ("torch", "matplotlib", "pandas", "av", "sklearn", "onnxruntime", "PIL", "kornia", "pytorch_lightning", "onnx")
BLOCK = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "pytorch_lightning", "kornia", "torchvision"):
            raise ImportError(f"{name} is blocked by the test")
sys.meta_path.insert(0, NoTorch())
"""


def python(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def loaded_by(code: str) -> set[str]:
    names = python(f"{code}\nimport sys, json; print(json.dumps([n.split('.')[0] for n in sys.modules]))")
    return set(json.loads(names)) & set(HEAVY)


def test_import_mien_is_light() -> None:
    assert loaded_by("import mien") == set()


def test_reading_loads_only_what_it_needs() -> None:
    assert loaded_by("from mien import read, Reader, Reading, Face") == {"onnxruntime", "PIL"}
    assert "torch" not in loaded_by("import mien.cli; mien.cli.application()")
    assert not loaded_by("import mien.lab.datasets, mien.lab.evaluation") & {"torch", "kornia", "pytorch_lightning"}


def test_import_takes_much_less_time_than_numpys() -> None:
    def seconds(code: str) -> float:  # of the processor, which a slow or busy machine stretches for both alike
        return min(float(python(f"import time; {code}; print(time.process_time())")) for _ in range(4))

    assert 1.5 * seconds("import mien; mien.EXPRESSIONS") < seconds("import numpy")


def test_reads_where_torch_cannot_be_imported(tiny_model: Path, hopper: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "hopper.npy", hopper)
    code = BLOCK + (
        "import mien, numpy\n"
        "reading = mien.read(numpy.load(sys.argv[1]), model=sys.argv[2])\n"
        "assert len(reading) == 1, reading\n"
        "import mien.lab.datasets, mien.lab.evaluation\n"
        "try:\n    import torch\nexcept ImportError:\n    print('read without torch')\n"
    )
    assert python(code, str(tmp_path / "hopper.npy"), str(tiny_model)) == "read without torch\n"


def test_the_public_page() -> None:
    import mien

    names = ["EXPRESSIONS", "Face", "Reader", "Reading", "UnreadableFile", "read", "read_folder", "read_video"]
    assert sorted(mien.__all__) == names
    for name in mien.__all__:
        assert getattr(mien, name) is not None and name in dir(mien)
    try:
        mien.nonsense  # noqa: B018
    except AttributeError as error:
        assert "nonsense" in str(error)
    else:
        raise AssertionError("mien.nonsense exists")
