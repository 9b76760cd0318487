"""Annotated copies: where things are drawn, what the files carry, and what they are called."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien import draw, images, timeline
from mien.errors import UsageError
from mien.expressions import BASIC, EXPRESSIONS
from mien.reader import Face, Reading


def face(
    box: tuple[float, float, float, float], expression: str = "happy", labels: tuple[str, ...] = EXPRESSIONS
) -> Face:
    probabilities = dict.fromkeys(labels, 0.05)
    probabilities[expression] = 1 - 0.05 * (len(labels) - 1)
    return Face(box, None, 1.0, expression, probabilities[expression], probabilities)


def drawn(size: tuple[int, int], *faces: Face) -> tuple[np.ndarray, np.ndarray]:
    """A grey picture of (width, height) before and after, the enlarged copies as int (H, W, 3)."""
    grey = np.full((size[1], size[0], 3), 128, np.uint8)
    copy = draw.annotate(grey, Reading("x", *size, faces))
    assert (grey == 128).all()
    return np.full((copy.height, copy.width, 3), 128), np.asarray(copy).astype(int)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(48, 48), (200, 150), (640, 480), (1200, 5000), (4000, 3000)])
def test_box_label_and_bars_are_drawn_at_any_size(size: tuple[int, int]) -> None:
    width, height = size
    box = (width * 0.3, height * 0.4, width * 0.5, height * 0.4 + width * 0.25)
    before, after = drawn(size, face(box))
    factor = draw.enlargement(*size)
    assert after.shape == (height * factor, width * factor, 3)
    assert min(after.shape[:2]) >= 600 or factor == draw.LARGEST_FACTOR
    changed = (before != after).any(axis=2)
    x1, y1, x2, y2 = (round(edge * factor) for edge in box)
    assert changed[y1 + 2, x1 + 2 : x2 - 2].mean() > 0.9 and changed[y2 - 2, x1 + 2 : x2 - 2].mean() > 0.9
    middle = changed[
        round(y1 * 0.6 + y2 * 0.4) : round(y1 * 0.4 + y2 * 0.6), round(x1 * 0.6 + x2 * 0.4) : round((x1 + x2) / 2)
    ]
    assert not middle.any()  # the face itself stays bare
    yellow = (after == draw.COLOURS["happy"]).all(axis=2)
    assert yellow[:, x2 + 3 :].any()  # the bar, right of the box
    assert yellow[: y1 - 1].any()  # the label, above it


def test_bars_are_as_long_as_their_probabilities() -> None:
    values = dict(zip(EXPRESSIONS, (0.4, 0.25, 0.15, 0.1, 0.05, 0.03, 0.02, 0.0), strict=True))
    one = Face((100.0, 200.0, 300.0, 450.0), None, 1.0, "neutral", 0.4, values)
    _, after = drawn((1000, 1000), one)
    panel = after[:, 303:]
    for name, value in values.items():
        coloured = (panel == draw.COLOURS[name]).all(axis=2)
        if value == 0:
            assert not coloured.any()
            continue
        row = panel[np.flatnonzero(coloured.any(axis=1))[0]]
        bar, rest = ((row == colour).all(axis=1).sum() for colour in (draw.COLOURS[name], draw.TRACK))
        assert bar == pytest.approx(value * (bar + rest), abs=1)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (16_000, 20), (20, 16_000)])
def test_the_smallest_and_thinnest_pictures_get_a_copy(size: tuple[int, int]) -> None:
    _, after = drawn(size, face((0.0, 0.0, float(size[0]), float(size[1]))))
    assert after.shape[0] >= size[1] and after.shape[1] >= size[0]


def test_bars_go_left_where_there_is_no_room_right() -> None:
    _, after = drawn((800, 700), face((600, 200, 780, 420)))
    panel = (after == draw.PLATE).all(axis=2)
    assert panel[:, :590].sum() > 5000


@pytest.mark.parametrize(
    "box", [(-50, -60, 130, 180), (500, 400, 760, 700), (-9, -9, 650, 490), (0, 0, 640, 480), (3, 3, 4, 4)]
)
def test_faces_over_the_edge(box: tuple[float, float, float, float]) -> None:
    before, after = drawn((640, 480), face(box))
    assert (before != after).any()


def test_bars_never_cover_another_face() -> None:
    left, right = face((100, 200, 300, 450)), face((340, 200, 540, 450), "sad")
    before, after = drawn((700, 700), left, right)
    inside = (before != after).any(axis=2)[215:435, 355:525]
    assert not inside.any()


def test_bars_never_cover_another_faces_bars_or_label() -> None:
    far, near = face((100, 200, 300, 450)), face((560, 180, 650, 300), "sad")
    _, alone = drawn((700, 700), far)
    _, both = drawn((700, 700), far, near)
    assert (alone[:, :540] == both[:, :540]).all()  # px: the second face's would go left, over the first one's
    _, other = drawn((700, 700), face((560, 180, 650, 300), "sad"))
    assert (other[:, :540] == draw.PLATE).all(axis=2).sum() > 1000
    low = face((310, 460, 560, 690), "sad")
    _, alone = drawn((700, 700), low)
    _, both = drawn((700, 700), low, face((100, 300, 300, 500)))  # whose bars end below where the other's label begins
    assert (both[400:436, 330:360] == draw.PLATE).all(axis=2).any()
    assert (alone[440:458, 312:372] == both[440:458, 312:372]).all()


def test_seven_classes_and_no_faces() -> None:
    before, after = drawn((700, 700), face((100, 200, 300, 450), labels=BASIC))
    assert (before != after).any()
    before, after = drawn((700, 700))
    assert (before == after).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_copies_carry_pixels_only(tmp_path: Path, suffix: str, hopper: np.ndarray) -> None:
    from mien import images

    exif = Image.Exif()
    exif[0x010E] = "a secret"
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    Image.fromarray(hopper).save(tmp_path / "in.jpg", exif=exif)
    draw.save(draw.annotate(images.load(tmp_path / "in.jpg"), Reading("x", 512, 600, ())), tmp_path / f"out{suffix}")
    with Image.open(tmp_path / f"out{suffix}") as copy:
        assert not copy.getexif() and "exif" not in copy.info
    assert b"secret" not in (tmp_path / f"out{suffix}").read_bytes()


def test_copies_never_collide(tmp_path: Path) -> None:
    names = ["a/x.jpg", "b/x.jpg", "a/X.JPEG", "x.png", "x.webp", "x-mien-2.jpg", "x.jpg"]
    paths = draw.copy_paths([tmp_path / name for name in names], tmp_path)
    assert len({str(path).lower() for path in paths}) == len(names)
    assert [path.suffix for path in paths] == [".jpg", ".jpg", ".jpg", ".png", ".png", ".jpg", ".jpg"]
    assert paths[0] == tmp_path / "x-mien.jpg"


def test_a_copy_never_overwrites_a_source(tmp_path: Path) -> None:
    sources = [tmp_path / "x.jpg", tmp_path / "x-mien.jpg"]
    assert not set(draw.copy_paths(sources, tmp_path)) & set(sources)


def test_thousands_of_pictures_of_one_name_are_no_matter(tmp_path: Path) -> None:
    sources = [tmp_path / str(number) / "image.jpg" for number in range(3000)]
    started = time.process_time()
    paths = draw.copy_paths(sources, tmp_path)
    assert len(set(paths)) == 3000 and paths[:2] == [tmp_path / "image-mien.jpg", tmp_path / "image-mien-2.jpg"]
    assert (
        time.process_time() - started < 5
    )  # s of the processor, whose need must not grow with the square of their number


def test_a_long_picture_is_not_enlarged_beyond_the_largest_side() -> None:
    assert draw.enlargement(40_000, 400) == 1 and draw.enlargement(400, 5000) == 2
    assert draw.enlargement(7000, 200) == 2 and draw.enlargement(8001, 200) == 1


def test_a_copy_too_long_for_a_jpeg_becomes_a_png(tmp_path: Path) -> None:
    long = Image.new("RGB", (draw.JPEG_SIDE + 1, 2))
    assert draw.save(long, tmp_path / "x-mien.jpg") == tmp_path / "x-mien.jpg.png"
    assert [path.name for path in tmp_path.iterdir()] == ["x-mien.jpg.png"]
    with Image.open(tmp_path / "x-mien.jpg.png") as copy:
        assert (copy.format, copy.size) == ("PNG", long.size)
    longest = Image.new("RGB", (draw.JPEG_SIDE, 2))
    assert draw.save(longest, tmp_path / "y-mien.jpg") == tmp_path / "y-mien.jpg"


def test_long_names_are_cut_so_that_their_copies_can_be_written(tmp_path: Path) -> None:
    sources = [tmp_path / "in" / f"{stem}.jpg" for stem in ("n" * 250, "n" * 251, "é" * 125, "\udcff" * 250)]
    paths = draw.copy_paths(sources, tmp_path)
    assert len(set(paths)) == 4 and paths[1].name.endswith("n-mien-2.jpg") and "é" * 110 in paths[2].name
    for path in paths:
        assert len(os.fsencode(f"{path.name}.png")) <= 255
        draw.save(Image.new("RGB", (4, 4)), path)
        assert path.is_file()


def test_a_link_to_itself_gets_a_copy_path_as_any_source(tmp_path: Path) -> None:
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    assert draw.copy_paths([loop], tmp_path) == [tmp_path / "loop-mien.jpg"]


def test_what_mien_drew_is_not_among_a_folders_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies beside their pictures, one that is too long for a JPEG, and a video's timeline; a photograph that is called so is."""
    small = Image.new("RGB", (9, 9))
    sources = [tmp_path / name for name in ("a.jpg", "a.jpeg", "b.png", "own-mien.png", "timeline-2.png")]
    for source in sources:
        small.save(source)
    for copy in draw.copy_paths(sources, tmp_path):
        draw.save(small, copy)
    monkeypatch.setattr(draw, "JPEG_SIDE", 5)
    draw.save(small, tmp_path / "long-mien.jpg")
    strip = timeline.Strip(("happy",), 0.0)
    strip.add(0.0, {"happy": 1.0})
    timeline.save(strip, tmp_path / "timeline-1.png", title="")
    assert {"a-mien.jpg", "a-mien-2.jpg", "b-mien.png", "long-mien.jpg.png"} < {
        path.name for path in tmp_path.iterdir()
    }
    assert images.in_folder(tmp_path) == sorted(sources)
    for source in sources:
        source.unlink()
    with pytest.raises(
        UsageError, match="; its 7 copies and timelines by mien are read when they are named themselves"
    ):
        images.in_folder(tmp_path)
