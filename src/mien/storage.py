"""Files by URL (s3://, gs://, hdfs://, file:// ...), through fsspec and the driver that the user installed for them.

Only jobs on Ray take URLs (`mien read s3://bucket/faces -o s3://bucket/out --engine ray`). A plain path stays a path.
Web addresses are refused: mien reads storage, it does not fetch pages.
"""

import contextlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mien import images
from mien.errors import ImageError, UsageError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # a scheme has two letters or more, a Windows drive one
_WEB = frozenset(("http", "https"))
# Stores of objects in buckets have no folders to make: asked for one, their drivers make the bucket, also a mistyped one.
_STORES = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "ocilake", "tos", "tosfs"))


def is_url(place: str | Path) -> bool:
    """Whether the place is a URL. A `Path` never is: it has merged the slashes."""
    return isinstance(place, str) and _URL.match(place) is not None


def protocols(sources: Iterable[str]) -> tuple[str, ...]:
    """The schemes of the URLs among the sources, each once, sorted; of a chain (zip://a.jpg::s3://b/c.zip) all parts'."""
    return tuple(sorted({scheme for source in sources if is_url(source) for scheme in _schemes(source)}))


def _schemes(url: str) -> list[str]:
    """The scheme of each part, as fsspec takes a chain apart: a part may be a scheme alone (simplecache) or a path."""
    parts = [part.partition("://") for part in url.split("::")]
    return [before for before, colon, _ in parts if colon or re.fullmatch("[a-z]+", before)]


def check_protocols(names: Iterable[str]) -> None:
    """Raises UsageError unless every scheme's driver is installed here."""
    for name in names:
        _driver(name)


def gather(paths: Iterable[str]) -> list[str]:
    """The pictures that the paths and URLs name, each once, in the order of `images.gather`: a folder stands for those
    in it and below, a list for its lines, which may name paths and URLs.

    Raises UsageError as `images.gather` does, and for a web address or a URL whose driver is not installed.
    """
    found: dict[str, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_gathered(path)))
    check_protocols(protocols(found))
    return list(found)


def open_picture(url: str) -> IO[bytes]:
    """The file's bytes under the URL as its name. Raises ImageError naming the URL and the reason."""
    try:
        system, path = _at(url)
        # To open a pipe takes for ever.
        if "file" in system.protocol and system.exists(path) and not system.isfile(path):
            raise IsADirectoryError
        return _Named(system.cat_file(path), url)
    except UsageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{url}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{url}: not a regular file") from None
    except Exception as error:  # every driver has errors of its own
        raise ImageError(f"{url}: cannot be opened ({images.reason(error)})") from None


class Folder:
    """The files directly in a folder at a URL. A file is written and read whole. Raises UsageError with the reason
    where the storage refuses."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._system, self._path = _at(self.url)

    def names(self) -> list[str]:
        """The files' names, sorted; [] where there is no folder."""
        try:
            self._system.invalidate_cache()
            return sorted(PurePosixPath(path).name for path in self._system.ls(self._path, detail=False))
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._refused("listed", error) from None

    def has(self, name: str) -> bool:
        try:
            self._system.invalidate_cache()
            return bool(self._system.exists(f"{self._path}/{name}"))
        except Exception as error:
            raise self._refused("read", error) from None

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The files' contents, fetched at once where the driver can."""
        if not names:
            return []
        try:
            # Not by `cat`, which takes a [ or * in the folder's own name for a pattern.
            found = self._system.cat_ranges([f"{self._path}/{name}" for name in names], None, None)
            if refused := next((one for one in found if isinstance(one, Exception)), None):
                raise refused
        except Exception as error:
            raise self._refused("read", error) from None
        return list(found)

    def write(self, name: str, data: bytes) -> None:
        if not _STORES.intersection(_schemes(self.url)):
            with contextlib.suppress(Exception):  # whatever is wrong, writing tells
                self._system.makedirs(self._path, exist_ok=True)
        try:
            self._system.pipe_file(f"{self._path}/{name}", data)
        except Exception as error:
            raise self._refused("written", error) from None

    def remove(self, names: Iterable[str]) -> None:
        try:
            for name in names:
                self._system.rm_file(f"{self._path}/{name}")
        except Exception as error:
            raise self._refused("removed", error) from None

    def _refused(self, what: str, error: Exception) -> UsageError:
        return UsageError(
            f"{self.url}: cannot be {what} ({images.reason(error)}); check the URL and the credentials that its driver uses"
        )


class _Named(io.BytesIO):
    """Bytes with the name that error messages and readings give them."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def _gathered(path: str) -> list[str]:
    suffix = PurePosixPath(path).suffix.lower()
    if not is_url(path):
        return _listed(path) if suffix in images.LIST_SUFFIXES and not images.is_folder(path) else _local(path)
    if suffix in images.LIST_SUFFIXES:
        return _listed(path)
    system, place = _at(path)
    try:
        folder = system.isdir(place)
        found = _pictures(system, system.find(place)) if folder else []
    except Exception as error:
        raise UsageError(
            f"{path}: cannot be listed ({images.reason(error)}); check the URL and its credentials"
        ) from None
    if not folder:
        return [path]
    if not found:
        raise UsageError(f"{path}: no pictures there; expected files ending in {' '.join(sorted(images.SUFFIXES))}")
    # Folder by folder, a folder's own files before those below it, by name: as `images.in_folder` walks.
    ordered = sorted(found, key=lambda name: (PurePosixPath(name).parts[:-1], PurePosixPath(name).name))
    return [str(system.unstrip_protocol(name)) for name in ordered]


def _pictures(system: Any, names: Sequence[str]) -> list[str]:
    """Of the files in a folder and below those that `images.in_folder` takes."""
    journals = [name for name in names if PurePosixPath(name).name == images.JOURNAL]
    copies = tuple(
        f"{journal.removesuffix(images.JOURNAL)}{images.COPIES}/"
        for journal, head in _heads(system, journals).items()
        if images.makes_copies(head)
    )
    found = [name for name in names if images.is_picture_name(PurePosixPath(name).name) and not name.startswith(copies)]
    doubted = [name for name in found if images.has_made_name(PurePosixPath(name).name)]
    made = {name for name, head in _heads(system, doubted).items() if images.is_made(head)}
    return [name for name in found if name not in made]


def _heads(system: Any, names: list[str]) -> dict[str, bytes]:
    """The first bytes of each file, none of one that cannot be read."""
    found = system.cat_ranges(names, 0, images.HEAD) if names else []
    return {name: head if isinstance(head, bytes) else b"" for name, head in zip(names, found, strict=True)}


def _local(path: str) -> list[str]:
    return [str(found) for found in images.gather([path])]


def _listed(path: str) -> list[str]:
    """What a list names, wherever it lies; a relative path starts where `images.in_list` says."""
    if is_url(path):
        with _open_list(path) as file:
            own, names = images.names_in_list(file, path)
        if not own:
            root = path.rpartition("/")[0]
            return [name if _absolute(name) else f"{root}/{name}" for name in names]
        start = Path()
    else:
        start, names = images.opened_list(Path(path))
    return [name if is_url(name) else str(images.listed(start, name)) for name in names]


def _absolute(name: str) -> bool:
    return is_url(name) or Path(name).is_absolute()


def _open_list(url: str) -> IO[str]:
    system, path = _at(url)
    try:
        return io.TextIOWrapper(io.BytesIO(system.cat_file(path)), **images.LIST_TEXT)
    except Exception as error:
        raise UsageError(f"{url}: the list cannot be opened ({images.reason(error)}); check the URL") from None


def _at(url: str) -> tuple[Any, str]:
    """fsspec's file system and the path in it. Raises UsageError where there is no driver for the scheme."""
    if not is_url(url):
        raise UsageError(f"{url} is no URL: expected something like s3://bucket/folder")
    check_protocols(_schemes(url))
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except Exception as error:  # no credentials, a wrong endpoint
        raise UsageError(
            f"{url}: cannot be reached ({images.reason(error)}); check the URL and its credentials"
        ) from None
    return system, str(path)


def _driver(protocol: str) -> None:
    if protocol.lower() in _WEB:
        raise UsageError(f"{protocol}://: mien never fetches from the web; download the pictures and pass their path")
    try:
        import fsspec
    except ImportError:
        raise UsageError(f'{protocol}:// needs fsspec, of the extra ray; run `pip install "mien[ray]"`') from None
    try:
        fsspec.get_filesystem_class(protocol)
    except ValueError:
        known = ", ".join(sorted(set(fsspec.available_protocols()) - _WEB))
        raise UsageError(f"{protocol}:// is not a scheme that fsspec knows: expected one of {known}") from None
    except ImportError as error:  # fsspec says which package to install: "Install s3fs to access S3"
        raise UsageError(f"{protocol}:// needs its driver: {images.reason(error)}") from None
