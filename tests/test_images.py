"""images.load: every kind of source and every kind of picture, and what is refused."""

import io
import os
import struct
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import mien
from mien import images, tables, terminal
from mien.errors import ImageError, UsageError
from mutants import many_scans

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def quadrants() -> np.ndarray:
    """RGB uint8 (16, 24, 3): red and green above blue and white, no two corners alike."""
    picture = np.full((16, 24, 3), 255, np.uint8)
    picture[:8, :12], picture[:8, 12:], picture[8:, :12] = RED, GREEN, BLUE
    return picture


def encoded(picture: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


PNG = encoded(Image.fromarray(quadrants()), "PNG")


def test_every_kind_of_source_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "q.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        sources = [path, str(path), PNG, bytearray(PNG), memoryview(PNG), io.BytesIO(PNG), file, Image.open(path)]
        sources.insert(0, memoryview(bytes(byte for byte in PNG for _ in range(2)))[::2])
        loaded = [images.load(source) for source in sources]
        assert images.name_of(file) == str(path)
        sources[-1].close()
    for picture in (*loaded, images.load(quadrants())):
        assert picture.dtype == np.uint8
        np.testing.assert_array_equal(picture, quadrants())


def test_a_loaded_array_is_a_fresh_copy() -> None:
    source = quadrants()
    images.load(source)[:] = 0
    np.testing.assert_array_equal(source, quadrants())


def test_names() -> None:
    assert images.name_of("a/b.jpg") == "a/b.jpg"
    assert images.name_of(Path("a")) == "a"
    assert images.name_of(b"x") == "<bytes>"
    assert images.name_of(quadrants()) == "<ndarray>"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(quadrants())
    stored = {  # how a camera held so stores the upright picture: the inverse of what EXIF asks the viewer to do
        1: lambda p: p,
        2: lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda p: p.rotate(180),
        4: lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda p: p.transpose(Image.Transpose.TRANSPOSE),
        6: lambda p: p.rotate(90, expand=True),
        7: lambda p: p.transpose(Image.Transpose.TRANSVERSE),
        8: lambda p: p.rotate(-90, expand=True),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        np.testing.assert_array_equal(images.load(encoded(stored, format, exif=exif, **options)), quadrants())
    jpeg = images.load(encoded(stored, "JPEG", exif=exif, quality=95, subsampling=0))
    assert np.abs(jpeg.astype(int) - quadrants()).mean() < 4


def test_a_damaged_exif_block_does_not_hide_the_picture() -> None:
    data = encoded(Image.fromarray(quadrants()), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    np.testing.assert_array_equal(images.load(data), quadrants())


def test_a_palette_with_too_many_transparencies_is_damaged() -> None:
    """Pillow finds out after decoding, in what it converts."""
    data = encoded(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("P"), "PNG")
    at, body = data.index(b"IDAT") - 4, b"tRNS" + bytes(257)
    chunk = len(body[4:]).to_bytes(4) + body + zlib.crc32(body).to_bytes(4)
    with pytest.raises(ImageError, match="its pixels cannot be decoded"):
        images.load(data[:at] + chunk + data[at:])


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I;16", "I"]
)
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode in ("I;16", "I"):
        picture = Image.fromarray(np.full((5, 7), 204 * 257, np.uint16)).convert(mode)
    else:
        way = {"PA": "P", "La": "LA", "RGBa": "RGBA"}.get(mode, mode)  # Pillow converts in steps
        picture = Image.new("RGB", (7, 5), (204,) * 3).convert(way).convert(mode)
    result = images.load(picture)
    assert result.shape == (5, 7, 3)
    if mode != "1":  # dithered
        assert np.abs(result.astype(int) - 204).max() <= 2


def test_sixteen_bit_png_keeps_its_grey_levels() -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    np.testing.assert_array_equal(images.load(encoded(Image.fromarray(ramp), "PNG"))[:, :, 1].ravel(), np.arange(256))


def tiff(values: np.ndarray, *, bits: int, white: int) -> bytes:
    """An uncompressed grey TIFF (H, W). white: 0 where 0 is white, 1 where it is black."""
    height, width = values.shape
    if bits == 12:
        rows = np.concatenate(
            [values >> 4, (values & 15) << 4 | np.roll(values, -1, axis=1) >> 8, np.roll(values, -1, axis=1)]
        )
        pairs = np.stack(np.split(rows, 3), axis=2)[:, ::2]
        data = (pairs & 255).astype(np.uint8).tobytes()
    else:
        data = values.astype("<u2").tobytes()
    entries = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 1),
        (262, white),
        (273, 8),
        (277, 1),
        (278, height),
        (279, len(data)),
    ]
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return head + data + struct.pack("<H", len(entries)) + tags + bytes(4)


@pytest.mark.parametrize(("bits", "white"), [(12, 1), (16, 0), (16, 1)])
def test_a_grey_tiff_says_its_bits_and_which_end_is_white(bits: int, white: int) -> None:
    largest = 2**bits - 1
    values = np.linspace(0, largest, 64 * 48).round().astype(np.int64).reshape(48, 64)
    found = images.load(tiff(values, bits=bits, white=white))[..., 0]
    expected = (values if white else largest - values) >> (bits - 8)
    assert np.abs(found.astype(int) - expected).max() <= 1 and found.min() == 0 and found.max() == 255


def test_whole_numbers_made_of_eight_bits_stay_what_they_are() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(grey)
    assert (images.load(picture.convert("I"))[..., 0] == grey).all()
    assert (images.load(Image.fromarray(grey.astype(np.int32) * 257))[..., 0] == grey).all()
    assert (images.load(encoded(picture.convert("I"), "TIFF"))[..., 0] == grey).all()  # of 32 bits


def test_an_orientation_that_only_xmp_tells_is_left_alone() -> None:
    """As browsers and viewers do: what turns a picture is EXIF's tag."""
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(Image.new("RGB", (8, 5)), "JPEG", xmp=xmp)
    with Image.open(io.BytesIO(data)) as picture:
        assert images.load(data).shape == images.load(picture).shape == (5, 8, 3)
        assert picture.info["xmp"] == xmp  # a picture of the caller's keeps it


def test_wide_grey_takes_little_more_than_the_picture() -> None:
    values = np.full((2000, 3000), 40_000, np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    tracemalloc.start()
    found = images.load(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found == 156).all() and peak < 8 * values.nbytes


def test_avif_that_calls_itself_a_picture_of_any_kind() -> None:
    data = bytearray(encoded(Image.new("RGB", (64, 64), RED), "AVIF"))
    assert data[8:12] == b"avif"
    data[8:12] = b"mif1"
    assert images.load(bytes(data)).shape == (64, 64, 3)


def test_a_folder_may_be_called_as_a_data_url_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data:2024").mkdir()
    Image.new("RGB", (8, 5)).save("data:2024/Smith, John.png")
    assert [len(reading) for reading in mien.read_folder("data:2024", reader=mien.Reader(detector="whole"))] == [1]
    with pytest.raises(UsageError, match="a data URL is no path"):
        images.load("data:image/png;base64,AAAA")


def test_a_pipe_is_no_list(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.txt")
    pipe = os.open(tmp_path / "list.txt", os.O_RDWR)
    os.write(pipe, b"a.jpg\n")
    with pytest.raises(UsageError, match=r"cannot be opened \(.*seekable"):
        images.opened_list(tmp_path / "list.txt")
    os.close(pipe)


def test_cmyk_jpeg_keeps_its_colours() -> None:
    picture = images.load(encoded(Image.new("RGB", (8, 8), RED).convert("CMYK"), "JPEG"))
    assert picture[4, 4, 0] > 200 and picture[4, 4, 1:].max() < 60


def test_float_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point"):
        images.load(Image.new("F", (4, 4)))


def test_grey_of_more_than_sixteen_bits_is_refused() -> None:
    wide = np.array([[0, 65_535], [70_000, 2_139_095_040]], np.int32)
    with pytest.raises(ImageError, match="grey values up to 2139095040 need more than 16 bits; save it with 8 or 16"):
        images.load(encoded(Image.fromarray(wide), "TIFF"))
    assert images.load(encoded(Image.fromarray(wide[:1]), "TIFF"))[0, :, 0].tolist() == [0, 255]


def test_a_jpeg_bomb_is_refused_and_what_follows_a_picture_is_none_of_it(tmp_path: Path) -> None:
    few = many_scans(50)
    images.load(few)
    images.load(few + 200 * b"\xff\xda")  # as the film behind a motion photo may hold
    path = tmp_path / "a.jpg"
    path.write_bytes(many_scans(200))
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match="a JPEG of more than 100 scans takes too long to decode"):
            images.load(source)
    exif = few[:2] + 1001 * b"\xff\xe1\x00\x09Exif\0\0a" + few[2:]
    with pytest.raises(ImageError, match="a JPEG of more than 1000 EXIF and XMP blocks takes"):
        images.load(exif)
    assert images.told_size(exif) is None  # and not parsed either


@pytest.mark.parametrize("kind", [b"P1", b"P2", b"P3"])
def test_a_plain_ppm_of_comments_is_refused(kind: bytes) -> None:
    """Pillow's time is the square of their number: were it tried, this would take minutes."""
    header, pixels = kind + b"\n2 2\n" + b"9\n" * (kind != b"P1"), b"1 " * 12
    images.load(header + b"#\n" * 1000 + pixels)
    with pytest.raises(ImageError, match="a plain PPM of more than 1000 comments takes too long to decode"):
        images.load(header + b"#\n" * 5_000_000 + pixels)
    images.load(b"P6\n20 20\n255\n" + b"#" * 1200)  # pixels


def test_the_size_that_a_header_tells() -> None:
    assert images.told_size(encoded(Image.new("RGB", (8, 5)), "PNG")) == (8, 5)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n" + b"a\n" * 100
    assert Image.open(io.BytesIO(postscript)).size == (9, 9)  # Pillow would parse it, byte by byte
    assert [images.told_size(data) for data in (postscript, b"", b"junk")] == [None, None, None]


def test_transparency_lies_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (images.load(encoded(clear, "PNG")) == 255).all()
    half = Image.new("LA", (4, 4), (0, 128))
    np.testing.assert_array_equal(images.load(half.convert("La")), images.load(half))
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([0] * 768)
    assert (images.load(encoded(palette, "PNG", transparency=3)) == 255).all()
    wide = Image.fromarray(np.array([[1000, 40000], [40000, 1000]], np.uint16))
    assert images.load(encoded(wide, "PNG", transparency=1000))[..., 0].tolist() == [[255, 156], [156, 255]]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as check:
        assert check.n_frames == 3
    np.testing.assert_array_equal(images.load(data), np.asarray(frames[0]))


@pytest.mark.parametrize("format", ["BMP", "PPM", "TIFF", "GIF", "WEBP", "JPEG2000", "AVIF", "MPO", "JPEG"])
def test_formats(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    picture = Image.new("RGB", (32, 24), (180, 90, 40))
    result = images.load(encoded(picture, format, **options))
    assert result.shape == (24, 32, 3)
    assert np.abs(result.astype(int) - (180, 90, 40)).max() <= 8


def heic() -> bytes:
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (180, 90, 40))).save(file)
    return file.getvalue()


def test_heic_with_the_extra() -> None:
    result = images.load(heic())
    assert result.shape == (48, 64, 3)
    assert np.abs(result.astype(int) - (180, 90, 40)).max() <= 8
    with pytest.raises(ImageError, match="limit"):
        images.load(heic(), max_pixels=100)
    with pytest.raises(ImageError, match="<bytes>"):
        images.load(heic()[:200])


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    with pytest.raises(ImageError, match=r"mien\[heic\]"):
        images.load(data)


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header claims width x height and that holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(8000, 7000), (10_000, 10_000), (60_000, 60_000)])
def test_a_bomb_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=r"<bytes>: .*(limit|too many pixels)"):
        images.load(huge_png(*size))


def test_the_limit_is_inclusive_and_can_be_moved() -> None:
    assert images.load(PNG, max_pixels=24 * 16).shape == (16, 24, 3)
    for source in (PNG, quadrants(), Image.fromarray(quadrants())):
        with pytest.raises(ImageError, match="24 x 16 px"):
            images.load(source, max_pixels=24 * 16 - 1)


def test_pillows_own_limit_does_not_stand_in_the_way_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"raise Pillow's limit, PIL\.Image\.MAX_IMAGE_PIXELS"):
        images.load(PNG)
    with warnings.catch_warnings():
        terminal.tame_pillow()
    assert images.load(PNG).shape == (16, 24, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_truncated_files_are_refused(format: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    path = tmp_path / "cut"
    path.write_bytes(encoded(Image.fromarray(noise), format)[:-2000])
    with pytest.raises(ImageError, match="cut: "):
        images.load(path)


@pytest.mark.parametrize("data", [b"", b"hello, world\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>", bytes(1000)])
def test_what_is_no_picture_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match="empty" if not data else "not a picture"):
        images.load(path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4,), np.uint8), r"\(4,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"\(4, 4, 2\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\(1, 4, 4, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        images.load(array)


def test_array_shapes_and_channel_orders() -> None:
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    for array in (grey, grey[:, :, None]):
        np.testing.assert_array_equal(images.load(array), np.repeat(grey[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(images.load(quadrants()[:, :, ::-1], color="bgr"), quadrants())
    opaque = np.dstack([quadrants()[:, :, ::-1], np.full((16, 24), 255, np.uint8)])
    np.testing.assert_array_equal(images.load(opaque, color="bgr"), quadrants())
    np.testing.assert_array_equal(images.load(np.asfortranarray(quadrants())), quadrants())


def test_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="read_folder"):
        images.load(tmp_path)
    with pytest.raises(UsageError, match="read_video"):
        images.load("film.MP4")
    for url in ("https://example.org/a.jpg", Path("https://example.org/a.jpg"), "s3://bucket/a.jpg"):
        with pytest.raises(UsageError, match="download"):
            images.load(url)
    with pytest.raises(UsageError, match="rgb, bgr"):
        images.load(quadrants(), color="hsv")
    with pytest.raises(UsageError, match="numpy arrays"):
        images.load(PNG, color="bgr")
    with pytest.raises(UsageError, match="NoneType"):
        images.load(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="mode 'rb'"):
        images.load(io.StringIO("text"))  # type: ignore[arg-type]
    with io.BytesIO(PNG) as file:
        images.load(file)
        with pytest.raises(ImageError, match=r"^<BytesIO>: the open file was read to its end before; seek\(0\) first$"):
            images.load(file)
    with pytest.raises(ImageError, match=r"^<BytesIO>: the file is empty$"):
        images.load(io.BytesIO())


def test_missing_and_odd_paths(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        images.load(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        images.load("/dev/null")
    with pytest.raises(ImageError, match="no such file"):
        images.load("a\0b.jpg")
    locked = tmp_path / ("x" * 300 + ".jpg")
    with pytest.raises(ImageError, match=r"no such file|cannot be opened"):
        images.load(locked)


def test_any_path_and_files_that_give_nothing(tmp_path: Path) -> None:
    Image.new("RGB", (9, 8)).save(tmp_path / "a.png")
    (entry,) = os.scandir(tmp_path)
    assert images.load(entry).shape == (8, 9, 3) and images.name_of(entry) == str(tmp_path / "a.png")
    closed = (tmp_path / "a.png").open("rb")
    closed.close()
    with pytest.raises(ImageError, match=r"a\.png: cannot be read from \(.*closed"):
        images.load(closed)
    with (tmp_path / "b.png").open("wb") as writing, pytest.raises(ImageError, match="cannot be read from"):
        images.load(writing)
    with pytest.raises(UsageError, match="data URL is no path; decode its base64") as refused:
        images.load("data:image/jpeg;base64," + "A" * 3_000_000)
    assert len(str(refused.value)) < 200


def test_what_macos_keeps_beside_pictures_is_none(tmp_path: Path) -> None:
    for name in ("a.jpg", "._a.jpg", ".b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in images.in_folder(tmp_path)] == [".b.jpg", "a.jpg"]


def test_names_that_miens_tables_escape_are_found_again(tmp_path: Path) -> None:
    names = ["=1.png", "plain.png", "bad\udcff.png", "'-kept.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    tables.write_csv([tables.failure(str(name), "") for name in names], tmp_path / "faces.csv")
    listed = (tmp_path / "faces.csv").read_text()
    assert "'=1.png" in listed and "bad\\udcff.png" in listed
    assert [images.listed(tmp_path, row.split(",")[0]).name for row in listed.splitlines()[1:]] == names


def test_miens_table_as_a_list_names_each_of_two_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["=1.png", "'=1.png", "''=1.png", "'1.png"]
    for name in names:
        Path(name).write_bytes(PNG)
    tables.write_csv([tables.failure(name, "") for name in names], Path("faces.csv"))
    assert images.gather(["faces.csv"]) == list(map(Path, names))


def test_gather_expands_folders_in_order(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "empty").mkdir()
    assert images.gather([tmp_path, "x.jpg"]) == [tmp_path / "a.png", tmp_path / "b.JPG", Path("x.jpg")]
    (tmp_path / "empty" / "clip.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match=r"no pictures.*; its 1 videos are read when they are named themselves"):
        images.gather([tmp_path / "empty"])
    with pytest.raises(UsageError, match="video"):
        images.gather(["clip.mkv"])


def closed_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`folder`, made, which cannot be opened, not even by root."""
    folder.mkdir()
    (folder / "hidden.png").write_bytes(PNG)
    scandir = os.scandir

    def refuse(path: object) -> object:
        if Path(str(path)) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    return folder


def test_a_folder_below_that_cannot_be_opened_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    closed = closed_folder(tmp_path / "closed", monkeypatch)
    assert images.gather([tmp_path]) == [tmp_path / "a.png", closed]
    with pytest.raises(ImageError, match=r"closed: the folder cannot be opened \(Permission denied\)"):
        images.load(closed)
    with pytest.raises(UsageError, match=r"closed: the folder cannot be opened \(Permission denied\); check"):
        images.gather([closed])


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    for use in (lambda: images.gather([""]), lambda: images.load("")):
        with pytest.raises(UsageError, match="the path is empty"):
            use()
    assert images.gather(["."]) == [Path("a.png")] and not images.is_folder("")


def test_a_folder_may_be_called_like_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"never fetches from the web.*: -o DIR --engine ray$"):
        images.load("s3://bucket/a.jpg")
    with pytest.raises(UsageError, match=r"never fetches from the web; download the picture and pass its path$"):
        images.load("photos:/q.png")
    Path("photos:").mkdir()
    Path("photos:/q.png").write_bytes(PNG)
    np.testing.assert_array_equal(images.load("photos:/q.png"), quadrants())
    with pytest.raises(ImageError, match="no such file"):
        images.load("photos:/absent.png")


def test_a_list_with_a_cell_too_large_is_named(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(f"id,path\n1,a.jpg\n2,{'x' * 140_000}.jpg\n")
    with pytest.raises(UsageError, match=r"l\.csv, line 3: field larger than field limit .*; expected"):
        images.gather([tmp_path / "l.csv"])
    (tmp_path / "h.csv").write_text("x" * 140_000)
    with pytest.raises(UsageError, match=r"h\.csv, line 1: "):
        images.gather([tmp_path / "h.csv"])


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    """`whole` cut short or with a few bytes changed."""
    broken = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    for _ in range(data.draw(st.integers(0, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    return bytes(broken)


def load_or_refuse(data: bytes) -> None:
    """Damaged bytes are a picture or an ImageError, nothing else."""
    try:
        picture = images.load(data, max_pixels=10_000)
    except ImageError:
        return
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


WHOLE = {
    format: encoded(Image.fromarray(quadrants()), format)
    for format in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
}


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(sorted(WHOLE)))
def test_damaged_bytes_never_raise_anything_else(data: st.DataObject, format: str) -> None:
    load_or_refuse(damaged(data, WHOLE[format]))


@pytest.mark.soak
@settings(max_examples=20_000, deadline=None)
@given(st.data(), st.sampled_from(sorted(WHOLE)))
def test_damaged_bytes_many_times(data: st.DataObject, format: str) -> None:
    load_or_refuse(damaged(data, WHOLE[format]))
