"""SFEW 2.0 (Dhall et al., EmotiW 2015): film stills with seven expressions; the papers report on `valid`.

Layout: ``Train/Train_Aligned_Faces/<Class>/*.png``, ``Val/Val_Aligned_Faces/...`` (or ``..._new``), 143x181 px, or the
same classes directly in ``Train`` and ``Val``. Some stills have no aligned face, so fewer aligned files than stills are
no error. The test set's labels were never published. Folders are read by name: their alphabetical order is not the
canonical one.
"""

from collections.abc import Mapping
from pathlib import Path

from mien.errors import DataError
from mien.expressions import BASIC
from mien.lab.datasets.dataset import AbsentSplitError, FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset
from mien.lab.datasets.folder import pictures_of_classes
from mien.lab.datasets.official import Official, checked

_WHERE = {
    "train": ("Train/Train_Aligned_Faces", "Train/Train_Aligned_Faces_new", "Train"),
    "valid": ("Val/Val_Aligned_Faces_new", "Val/Val_Aligned_Faces", "Val"),
}
_STILLS = "Dhall et al., EmotiW 2015: 958 and 436 stills; aligned faces may be fewer"
OFFICIAL: Mapping[str, Official] = {
    "train": Official(
        "train",
        {"anger": 178, "disgust": 66, "fear": 98, "happy": 198, "neutral": 150, "sad": 172, "surprise": 96},
        _STILLS,
        at_most=True,
    ),
    "valid": Official(
        "valid",
        {"anger": 77, "disgust": 23, "fear": 47, "happy": 73, "neutral": 86, "sad": 73, "surprise": 57},
        _STILLS,
        at_most=True,
    ),
}


def load(root: Path, *, split: str, allow_partial: bool = False) -> FaceDataset:
    """One split ("train" or "valid"), seven classes in canonical order. Groups: film (the still's name up to its time).

    Raises DataError when the folders are not there, a folder's name is no expression, or a class holds more faces than
    there are stills or none (not with `allow_partial`).
    """
    if split not in _WHERE:
        raise DataError(
            f"sfew has no labelled split {split!r}: its test labels were never published; "
            "papers report on --split valid"
        )
    base = next((root / place for place in _WHERE[split] if (root / place).is_dir()), None)
    if base is None:
        raise AbsentSplitError(
            f"{root}: none of {', '.join(_WHERE[split])}; pass --root the folder that holds Train and Val"
        )
    data = dataset(
        _listing(root, base), name="sfew", split=split, label_rule="sfew", classes=BASIC, allow_partial=allow_partial
    )
    return checked(data, OFFICIAL[split], where=base, allow_partial=allow_partial)


def _listing(root: Path, base: Path) -> Listing:
    names, labels = pictures_of_classes(root, base, BASIC)
    films = tuple(Path(name).stem.split("_")[0] for name in names)
    return Listing(FaceFiles(str(root), names), labels, {"film": films})
