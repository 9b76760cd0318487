"""Would the loaders' tests notice? Each trap that a dataset's owner laid is walked into, and the trap's test must fail."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.soak

ROOT = Path(__file__).resolve().parents[2]
FILES = "src/mien/lab/datasets"


@dataclass(frozen=True)
class Mutant:
    """trap: what is laid. file: of mien.lab.datasets. old -> new: the change that walks into it. test: the one that must
    fail, below tests/lab."""

    trap: str
    file: str
    old: str
    new: str
    test: str


TRAPS, FER, LAYOUTS, OWN = (f"test_{name}.py" for name in ("datasets_traps", "fer", "datasets_layouts", "datasets_own"))
MUTANTS = (
    Mutant("RAF-DB counts labels from 1", "rafdb", "{c: canonical(w)", "{c - 1: canonical(w)",
           f"{TRAPS}::test_rafdb_labels_count_from_one"),
    Mutant("RAF-DB misspells its list", "rafdb", '"EmoLabel/list_patition_', '"EmoLabel/list_partition_',
           f"{TRAPS}::test_rafdb_labels_count_from_one"),
    Mutant("RAF-DB's copies number their folders otherwise", "rafdb", "in (RAFDB, AFFECTNET)", "in (AFFECTNET,)",
           f"{LAYOUTS}::test_every_picture_keeps_the_label_it_was_drawn_with[rafdb/owner-codes]"),
    Mutant("RAF-DB's copies can be told apart by one folder only", "rafdb", " and _tells(folders, codes)", "",
           f"{TRAPS}::test_rafdb_copies_that_could_be_either_are_refused"),
    Mutant("AffectNet's validation.csv has no header", "affectnet", "number == 1 and row[0].strip() == _COLUMNS[0]",
           "number == 1", f"{TRAPS}::test_affectnet_validation_has_no_header"),
    Mutant("AffectNet's training.csv has one", "affectnet", "number == 1 and row[0].strip() == _COLUMNS[0]", "False",
           f"{TRAPS}::test_affectnet_reads_windows_line_ends_and_byte_order_mark"),
    Mutant("AffectNet's lists may begin with a byte order mark", "affectnet", '"utf-8-sig"', '"utf-8"',
           f"{TRAPS}::test_affectnet_reads_windows_line_ends_and_byte_order_mark"),
    Mutant("AffectNet's box is corner and size", "affectnet", "left + width, top + height", "width, height",
           f"{TRAPS}::test_affectnet_box_is_corner_and_size"),
    Mutant("AffectNet's npy holds strings", "affectnet", "str(value.reshape(-1)[0])", "repr(value.reshape(-1)[0])",
           f"{TRAPS}::test_affectnet_npy_may_be_a_string"),
    Mutant("AffectNet's codes 8 to 10 are no expressions", "affectnet", "range(8, 11)", "range(8, 8)",
           f"{TRAPS}::test_affectnet_leaves_out_what_shows_no_expression"),
    Mutant("AffectNet's release of 2021 lacks a face", "affectnet", '{"contempt": 499}', '{"contempt": 500}',
           f"{TRAPS}::test_affectnet_2021_lacks_one_contempt_face"),
    Mutant("SFEW's folders are in alphabetical order", "folder", "[classes.index(expression)]",
           "[list(folders).index(expression)]", f"{TRAPS}::test_sfew_folders_are_read_by_name"),
    Mutant("SFEW has stills without a face", "official", "0 < found <= official if self.at_most else found == official",
           "found == official", f"{TRAPS}::test_sfew_counts_are_upper_bounds"),
    Mutant("ExpW's box is top, left, right, bottom", "expw", '"face_box_top", "face_box_left", "face_box_right"',
           '"face_box_left", "face_box_top", "face_box_right"', f"{TRAPS}::test_expw_box_is_top_left_right_bottom"),
    Mutant("ExpW's header is misspelt", "expw", '"face_box_cofidence"', '"face_box_confidence"',
           f"{TRAPS}::test_expw_header_may_be_there_and_misspelt"),
    Mutant("ExpW's header may have been corrected", "expw", '.replace("confidence", "cofidence")', "",
           f"{TRAPS}::test_expw_header_may_be_there_and_misspelt"),
    Mutant("ExpW has no header", "expw", "start = 1 if lines and lines[0].startswith(_COLUMNS[0]) else 0", "start = 1",
           f"{TRAPS}::test_expw_box_is_top_left_right_bottom"),
    Mutant("ExpW's faces of exactly 100x100 count", "expw", ">= area", "> area",
           f"{TRAPS}::test_expw_small_faces_are_left_out"),
    Mutant("ExpW's folds are not shuffled", "expw", 'if protocol == "shuffled"', 'if protocol != "every"',
           f"{TRAPS}::test_expw_folds_are_neighbouring_rows"),
    Mutant("CK+'s sequences begin in neutral", "ckplus", "names[-FRAMES:]", "names[:FRAMES]",
           f"{TRAPS}::test_ckplus_takes_the_last_three_frames_and_may_take_the_first"),
    Mutant("CK+'s labels are floats in text", "ckplus", "int(float(text))", "int(text)",
           f"{TRAPS}::test_ckplus_labels_are_floats_in_text"),
    Mutant("CK+ shows a person several times", "ckplus", 'by_subject(whole.groups["subject"]',
           'by_subject(whole.groups["sequence"]', f"{TRAPS}::test_ckplus_folds_keep_people_apart_and_the_paper_does_not"),
    Mutant("MSCAR's share of CK+ is rounded down", "ckplus", "int(TEST_SHARE * len(whole))",
           "round(TEST_SHARE * len(whole))", f"{TRAPS}::test_ckplus_folds_keep_people_apart_and_the_paper_does_not"),
    Mutant("FER-2013's competition columns begin with spaces", "fer2013", "{name.strip().lower(): i",
           "{name.lower(): i", f"{FER}::test_the_competitions_columns"),
    Mutant("FER-2013's folders are in alphabetical order", "folder", "[classes.index(expression)]",
           "[list(folders).index(expression)]", f"{FER}::test_kaggle_folders_are_mapped_by_name_and_have_no_valid"),
    Mutant("FER-2013's folders have no valid", "fer2013", 'not in ("train", PUBLIC_PRIVATE)',
           'not in ("train", "valid", PUBLIC_PRIVATE)', f"{FER}::test_kaggle_folders_are_mapped_by_name_and_have_no_valid"),
    Mutant("FER-2013's file may begin with a byte order mark", "fer2013", 'open)(file, "rt", encoding="utf-8-sig"',
           'open)(file, "rt", encoding="utf-8"', f"{TRAPS}::test_fer2013_reads_windows_line_ends_and_byte_order_mark"),
    Mutant("FER-2013's rows may lack a pixel", "fer2013", "len(values) != SIDE * SIDE or ", "",
           f"{TRAPS}::test_fer2013_row_with_a_pixel_too_few_is_named"),
    Mutant("FER-2013's file may end in a blank line", "fer2013", "if not row:", "if False:",
           f"{TRAPS}::test_fer2013_blank_lines_are_passed_over"),
    Mutant("FER+'s names occur twice", "ferplus", "body = rows[1:]", "body = sorted(rows[1:], key=lambda row: row[1])",
           f"{FER}::test_ferplus_is_joined_by_row_and_skips_unnamed_rows"),
    Mutant("FER+ has rows without a name", "ferplus", "    keep = keep & named\n", "",
           f"{FER}::test_ferplus_is_joined_by_row_and_skips_unnamed_rows"),
    Mutant("a table may begin with a byte order mark", "face_files", '"utf-8-sig"', '"utf-8"',
           f"{OWN}::test_table_with_windows_line_ends_and_byte_order_mark"),
    Mutant("a class that one split lacks shifts no other", "folder", "in tree.values())", "in list(tree.values())[-1:])",
           f"{OWN}::test_a_class_that_one_split_lacks_does_not_shift_the_others"),
)  # fmt: skip


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of mien that comes before the installed one, to be changed."""
    shutil.copytree(ROOT / "src" / "mien", tmp_path / "mien", ignore=shutil.ignore_patterns("__pycache__", "*.onnx"))
    return tmp_path


def run(package: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Python with the copy in front, where the tests lie."""
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT / "tests" / "lab",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def failing(package: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    return run(package, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)


def test_the_copy_is_what_runs_and_passes(package: Path) -> None:
    found = run(package, "-c", "import mien; print(mien.__file__)")
    assert found.stdout.strip() == str(package / "mien" / "__init__.py"), found.stderr
    done = failing(package, *dict.fromkeys(mutant.test for mutant in MUTANTS))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.trap)
def test_walking_into_the_trap_is_noticed(mutant: Mutant, package: Path) -> None:
    file = package / "mien" / "lab" / "datasets" / f"{mutant.file}.py"
    source = file.read_text("utf-8")
    assert source.count(mutant.old) == 1, f"the mutant's text occurs {source.count(mutant.old)} times"
    file.write_text(source.replace(mutant.old, mutant.new), "utf-8")
    done = failing(package, mutant.test)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "failed" in done.stdout
