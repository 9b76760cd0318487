"""AffectNet (Mollahosseini, Hasani and Mahoor, 2017): the eight expressions, labelled by hand, in two releases.

- The full release: ``Manually_Annotated_file_lists/training.csv`` and ``validation.csv`` (the latter often without its
  header row), pictures in ``Manually_Annotated_Images/<n>/<hash>.jpg``, from which the given face box is cut. Codes 8
  (none), 9 (uncertain) and 10 (no face) are no expressions; their rows are left out.
- The 8-label release of 2021: ``train_set`` and ``val_set``, each with ``images/<id>.jpg`` (224x224) and
  ``annotations/<id>_exp.npy``, whose one value may be a string.

The test set was never published: papers report on `valid` (protocol "official"), or draw their own (protocol "wcl":
500 + 500 per class out of everything, as WCL divides it).
"""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mien.errors import DataError
from mien.expressions import AFFECTNET, EXPRESSIONS, canonical
from mien.lab.datasets.dataset import SPLITS, AbsentSplitError, FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset, numbers_of
from mien.lab.datasets.official import Official, checked

RULES: Mapping[str, int] = {"8-class": 8, "7-class": 7}  # the second leaves contempt out, as Ad-Corre does
PROTOCOLS: tuple[str, ...] = ("official", "wcl")
DRAWN = 500  # per class, for valid and again for test, under "wcl"
SEED = 0
_COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks",
    "expression", "valence", "arousal",
)  # fmt: skip
_CSV = {"train": "training.csv", "valid": "validation.csv"}
_NPY = {"train": "train_set", "valid": "val_set"}
_LISTS = ("Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_file_lists", ".")
_PICTURES = (
    "Manually_Annotated_Images",
    "Manually_Annotated/Manually_Annotated_Images",
    "Manually_Annotated_compressed",
)
_OTHER_CODES = range(8, 11)  # none, uncertain, no face

# Canonical order. Mollahosseini et al. 2017, Table 4, less the validation rows; sums to 287,651.
TRAIN = dict(zip(EXPRESSIONS, (74_874, 134_415, 25_459, 14_090, 6_378, 3_803, 24_882, 3_750), strict=True))
VALID = dict.fromkeys(EXPRESSIONS, 500)
VALID_2021 = VALID | {"contempt": 499}  # the 2021 release holds 3,999 validation faces, 3,500 of them in seven classes


def official(root: Path, *, split: str, label_rule: str, protocol: str) -> Official:
    """The counts of a split, which depend on the release that lies in `root`."""
    valid = VALID_2021 if _is_2021(root) else VALID
    counts = dict({"train": TRAIN, "valid": valid}.get(split, VALID))
    if protocol == "wcl":
        drawn = dict.fromkeys(EXPRESSIONS, DRAWN)
        rest = {name: TRAIN[name] + valid[name] - 2 * DRAWN for name in EXPRESSIONS}
        counts = rest if split == "train" else drawn
    kept = {name: counts[name] for name in EXPRESSIONS[: RULES[label_rule]]}
    return Official(split, kept, "AffectNet's paper, Table 4" if protocol == "official" else "WCL's paper")


def load(
    root: Path, *, split: str, label_rule: str | None = None, protocol: str | None = None, allow_partial: bool = False
) -> FaceDataset:
    """One split under a rule ("8-class", "7-class") and a protocol ("official": train, valid; "wcl": train, valid,
    test).

    Raises DataError when neither release is found, a row cannot be understood, pictures are missing, or the counts per
    class are not the official ones (the last two not with `allow_partial`).
    """
    rule, protocol = label_rule or "8-class", protocol or "official"
    _check(split, rule, protocol)
    classes = EXPRESSIONS[: RULES[rule]]
    listing = _pooled(root, split, allow_partial) if protocol == "wcl" else _listing(root, split)
    listing = listing.rows(np.flatnonzero(listing.labels < len(classes)))
    data = dataset(
        listing,
        name="affectnet",
        split=split,
        label_rule=rule,
        classes=classes,
        allow_partial=allow_partial,
        note=f"protocol {protocol}" + (f", drawn with seed {SEED}" if protocol == "wcl" else ""),
    )
    counts = official(root, split=split, label_rule=rule, protocol=protocol)
    return checked(data, counts, where=root, allow_partial=allow_partial)


def _check(split: str, rule: str, protocol: str) -> None:
    if rule not in RULES:
        raise DataError(f"affectnet has no label rule {rule!r}: expected one of {', '.join(RULES)}")
    if protocol not in PROTOCOLS:
        raise DataError(f"affectnet has no protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if split not in SPLITS:
        raise DataError(f"affectnet has no split {split!r}: expected one of {', '.join(SPLITS)}")
    if split == "test" and protocol == "official":
        raise DataError(
            "affectnet's test set was never published: papers report on --split valid, or use --protocol wcl"
        )


def _is_2021(root: Path) -> bool:
    return any((root / folder).is_dir() for folder in _NPY.values())


def _pooled(root: Path, split: str, allow_partial: bool) -> Listing:
    """WCL's split: both official parts together; per class 500 rows drawn for valid, 500 for test, the rest for train.
    With `allow_partial`, a class with too few rows gives a quarter of them to valid and to test."""
    pool = _joined(_listing(root, "train"), _listing(root, "valid"))
    random = np.random.default_rng(SEED)
    chosen = []
    for label in range(len(EXPRESSIONS)):
        rows = random.permutation(np.flatnonzero(pool.labels == label))
        if len(rows) <= 2 * DRAWN and not allow_partial:
            raise DataError(
                f"{root}: {len(rows):,} rows of {EXPRESSIONS[label]}; --protocol wcl needs more than {2 * DRAWN:,}"
            )
        drawn = DRAWN if len(rows) > 2 * DRAWN else len(rows) // 4
        chosen.append({"valid": rows[:drawn], "test": rows[drawn : 2 * drawn], "train": rows[2 * drawn :]}[split])
    return pool.rows(np.sort(np.concatenate(chosen)))


def _joined(first: Listing, second: Listing) -> Listing:
    boxes = [part.files.boxes for part in (first, second)]
    together = None if boxes[0] is None or boxes[1] is None else np.concatenate([boxes[0], boxes[1]])
    files = FaceFiles(first.files.folder, first.files.names + second.files.names, together)
    return Listing(files, np.concatenate([first.labels, second.labels]))


def _listing(root: Path, split: str) -> Listing:
    """The rows with one of the eight expressions, of whichever release lies in `root`."""
    if _is_2021(root):
        return _from_npy(root, _NPY[split])
    file = next((root / folder / _CSV[split] for folder in _LISTS if (root / folder / _CSV[split]).is_file()), None)
    if file is None:
        raise AbsentSplitError(
            f"{root}: neither {_NPY[split]}/ (the release of 2021) nor {_LISTS[0]}/{_CSV[split]} (the full one); "
            "pass --root the folder that holds them"
        )
    pictures = next((folder for folder in _PICTURES if (root / folder).is_dir()), _PICTURES[0])
    rows = list(_csv_rows(file))
    files = FaceFiles(
        str(root), tuple(f"{pictures}/{name}" for name, _, _ in rows), _boxes([box for _, box, _ in rows])
    )
    return Listing(files, np.array([label for _, _, label in rows], np.int64))


def _boxes(boxes: list[tuple[float, ...]]) -> np.ndarray:
    return np.array(boxes, np.float32).reshape(-1, 4)


def _csv_rows(file: Path) -> Iterator[tuple[str, tuple[float, ...], int]]:
    """(picture, box xyxy px, label in canonical order) of the rows that show an expression. A header row is
    optional."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            if not row or (number == 1 and row[0].strip() == _COLUMNS[0]):
                continue
            if len(row) != len(_COLUMNS):
                raise DataError(
                    f"{file}, line {number}: {len(row)} cells, expected {len(_COLUMNS)}: {', '.join(_COLUMNS)}"
                )
            label = _label(row[6], f"{file}, line {number}")
            if label is not None:
                yield row[0].strip(), _box(row[1:5], f"{file}, line {number}"), label


def _box(cells: list[str], where: str) -> tuple[float, ...]:
    try:
        left, top, width, height = numbers_of(cells)
    except ValueError:
        raise DataError(
            f"{where}: face box {', '.join(cells)}, expected four numbers x, y, width, height in px"
        ) from None
    return left, top, left + width, top + height


def _label(text: str, where: str) -> int | None:
    """The position of the owner's code in the canonical order, or None for the codes that are no expression."""
    try:
        code = int(*numbers_of([text]))
    except ValueError:
        code = -1
    if code in AFFECTNET:
        return EXPRESSIONS.index(canonical(AFFECTNET[code]))
    if code in _OTHER_CODES:
        return None
    raise DataError(f"{where}: expression {text!r}, expected a code in 0-10")


def _from_npy(root: Path, part: str) -> Listing:
    folder = root / part / "annotations"
    if not folder.is_dir():
        raise AbsentSplitError(f"{folder}: no such folder; the release of 2021 has images/ and annotations/ in {part}/")
    stems = sorted(
        (path.name.removesuffix("_exp.npy") for path in folder.glob("[!.]*_exp.npy")), key=lambda s: (len(s), s)
    )
    found = [(stem, _npy_label(folder / f"{stem}_exp.npy")) for stem in stems]
    kept = [(stem, label) for stem, label in found if label is not None]
    files = FaceFiles(str(root), tuple(f"{part}/images/{stem}.jpg" for stem, _ in kept))
    return Listing(files, np.array([label for _, label in kept], np.int64))


def _npy_label(file: Path) -> int | None:
    """The one value in the file, an integer, a float or a string of either (`np.load` gives '1' for some)."""
    try:
        value = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file}: cannot be read ({error}); unpack the archive again") from None
    if value.size != 1:
        raise DataError(f"{file}: {value.size} values, expected one expression code")
    return _label(str(value.reshape(-1)[0]), str(file))
