"""Encoded images by name, out of a folder or a zip archive; nothing is ever unpacked."""

import os
import threading
import zipfile
import zlib
from pathlib import Path
from typing import Any, Protocol


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
    place = Path(path)
    if place.is_dir():
        return FolderFiles(place)
    if not place.is_file():
        raise FileNotFoundError(f"{place} does not exist; name a folder or a zip archive of images.")
    return ZipFiles(place)


def require_inside(path: Path, folder: Path) -> None:
    """Refuse a file that a link leads out of its set's folder: an unpacked archive may bring links to anywhere.

    The folder itself may be a link.

    Raises:
        ValueError: The file lies elsewhere.
    """
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"{path} is a link that leads out of {folder}; put the file itself there, or remove the link.")


class FolderFiles:
    """The files below a folder, hidden ones left out."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> set[str]:
        """All names, relative, with forward slashes."""
        found = set()
        for folder, _, files in os.walk(self._root):
            below = Path(folder).relative_to(self._root)
            found |= {(below / name).as_posix() for name in files if not name.startswith(".")}
        return found

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            ValueError: It is missing, unreadable, or lies outside the folder, be it by a link.
        """
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{name!r} leads out of {self._root}; name images by paths below it.")
        require_inside(self._root / name, self._root)
        try:
            return (self._root / name).read_bytes()
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
            ValueError: It is missing, damaged, encrypted, or packed in an unknown way.
        """
        try:
            return self._archive().read(name)
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
