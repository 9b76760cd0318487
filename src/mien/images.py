"""A picture of any kind -> RGB uint8 (H, W, 3): path, bytes, open file, PIL image or numpy array.

EXIF orientation is applied, transparency is laid on white (as viewers show it), 16-bit grey keeps its upper eight
bits, an animation gives its first frame. The number of pixels is checked from the header, before anything is decoded.
"""

import csv
import io
import os
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
from PIL import Image

from mien.errors import ImageError, MienError, PictureFormatError, PictureSizeError, UsageError

MAX_PIXELS = 50_000_000  # decoded; 50 megapixels are 150 MB of RGB
RAISED = "the limit (--max-pixels, in Python max_pixels)"  # what the message of a larger picture says
COLORS: tuple[str, ...] = ("rgb", "bgr")

# The raster formats that Pillow decodes itself; EPS would start Ghostscript, and formats without a signature (TGA)
# claim any file. Common ones first: Pillow loads the rarer plugins only when it gets to them.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "MPO", "JPEG2000", "AVIF")
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".webp")
) | {".tif", ".tiff", ".mpo", ".jp2", ".j2k", ".avif", ".heic", ".heif", ".hif"}
VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp")
) | {".mts", ".m2ts", ".ogv", ".vob", ".mxf", ".asf", ".3g2", ".divx"}
LIST_SUFFIXES = frozenset((".txt", ".csv"))
LIST_COLUMNS = ("source", "path", "file", "filename", "image")
_OWN_TABLE = "source,face,"  # how the header of a table that mien wrote begins
LIST_TEXT: dict[str, Any] = {
    "encoding": "utf-8-sig",
    "errors": "surrogateescape",
    "newline": "",
}  # how a list is opened
HEAD = 4096  # bytes of a file that tell whether mien made it, and of a journal its first line
MADE = "made by mien"  # what its annotated copies and timelines say of themselves, among their first bytes
TIMELINE = r"timeline-[1-9][0-9]*\.png"
_MADE_NAME = re.compile(rf".+-mien(-[0-9]+)?(\.jpg|\.png|\.jpg\.png)|{TIMELINE}")
JOURNAL, COPIES = "journal.jsonl", "annotated"  # in the folder of a job: its record, and the folder of annotated copies
# A spreadsheet takes a cell that starts so for a formula (OWASP, CSV injection), so `mien.tables` puts an apostrophe in front.
# Apostrophes before it count, too: else two names would become one.
FORMULA = re.compile(r"'*[=+\-@\t\r]")
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a scheme has two letters or more, a Windows drive one

# What a JPEG may have at most of what costs much work for few bytes: a scan is a pass over all pixels (70 kB were 15 s of work;
# libjpeg writes 10, libtiff reads 100: JPEG_MAX_ALLOWED_SCAN_NUMBER), and Pillow copies all EXIF blocks again for each (14 MB were
# 37 s; large ones that are whole have some hundreds, each of up to 64 kB).
_MOST = {b"\xff\xda": (100, "scans"), b"\xff\xe1": (1000, "EXIF and XMP blocks")}
_MOST_COMMENTS = 1000  # of a PPM in plain text: Pillow copies a megabyte for each (10 MB of them were 92 s)
_SEGMENT = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")  # a marker with a length, or the end (ITU-T T.81, B.1.1.3)

_STRIP = 256  # rows
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {  # EXIF orientation -> what puts the picture upright (EXIF 2.32, table of tag 274)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | np.ndarray


def load(source: Source, *, color: str = "rgb", max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture as RGB uint8 (H, W, 3), a fresh array.

    color: the channel order of a numpy array, "rgb" or "bgr"; other sources know theirs.
    Raises ImageError naming the source and the reason; UsageError for a folder, a video, a URL or an unknown `color`.
    """
    if color not in COLORS:
        raise UsageError(f"color is {color!r}: expected one of {', '.join(COLORS)}")
    if isinstance(source, np.ndarray):
        return _from_array(source, color, max_pixels)
    if color != "rgb":
        raise UsageError(f"color={color!r} is for numpy arrays: {name_of(source)} carries its own channel order")
    if isinstance(source, Image.Image):
        return _from_pillow(source, name_of(source), max_pixels)
    if isinstance(source, str | os.PathLike):
        return _from_path(os.fspath(source), max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_file(io.BytesIO(bytes(source)), name_of(source), max_pixels)
    if hasattr(source, "read"):
        return _from_file(_seekable(source), name_of(source), max_pixels)
    raise UsageError(
        f"cannot read a picture from {type(source).__name__}: expected a path, bytes, an open binary file, a PIL image "
        "or a numpy array"
    )


def name_of(source: Source) -> str:
    """What a reading calls its picture: the path as given, or the kind of object in angle brackets."""
    if isinstance(source, str | os.PathLike):
        return str(os.fspath(source))
    name = getattr(source, "name", None) or getattr(source, "filename", None)
    return str(name) if isinstance(name, str | Path) and name else f"<{type(source).__name__}>"


def refuse_what_is_no_picture(source: str | Path) -> None:
    """Raise UsageError, naming what to call, when a path is empty, a URL, a folder or a video; ImageError for a folder
    that cannot be opened."""
    text = str(source)
    if not text:
        raise UsageError("the path is empty: expected a picture's, a folder's or a list's")
    if re.match("data:[^/]*/[^/]*,", text) and not is_folder(text.partition("/")[0]):
        raise UsageError(f"{text[:30]}...: a data URL is no path; decode its base64 and pass the bytes")
    if (found := _URL.match(text)) and not is_folder(found[0]):  # a folder may be called photos:
        is_storage = "://" in text and not text.lower().startswith("http")
        job = ", or read it as a job of your own storage: -o DIR --engine ray" if is_storage else ""
        raise UsageError(f"{text}: mien never fetches from the web; download the picture and pass its path{job}")
    if is_folder(source):
        _open_folder(source)
        raise UsageError(f"{text} is a folder: call mien.read_folder, or `mien read {text} -o OUT` in a terminal")
    if is_video(source):
        raise UsageError(f"{text} is a video: call mien.read_video, or `mien read {text}` in a terminal")


def _open_folder(folder: str | Path) -> None:
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise ImageError(f"{folder}: the folder cannot be opened ({error.strerror}), nor what is in it") from None


def is_open_folder(path: str | Path) -> bool:
    """Whether the path names a folder that is there and can be opened."""
    if not is_folder(path):
        return False
    try:
        _open_folder(path)
    except ImageError:
        return False
    return True


def is_video(path: str | Path) -> bool:
    """Whether the name is a video's."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES and not is_folder(path)


def stands_for_many(path: str | Path) -> bool:
    """Whether the path is a folder or a list of pictures."""
    return is_folder(path) or Path(path).suffix.lower() in LIST_SUFFIXES


def gather(paths: Iterable[str | Path]) -> list[Path]:
    """The pictures that the paths name, each once, in order: a folder stands for those in it, a list for its lines.

    Raises UsageError for an empty path, a URL or a video, for a folder without pictures and for a list that cannot be
    understood.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if is_folder(path):
            found.update(dict.fromkeys(in_folder(Path(path))))
        elif Path(path).suffix.lower() in LIST_SUFFIXES:
            found.update(dict.fromkeys(in_list(Path(path))))
        else:
            refuse_what_is_no_picture(path)
            found[Path(path)] = None
    return list(found)


def in_folder(folder: Path) -> list[Path]:
    """The files with a picture's name (`is_picture_name`) in `folder` and below, folder by folder, by name; links to folders are
    not followed, as they may lead in circles, nor is a job's folder of annotated copies; copies and timelines elsewhere are left
    out, too. A folder below that cannot be opened is listed itself: whoever reads it says why.

    Raises UsageError when there is none, or `folder` itself cannot be opened.
    """
    found: list[Path] = []
    videos = made = 0

    def unopened(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise UsageError(f"{folder}: the folder cannot be opened ({error.strerror}); check its permissions")
        found.append(Path(error.filename))

    for place, folders, names in os.walk(folder, onerror=unopened):
        copies = JOURNAL in names and makes_copies(_head(Path(place) / JOURNAL))
        folders[:] = sorted(name for name in folders if not (copies and name == COPIES))
        pictures = [Path(place) / name for name in sorted(names) if is_picture_name(name)]
        others = [path for path in pictures if not (has_made_name(path.name) and is_made(_head(path)))]
        found += others
        made += len(pictures) - len(others)
        videos += sum(is_video(Path(place) / name) for name in names)
    if not found:
        kinds = ((videos, "videos"), (made, "copies and timelines by mien"))
        named = [f"; its {count} {kind} are read when they are named themselves" for count, kind in kinds if count]
        raise UsageError(
            f"{folder}: no pictures in this folder; expected files ending in {' '.join(sorted(SUFFIXES))}{''.join(named)}"
        )
    return found


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def has_made_name(name: str) -> bool:
    """Whether the name is one that mien gives to its annotated copies and timelines."""
    return _MADE_NAME.fullmatch(name) is not None


def is_made(head: bytes) -> bool:
    """Whether mien wrote the picture that begins so."""
    return MADE.encode() in head[:256]


def makes_copies(head: bytes) -> bool:
    """Whether the job whose journal begins so writes annotated copies: a folder of that name beside another's journal is
    somebody's own."""
    return f'"{COPIES}": true'.encode() in head.partition(b"\n")[0]


def is_picture_name(name: str) -> bool:
    """Whether a file of that name in a folder is a picture. "._a.jpg" is none: an AppleDouble file, which holds what a foreign
    disk cannot keep with a.jpg itself."""
    return PurePath(name).suffix.lower() in SUFFIXES and not name.startswith("._")


def in_list(path: Path) -> list[Path]:
    """The pictures that a list names: a .txt file with one path a line, or a .csv file with a column called one of
    `LIST_COLUMNS`. A relative path starts from the list's own folder, in a table that mien wrote from the current one, where
    mien ran. Blanks at the ends of a line are left out where only then the file is there.

    Raises UsageError when the list cannot be read, names nothing or lacks such a column.
    """
    start, names = opened_list(path)
    return [listed(start, name) for name in names]


def opened_list(path: Path) -> tuple[Path, list[str]]:
    """Where a list's relative paths start, and the names in it. Raises UsageError as `in_list` does."""
    try:
        with path.open(**LIST_TEXT) as file:
            own, names = names_in_list(file, path)
            return Path() if own else path.parent, names
    except OSError as error:
        why = error.strerror or str(error)  # a pipe's
        raise UsageError(f"{path}: the list cannot be opened ({why}); check its path") from None


def listed(start: Path, name: str) -> Path:
    """The path of one name in a list; blanks at its ends are left out, and what mien's own tables escape is taken back, where
    only then the file is there. A URL stays one, for whoever reads it to refuse."""
    names = (name, name.strip(), _unescaped(name))
    absent = Path(name) if _URL.match(name) else start / name
    return next((path for path in map(start.joinpath, names) if os.path.lexists(path)), absent)


def _unescaped(name: str) -> str:
    """The name as it was before `mien.tables` made it harmless to spreadsheets and to UTF-8."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), bare(name))


def bare(name: str) -> str:
    """A cell of a table that mien wrote without the apostrophe that keeps spreadsheets from taking it for a formula."""
    return name.removeprefix("'") if FORMULA.match(name) else name


def names_in_list(file: IO[str], path: str | Path) -> tuple[bool, list[str]]:
    """Whether a list that is open is a table of mien's own, and the names in it, those of such a table `bare`. Raises UsageError
    as `in_list` does."""
    is_table = Path(path).suffix.lower() == ".csv"
    own = file.readline().startswith(_OWN_TABLE)
    file.seek(0)
    if "\0" in file.read(1000):
        raise UsageError(f"{path}: it holds NUL bytes, as UTF-16 text does; save the list as UTF-8")
    file.seek(0)
    names = _names_in_table(file, path) if is_table else [line.rstrip("\r\n") for line in file]
    found = [name for name in names if name.strip()]
    if not found:
        raise UsageError(f"{path}: the list names no pictures; expected one path in each line")
    return own, [bare(name) for name in found] if own else found


def _names_in_table(file: IO[str], path: str | Path) -> list[str]:
    table = csv.DictReader(file)
    try:
        return _column(table, path)
    except csv.Error as error:  # a cell of more than 131,072 characters, say
        raise UsageError(
            f"{path}, line {table.reader.line_num}: {error}; expected a table with one path in each line"
        ) from None


def _column(table: csv.DictReader, path: str | Path) -> list[str]:
    columns = table.fieldnames or []
    for name in LIST_COLUMNS:
        if name in columns:
            return [row[name] or "" for row in table]
    raise UsageError(
        f"{path}: the columns are {', '.join(columns)}; expected one called {', '.join(LIST_COLUMNS)} with the paths"
    )


def is_folder(path: str | Path) -> bool:
    """Whether the path names a folder that is there."""
    try:
        return bool(str(path)) and Path(path).is_dir()  # Path("") is the current folder
    except OSError:  # a name too long for the file system, say: opening it gives the reason
        return False


def _from_array(array: np.ndarray, color: str, max_pixels: int) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ImageError(f"<ndarray>: dtype is {array.dtype}, expected uint8 (0-255); scale and convert it first")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(f"<ndarray>: shape is {array.shape}, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    _check_size(array.shape[1], array.shape[0], "<ndarray>", max_pixels)
    if array.ndim == 3 and color == "bgr":
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    if array.ndim == 3 and array.shape[2] == 3:
        return np.array(array, order="C")
    return _rgb(Image.fromarray(np.ascontiguousarray(array)), "<ndarray>")


def _from_path(source: str | Path, max_pixels: int) -> np.ndarray:
    refuse_what_is_no_picture(source)
    path = Path(source)
    try:
        if not path.is_file():
            raise ImageError(f"{source}: no such file" if not path.exists() else f"{source}: not a regular file")
        with path.open("rb") as file:
            return _from_file(file, str(source), max_pixels)
    except (OSError, ValueError) as error:  # no permission; a NUL byte in the name
        raise ImageError(f"{source}: cannot be opened ({getattr(error, 'strerror', None) or error})") from None


def _seekable(file: IO[Any]) -> IO[bytes]:
    try:
        data = file.read()
    except UnicodeDecodeError:  # opened as text
        data = ""
    except (OSError, ValueError) as error:  # closed, open for writing, a device that fails
        raise ImageError(f"{name_of(file)}: cannot be read from ({reason(error)})") from None
    if not isinstance(data, bytes):
        raise UsageError(f"{name_of(file)}: the file gives {type(data).__name__}, expected bytes; open it in mode 'rb'")
    if not data and getattr(file, "seekable", bool)() and file.tell():
        raise ImageError(f"{name_of(file)}: the open file was read to its end before; seek(0) first")
    return io.BytesIO(data)


def told_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as the header of a picture file's bytes tells them, nothing decoded; None where that cannot be read here."""
    file = io.BytesIO(data)
    try:
        brand = _brand(file, "the picture")
        return None if brand in _HEIC_BRANDS else _open(file, "the picture", brand).size
    except ImageError:
        return None


def _brand(file: IO[bytes], name: str) -> bytes:
    """What an ISO media file (HEIC, AVIF) calls itself, b"" of others; AVIF may call itself a picture of any kind first, and AVIF
    only among what it is compatible with. Raises ImageError for an empty file."""
    head = file.read(64)
    file.seek(0)
    if not head:
        raise ImageError(f"{name}: the file is empty")
    if head[4:8] != b"ftyp":
        return b""
    brand, end = head[8:12], int.from_bytes(head[:4])
    compatible = {head[at : at + 4] for at in range(16, min(end, len(head)), 4)}
    return b"avif" if brand == b"mif1" and b"avif" in compatible and b"heic" not in compatible else brand


def _from_file(file: IO[bytes], name: str, max_pixels: int) -> np.ndarray:
    brand = _brand(file, name)
    opened = _open_heic(file, name) if brand in _HEIC_BRANDS else _open(file, name, brand)
    return _from_pillow(opened, name, max_pixels)


def _refuse_bomb(file: IO[bytes], name: str) -> None:
    """What is small and takes long. Counting bytes is quick, but counts those of what follows a JPEG, as a film may; then its
    segments are counted."""
    start = file.read(2)
    file.seek(0)
    is_jpeg, is_plain = start == b"\xff\xd8", start in (b"P1", b"P2", b"P3")
    data = file.read() if is_jpeg or is_plain else b""  # from its start: of bytes no copy is made
    file.seek(0)
    if is_plain and data.count(b"#") > _MOST_COMMENTS:
        raise ImageError(
            f"{name}: a plain PPM of more than {_MOST_COMMENTS} comments takes too long to decode; save it anew"
        )
    for marker, (most, what) in _MOST.items() if is_jpeg else ():
        if data.count(marker) > most and _has_more(data, marker, most):
            raise ImageError(f"{name}: a JPEG of more than {most} {what} takes too long to decode; save it anew")


def _has_more(data: bytes, marker: bytes, most: int) -> bool:
    at = count = 0
    while count <= most and (found := _SEGMENT.search(data, at)) and found[1] != b"\xd9":  # the picture's end
        count += found[0] == marker
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return count > most


def _open(file: IO[bytes], name: str, brand: bytes) -> Image.Image:
    """The picture with its header read and nothing decoded."""
    _refuse_bomb(file, name)
    Image.preinit()
    if not {"WEBP", "AVIF"} <= set(Image.OPEN):
        Image.init()
    if brand in _AVIF_BRANDS and "AVIF" not in Image.OPEN:
        raise PictureFormatError(f'{name}: AVIF needs a newer Pillow; run `pip install --upgrade "pillow>=11.3"`')
    try:
        return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.UnidentifiedImageError:
        reads = ", ".join((*FORMATS, "HEIC"))
        raise PictureFormatError(f"{name}: not a picture in a format that mien reads ({reads})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureSizeError(
            f"{name}: too many pixels ({error}); reduce the picture, or raise Pillow's limit, PIL.Image.MAX_IMAGE_PIXELS"
        ) from None
    except Exception as error:  # Pillow's plugins raise whatever their parsers meet
        raise ImageError(f"{name}: its header cannot be read ({reason(error)})") from None


def _open_heic(file: IO[bytes], name: str) -> Any:
    """The same for HEIC, which Pillow cannot open: pillow-heif's image, which decodes on `to_pillow`."""
    if find_spec("pillow_heif") is None:
        raise PictureFormatError(f'{name}: HEIC needs the extra heic; run `pip install "mien[heic]"`')
    import pillow_heif

    try:
        return pillow_heif.open_heif(file)
    except Exception as error:  # libheif's errors come as ValueError, EOFError, RuntimeError ...
        raise ImageError(f"{name}: its header cannot be read ({reason(error)})") from None


def _from_pillow(picture: Any, name: str, max_pixels: int) -> np.ndarray:
    """Check the size, then decode a PIL image (or pillow-heif's) and turn it upright."""
    width, height = picture.size
    _check_size(width, height, name, max_pixels)
    try:
        if not isinstance(picture, Image.Image):
            picture = picture.to_pillow()
        picture.load()
        turn = _TURNS.get(_orientation(picture))
        grey = _wide_grey(picture, name) if picture.mode.startswith("I") else picture
        return _rgb(grey if turn is None else grey.transpose(turn), name)
    except (MienError, MemoryError):
        raise
    except Exception as error:  # truncated or damaged data, a palette too long; every decoder has its own errors
        raise ImageError(f"{name}: its pixels cannot be decoded ({reason(error)})") from None


def _wide_grey(picture: Image.Image, name: str) -> Image.Image:
    """Grey of more than eight bits as its upper eight. A TIFF says how many bits are used (tag 258) and whether 0 is white (tag
    262); Pillow unpacks 12 of them, and leaves white at 0. A picture that was made in memory from 8 bits still holds those.
    A PNG's transparent grey is laid on white. Raises ImageError where values need more than 16 bits."""
    tags = getattr(picture, "tag_v2", {})
    values = np.asarray(picture)
    highest = int(values.max(initial=0))
    if highest > 65_535:  # the range of 32 bits is anybody's guess
        raise ImageError(f"{name}: grey values up to {highest} need more than 16 bits; save it with 8 or 16 bits first")
    told = int(tags.get(258, (32 if picture.format is None else 16,))[0])
    bits = 8 if told == 32 and highest < 256 else min(16, told)  # what has 32 bits holds 8 or 16
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _STRIP):  # int32 of the whole would take more memory than the picture
        strip = values[top : top + _STRIP].astype(np.int32)
        clear = strip == picture.info.get("transparency")
        strip = np.clip(strip, 0, 2**bits - 1)
        if tags.get(262) == 0:
            strip = 2**bits - 1 - strip
        grey[top : top + _STRIP] = np.where(clear, 255, strip >> (bits - 8))
    return Image.fromarray(grey)


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or the EXIF block is damaged."""
    xmp: dict[str | tuple[int, int], Any] = {
        name: picture.info.pop(name) for name in ("xmp", "XML:com.adobe.xmp") if name in picture.info
    }
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block is no reason to refuse the pixels
        return 1
    finally:
        picture.info.update(xmp)  # where Pillow would have looked next; a viewer does not


def _rgb(picture: Image.Image, name: str) -> np.ndarray:
    """A decoded picture of any mode -> RGB uint8 (H, W, 3)."""
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = _on_white(picture)
    if picture.mode == "F":  # its range is anybody's guess
        raise ImageError(f"{name}: floating-point pixels are not supported; save it with 8 or 16 bits first")
    return np.array(picture.convert("RGB"))


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "La":  # alpha multiplied in already: Pillow converts it to LA alone
        picture = picture.convert("LA")
    layer = picture.convert("RGBA")
    paper = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(paper, layer)


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the picture is empty ({width} x {height} px)")
    if width * height > max_pixels:
        raise PictureSizeError(
            f"{name}: {width} x {height} px are {width * height / 1e6:.1f} megapixels, "
            f"the limit is {max_pixels / 1e6:.1f}; reduce the picture or raise {RAISED}"
        )


def reason(error: Exception) -> str:
    """The first line of what an error of somebody's library says, or its kind."""
    text = str(error).strip().split("\n")[0]
    return text or type(error).__name__
