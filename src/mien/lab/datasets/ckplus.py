"""CK+ (Lucey et al., CVPRW 2010): 593 posed sequences of 123 people, 327 of them labelled, from neutral to the peak.

Layout: ``cohn-kanade-images/S005/001/S005_001_00000011.png`` and ``Emotion/S005/001/S005_001_00000011_emotion.txt``
holding e.g. ``3.0000000e+00``. Taken from each labelled sequence: its last three frames, and under rule "8-class" its
first frame as neutral. Papers differ in this and in the classes, so the rule is part of every protocol.

Protocols: "subject" (default), ten folds without a person in two of them; "mscar", 15 % of the *images* drawn at random
for test (147 of 981, MSCAR's paper), which puts frames of one sequence on both sides: for that paper's figures only.
Split "all" gives the frames undivided.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mien.errors import DataError
from mien.expressions import CKPLUS, EXPRESSIONS, canonical
from mien.lab.datasets.dataset import FaceDataset
from mien.lab.datasets.face_files import FaceFiles, Listing, dataset, folders_in, pictures_in, read_text, some
from mien.lab.datasets.official import Official, checked
from mien.lab.datasets.splitting import by_subject, fold_rows

RULES: Mapping[str, tuple[str, ...]] = {
    "7-class": EXPRESSIONS[1:],  # no neutral: MSCAR's seven
    "6-class": EXPRESSIONS[1:7],  # no contempt either
    "8-class": EXPRESSIONS,  # first frames as neutral
}
PROTOCOLS: tuple[str, ...] = ("subject", "mscar")
FRAMES = 3
FOLDS = 10
TEST_SHARE = 0.15
SEED = 0
SEQUENCES = {"anger": 45, "contempt": 18, "disgust": 59, "fear": 25, "happy": 69, "sad": 28, "surprise": 83}  # 327
_IMAGES = ("cohn-kanade-images", "extended-cohn-kanade-images/cohn-kanade-images")
_CODES = {code: canonical(word) for code, word in CKPLUS.items() if code != 0}  # no sequence peaks in neutral


def official(label_rule: str) -> Official:
    """Frames per class under a rule."""
    counts = {name: FRAMES * count for name, count in SEQUENCES.items()} | {"neutral": sum(SEQUENCES.values())}
    return Official(
        "all", {name: counts[name] for name in RULES[label_rule]}, "Lucey et al. 2010: 327 labelled sequences"
    )


def load(
    root: Path,
    *,
    split: str,
    label_rule: str | None = None,
    protocol: str | None = None,
    fold: int | None = None,
    allow_partial: bool = False,
) -> FaceDataset:
    """One split under a rule ("7-class", "6-class", "8-class"). Groups: subject, sequence.

    Raises DataError when the layout is not there, a label file cannot be understood, a sequence has too few frames, the
    fold is missing, or the counts per class are not the official ones (not with `allow_partial`).
    """
    rule, protocol = label_rule or "7-class", protocol or "subject"
    if rule not in RULES:
        raise DataError(f"ckplus has no label rule {rule!r}: expected one of {', '.join(RULES)}")
    if protocol not in PROTOCOLS:
        raise DataError(f"ckplus has no protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    listing, left_out = _listing(root, RULES[rule], allow_partial)
    whole = dataset(
        listing,
        name="ckplus",
        split="all",
        label_rule=rule,
        classes=RULES[rule],
        allow_partial=allow_partial,
        note=f"protocol {protocol}" + ("" if fold is None else f", fold {fold} of {FOLDS}") + left_out,
    )
    whole = checked(whole, official(rule), where=root, allow_partial=allow_partial)
    return whole if split == "all" else whole.subset(_rows(whole, split, protocol, fold), split=split)


def _rows(whole: FaceDataset, split: str, protocol: str, fold: int | None) -> np.ndarray:
    if protocol == "subject":
        return fold_rows(by_subject(whole.groups["subject"], FOLDS), split, fold, name="ckplus")
    if split not in ("train", "test") or fold is not None:
        raise DataError(
            f"ckplus --protocol mscar: split {split!r}, fold {fold}; expected train, test or all, and no fold"
        )
    order = np.random.default_rng(SEED).permutation(len(whole))
    tested = int(TEST_SHARE * len(whole))  # 147 of 981: rounded down
    return np.sort(order[:tested] if split == "test" else order[tested:])


def _listing(root: Path, classes: tuple[str, ...], allow_partial: bool) -> tuple[Listing, str]:
    """The frames, and what to note of sequences that lack some."""
    images = next((place for place in _IMAGES if (root / place).is_dir()), None)
    if images is None or not (root / "Emotion").is_dir():
        raise DataError(
            f"{root}: no cohn-kanade-images/ and Emotion/ side by side; pass --root the folder that holds both"
        )
    rows: list[tuple[str, str]] = []
    short = []
    for sequence, word in _sequences(root / "Emotion"):
        if word in classes:
            frames = _frames(root / images, sequence, word, classes)
            rows += frames
            if not frames:
                short.append(sequence)
    few = f"{len(short):,} labelled sequences with too few frames: {some(short)}"
    if short and not allow_partial:
        raise DataError(
            f"{root / images}: {few}; unpack the whole archive, or pass --allow-partial to go on with what is there"
        )
    names = tuple(f"{images}/{name}" for name, _ in rows)
    sequences = tuple(name.rpartition("/")[0] for name, _ in rows)
    groups = {"subject": tuple(sequence.split("/")[0] for sequence in sequences), "sequence": sequences}
    labels = np.array([classes.index(word) for _, word in rows], np.int64)
    return Listing(FaceFiles(str(root), names), labels, groups), f"; {few}" if short else ""


def _sequences(folder: Path) -> Iterator[tuple[str, str]]:
    """("S005/001", expression) of every labelled sequence; most folders are empty, since most sequences are not
    labelled."""
    for subject in folders_in(folder):
        for sequence in folders_in(folder / subject):
            files = sorted((folder / subject / sequence).glob("[!.]*_emotion.txt"))
            if files:
                yield f"{subject}/{sequence}", _word(files[0])


def _word(file: Path) -> str:
    text = read_text(file).strip()
    try:
        return _CODES[int(float(text))]
    except (ValueError, KeyError, OverflowError):
        raise DataError(f"{file}: {text!r}, expected a code from 1 to 7, written like 3.0000000e+00") from None


def _frames(images: Path, sequence: str, word: str, classes: tuple[str, ...]) -> list[tuple[str, str]]:
    """(name under `images`, expression) of the frames that the rule takes from one sequence, in time order; none where it has
    too few."""
    names = pictures_in(images / sequence) if (images / sequence).is_dir() else []
    if len(names) < FRAMES + ("neutral" in classes):
        return []
    first = [(names[0], "neutral")] if "neutral" in classes else []
    return [(f"{sequence}/{name}", label) for name, label in first + [(name, word) for name in names[-FRAMES:]]]
