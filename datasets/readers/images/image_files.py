"""Encoded images by name, out of a folder or a zip archive; nothing is ever unpacked."""

import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

# What one encoded image may have.
MAX_BYTES = 2**28


class ImageFiles(Protocol):
    """A place that holds encoded images under relative names."""

    def names(self) -> set[str]:
        """All names, relative, with forward slashes."""
        ...

    def read(self, name: str) -> bytes:
        """The content of one file; ValueError where it is missing or damaged."""
        ...


def open_image_files(path: str | Path) -> ImageFiles:
    """Open a folder, or a zip archive by its content.

    Raises:
        FileNotFoundError: There is nothing of that name.
        ValueError: It is a file, but no readable zip archive.
    """
    resolved = Path(path)
    if resolved.is_dir():
        return FolderFiles(resolved)
    if not resolved.is_file():
        raise FileNotFoundError(f"{resolved} does not exist; name a folder or a zip archive of images.")
    return ZipFiles(resolved)


def require_inside(path: Path, folder: Path) -> None:
    """Refuse a file that a link leads out of its set's folder: an unpacked archive may bring links to anywhere.

    The folder itself may be a link.

    Raises:
        ValueError: The file lies elsewhere.
    """
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"{path} is a link that leads out of {folder}; put the file itself there, or remove the link.")


@contextmanager
def open_plain(path: Path, folder: Path) -> Iterator[IO[bytes]]:
    """Open a file of a set, never a pipe, a device or a link out of the set's folder.

    Raises:
        OSError: It is missing or may not be read.
        ValueError: It is no plain file, has more than MAX_BYTES bytes, or lies elsewhere.
    """
    require_inside(path, folder)
    # Without waiting for whoever writes into a pipe.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is a pipe or a device, not a plain file; remove it.")
        require_length(str(path), status.st_size)
        yield file


def read_plain(path: Path, folder: Path) -> bytes:
    """The content of a file of a set; raises as `open_plain` does."""
    with open_plain(path, folder) as file:
        return file.read(MAX_BYTES)


def require_length(name: str, size: int) -> None:
    """Refuse an encoded image by the length that it is said to have, before it is read.

    Raises:
        ValueError: It has more than MAX_BYTES bytes.
    """
    if size > MAX_BYTES:
        raise ValueError(
            f"{name} has {size:,} bytes, more than the {MAX_BYTES:,} that an image may have; replace or remove it."
        )


class FolderFiles:
    """The files below a folder, hidden ones left out."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> set[str]:
        """All names, relative, with forward slashes."""
        names = set()
        for folder, _, files in os.walk(self._root):
            below = Path(folder).relative_to(self._root)
            names |= {(below / name).as_posix() for name in files if not name.startswith(".")}
        return names

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            ValueError: It is missing, unreadable, no plain file, has more than MAX_BYTES bytes, or lies outside the
                folder, be it by a link.
        """
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name!r} leads out of {self._root}; name images by paths below it.")
        try:
            return read_plain(self._root / name, self._root)
        except OSError as error:
            raise ValueError(f"{self._root / name} cannot be read ({error.strerror}); restore or remove it.") from error


class ZipFiles:
    """The members of a zip archive. Safe among threads, forked and spawned processes: each opens its own handle."""

    def __init__(self, path: Path) -> None:
        """Open the archive.

        Raises:
            ValueError: It is no readable zip archive.
        """
        self._path = path
        self._handles = threading.local()
        try:
            # A folder's name ends in "/"; a damaged archive may hold a member without a name.
            self._members = {name for name in self._archive().namelist() if name and not name.endswith("/")}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ValueError(f"{path} is not a readable zip archive ({error}); fetch it again.") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._path, "members": self._members}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._path, self._members = state["path"], state["members"]
        self._handles = threading.local()

    def names(self) -> set[str]:
        """All names, relative, with forward slashes."""
        return self._members

    def read(self, name: str) -> bytes:
        """The content of one member.

        Raises:
            ValueError: It is missing, damaged, encrypted, packed in an unknown way, or declares more than MAX_BYTES
                bytes.
        """
        try:
            member = self._archive().getinfo(name)
            require_length(f"{self._path}: {name}", member.file_size)
            return self._archive().read(member)
        except KeyError as error:
            raise ValueError(f"{self._path} has no member {name!r}; correct the table or the archive.") from error
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise ValueError(f"{self._path}: {name} cannot be read ({error}); fetch the archive again.") from error

    def _archive(self) -> zipfile.ZipFile:
        # A forked process must not share its parent's file position.
        if getattr(self._handles, "process", None) != os.getpid():
            self._handles.archive = zipfile.ZipFile(self._path)
            self._handles.process = os.getpid()
        archive: zipfile.ZipFile = self._handles.archive
        return archive
