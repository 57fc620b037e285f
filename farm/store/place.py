"""Where a store is: a directory of this machine, or one on any file system that pyarrow opens.

Both hold whole files only: a file is there completely or not at all, and is never written twice with
different content. Names that start with a dot are files that are being written; nobody sees them.

Credentials come from the environment, as pyarrow takes them. They are refused in a root, which is
printed and sent to workers.
"""

import errno
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from farm.errors import StoreError

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.fs

Root = str | os.PathLike[str]
"""a path, or a URI such as ``s3://bucket/runs?endpoint_override=minio:9000&scheme=http``"""

PUT_WHOLE = ("s3", "gcs", "abfs")
"""types of file systems on which an upload appears only when it is complete"""

DEFAULT_PARAMETERS: Mapping[str, Mapping[str, str]] = {
    # small files in one request, not in the three of an upload in parts
    "s3": {"allow_delayed_open": "true"},
    # a quarter of an hour otherwise, in which nobody is told anything
    "gs": {"retry_limit_seconds": "10"},
}
"""added to URIs of a scheme that do not say otherwise"""

SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_KEY")
"""variables of the environment whose value no message may hold"""


class File(NamedTuple):
    """A file below a place."""

    name: str
    """relative, with ``/`` between directories"""
    size: int
    """bytes"""


class Place(ABC):
    """A directory that may not exist yet. All methods raise OSError where they are refused."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Its last part."""

    @property
    @abstractmethod
    def parent(self) -> Self:
        """What it is in."""

    @abstractmethod
    def __truediv__(self, name: str) -> Self:
        """A directory below."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file."""

    @abstractmethod
    def put(self, name: str, content: bytes | memoryview) -> None:
        """Write a file that appears complete or not at all, and is safe when this returns. To put the
        same content again does no harm."""

    @abstractmethod
    def walk(self) -> list[File]:
        """All files below, sorted by name; none if the directory does not exist."""

    @abstractmethod
    def entries(self) -> dict[str, bool]:
        """What is directly in it by name, in order: whether that is a directory. None if it does not
        exist."""

    @abstractmethod
    def dataset_of(self, names: list[str]) -> "tuple[list[str], pyarrow.fs.FileSystem | None]":
        """Files in it as :func:`pyarrow.dataset.dataset` takes them: paths and file system."""

    def files(self, suffix: str) -> list[str]:
        """Names of the files directly in it with this suffix, sorted."""
        return [name for name, is_directory in self.entries().items() if name.endswith(suffix)]


@dataclass(frozen=True)
class LocalPlace(Place):
    """A directory of this machine or of a file system mounted here."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def parent(self) -> "LocalPlace":
        return LocalPlace(self.path.parent)

    def __truediv__(self, name: str) -> "LocalPlace":
        return LocalPlace(self.path / name)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def put(self, name: str, content: bytes | memoryview) -> None:
        write_new(self.path / name, content)

    def walk(self) -> list[File]:
        found = []
        for directory, below, names in os.walk(self.path):
            below[:] = [name for name in below if not name.startswith(".")]
            for name in names:
                path = os.path.join(directory, name)
                if not name.startswith("."):
                    try:
                        size = os.stat(path).st_size
                    except FileNotFoundError:
                        continue
                    found.append(File(Path(path).relative_to(self.path).as_posix(), size))
        return sorted(found)

    def entries(self) -> dict[str, bool]:
        try:
            with os.scandir(self.path) as found:
                return dict(sorted((e.name, e.is_dir()) for e in found if not e.name.startswith(".")))
        except FileNotFoundError:
            return {}

    def dataset_of(self, names: list[str]) -> "tuple[list[str], pyarrow.fs.FileSystem | None]":
        return [str(self.path / name) for name in names], None


@dataclass(frozen=True)
class RemotePlace(Place):
    """A directory on a file system that pyarrow opens by a URI."""

    root: str
    """the URI, without credentials"""
    below: str = ""
    """relative path below it"""

    def __str__(self) -> str:
        parts = urlsplit(self.root)
        return urlunsplit(parts._replace(path=_joined(parts.path, self.below)))

    @property
    def name(self) -> str:
        return PurePosixPath(self.below).name

    @property
    def parent(self) -> "RemotePlace":
        return RemotePlace(self.root, self.below.rpartition("/")[0])

    def __truediv__(self, name: str) -> "RemotePlace":
        return RemotePlace(self.root, _joined(self.below, name))

    def read(self, name: str) -> bytes:
        with self._system.open_input_file(f"{self._path}/{name}") as file:
            content: bytes = file.read()
        return content

    def put(self, name: str, content: bytes | memoryview) -> None:
        path = f"{self._path}/{name}"
        if self._system.type_name in PUT_WHOLE:
            self._upload(path, content)
            return
        directory, _, leaf = path.rpartition("/")
        self._system.create_dir(directory, recursive=True)
        self._upload(f"{directory}/.{leaf}", content)
        self._system.move(f"{directory}/.{leaf}", path)

    def walk(self) -> list[File]:
        found = self._list(recursive=True)
        return sorted(File(name, size) for name, size, _ in found if not _is_hidden(name))

    def entries(self) -> dict[str, bool]:
        if self._system.type_name == "gcs":
            # pyarrow lists a directory there only if there is an object of its name
            return {name.partition("/")[0]: "/" in name for name, _ in self.walk()}
        found = self._list(recursive=False)
        return dict(sorted((name, is_dir) for name, _, is_dir in found if not _is_hidden(name)))

    def dataset_of(self, names: list[str]) -> "tuple[list[str], pyarrow.fs.FileSystem | None]":
        return [f"{self._path}/{name}" for name in names], self._system

    def existing(self, names: list[str]) -> list[str]:
        """Those of these files that are there."""
        import pyarrow.fs

        found = self._system.get_file_info([f"{self._path}/{name}" for name in names])
        pairs = zip(names, found, strict=True)
        return [name for name, info in pairs if info.type == pyarrow.fs.FileType.File]

    def _list(self, recursive: bool) -> list[tuple[str, int, bool]]:
        import pyarrow.fs

        selector = pyarrow.fs.FileSelector(self._path, recursive=recursive, allow_not_found=True)
        found = []
        for info in self._system.get_file_info(selector):
            is_directory = info.type == pyarrow.fs.FileType.Directory
            if not (recursive and is_directory):
                relative = PurePosixPath(info.path).relative_to(self._path)
                found.append((str(relative), info.size or 0, is_directory))
        return found

    def _upload(self, path: str, content: bytes | memoryview) -> None:
        stream = self._system.open_output_stream(path)
        stream.write(content)
        # not in a finally: to close is to complete the upload
        stream.close()

    @property
    def _system(self) -> "pyarrow.fs.FileSystem":
        return _opened(self.root)[0]

    @property
    def _path(self) -> str:
        return _joined(_opened(self.root)[1], self.below)


def place_of(root: Root) -> Place:
    """The place that a user names.

    Raises:
        StoreError: a URI that holds credentials, or that pyarrow cannot open.
    """
    text = os.fspath(root)
    if "://" not in text:
        return LocalPlace(Path(text))
    parts = urlsplit(text)
    if parts.scheme == "file":
        return LocalPlace(Path(unquote(parts.path)))
    user = parts.netloc.rpartition("@")[0]
    if user and (parts.scheme, user) not in (("gs", "anonymous"), ("gcs", "anonymous")):
        raise StoreError(
            f"store {parts.scheme}://...: a root must not hold credentials, which it would show; set them in "
            "the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    place = RemotePlace(urlunsplit(parts._replace(path=parts.path.rstrip("/"))))
    if not parts.netloc and parts.scheme in DEFAULT_PARAMETERS:
        raise StoreError(f"store {text!r}: names no bucket; use {parts.scheme}://BUCKET/PATH")
    _opened(place.root)
    return place


def write_new(path: Path, content: bytes | memoryview) -> None:
    """Write a local file that appears complete or not at all, and is on disk when this returns."""
    # a name of its own: two processes may fetch the same file at the same time
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def reason(error: Exception) -> str:
    """Why a place refused, in one line without secrets."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.strerror} ({error.filename})"
    else:
        text = " ".join(str(error).split())
    for name in SECRETS:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, f"${name}")
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def remedy(error: Exception, otherwise: str) -> str:
    """What to do about it; ``otherwise`` where the error does not say what it is."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some space"
    text = str(error)
    for marks, what in _REMEDIES:
        if any(mark in text for mark in marks):
            return what
    return otherwise


_LONGEST_REASON = 300

_REMEDIES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "InvalidAccessKeyId", "SIGNATURE", "HTTP status 403"),
        "check the credentials in the environment and what they may do",
    ),
    (("NO_SUCH_BUCKET", "bucket does not exist"), "make the bucket, or name another"),
    (("StorageFull", "HTTP status 507", "QuotaExceeded"), "free some space"),
    (
        ("NETWORK_CONNECTION", "curlCode", "Could not connect", "UNAVAILABLE", "retry"),
        "check that the server answers at this address",
    ),
)
"""parts of what the object stores' libraries say, and what to do about them"""


def _joined(above: str, below: str) -> str:
    return f"{above.rstrip('/')}/{below}" if above and below else above or below


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


@cache
def _opened(root: str) -> "tuple[pyarrow.fs.FileSystem, str]":
    import pyarrow
    import pyarrow.fs

    parts = urlsplit(root)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    query = urlencode({**DEFAULT_PARAMETERS.get(parts.scheme, {}), **given})
    try:
        system, path = pyarrow.fs.FileSystem.from_uri(urlunsplit(parts._replace(query=query)))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise StoreError(
            f"store {root!r}: cannot be opened ({reason(error)}); "
            + remedy(error, "use a path, s3://BUCKET/PATH or gs://BUCKET/PATH")
        ) from None
    return system, path
