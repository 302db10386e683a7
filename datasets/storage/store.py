"""A folder of files by any fsspec URL: a local folder, s3://bucket/prefix, memory://...

Whatever lies under its final name is complete. A local file appears by one atomic rename; an object store's put is
atomic by itself.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from datasets.storage.local_files import (
    create_file,
    list_files,
    remove_leftovers,
    replace_file,
    require_plain,
)
from datasets.storage.locks import locked_folder
from datasets.storage.store_url import require_no_secret

_REMEDIES = {
    errno.ENOSPC: "free space there or choose another store",
    errno.EDQUOT: "free space there or choose another store",
    errno.EACCES: "give this user write access or choose another store",
    errno.EPERM: "give this user write access or choose another store",
    errno.EROFS: "remount it writable or choose another store",
    errno.ENOTDIR: "a file stands where a folder is needed: remove it or choose another store",
    errno.EEXIST: "a file stands where a folder is needed: remove it or choose another store",
    errno.EISDIR: "a folder stands where a file is needed: remove it or choose another store",
    errno.ENXIO: "put a plain file in its place",
    errno.ENOENT: "make the bucket or folder it stands in, or choose another store",
}

_NUMBERS: dict[type[OSError], int] = {PermissionError: errno.EACCES, FileNotFoundError: errno.ENOENT}


class StoreError(OSError):
    """A store cannot be read or written. The message names the path, the reason and the way out."""

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError would forget the number on its way from another process.
        return _rebuilt_error, (str(self), self.errno)


def _rebuilt_error(message: str, number: int | None) -> StoreError:
    error = StoreError(message)
    error.errno = number
    return error


class Store:
    """Reads and writes whole files below one URL. Safe to share among threads, and picklable.

    Paths are relative, with forward slashes, and never leave the store.

    Attributes:
        root: The store's URL without a slash at the end; an absolute path for a local folder.
    """

    def __init__(self, url: str | Path) -> None:
        """Name a store; nothing is touched yet.

        Args:
            url: A folder or any fsspec URL. Credentials come from the backend's own environment variables.

        Raises:
            ValueError: The URL is empty, holds credentials, or is of a protocol that is unknown or not installed.
        """
        text = os.fspath(url)
        if not text:
            raise ValueError("the store's URL is empty; give a folder or an fsspec URL such as s3://bucket/prefix.")
        require_no_secret("store", text)
        resolved = text if "://" in text else str(Path(text).expanduser())
        try:
            # Listings are never cached: other processes write to the same store.
            self._fs, self._base = url_to_fs(resolved, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise ValueError(f"store {text!r} cannot be opened: {error}; check the URL and its backend.") from error
        self._base = self._base.rstrip("/") or "/"
        self._local = isinstance(self._fs, LocalFileSystem)
        self.root: str = self._base if self._local else self._fs.unstrip_protocol(self._base).rstrip("/")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r})"

    @property
    def backend(self) -> tuple[Any, str]:
        """The fsspec file system, and the path in it below which the store lies."""
        return self._fs, self._base

    def url(self, path: str = "") -> str:
        """The full URL of a path; an absolute file name for a local folder."""
        return f"{self.root}/{_relative(path)}" if path else self.root

    def child(self, prefix: str) -> "Store":
        """The store of a folder below this one."""
        return Store(self.url(prefix))

    def read(self, path: str) -> bytes:
        """The whole content of a file.

        Raises:
            FileNotFoundError: There is no such file.
            StoreError: It cannot be read, or is no plain file (a pipe would never end).
        """
        with self.naming("read", path):
            if self._local:
                require_plain(Path(self._full(path)))
            return cast(bytes, self._fs.cat_file(self._full(path)))

    def open_read(self, path: str) -> IO[bytes]:
        """Open a file for reading as a stream of bytes. Raises as `read` does."""
        with self.naming("read", path):
            if self._local:
                require_plain(Path(self._full(path)))
            return cast(IO[bytes], self._fs.open(self._full(path), "rb"))

    def size(self, path: str) -> int:
        """Bytes of a file, without reading it. Raises as `read` does."""
        with self.naming("read", path):
            if self._local:
                require_plain(Path(self._full(path)))
            return int(self._fs.info(self._full(path), **({} if self._local else {"refresh": True}))["size"])

    def write(self, path: str, data: bytes) -> None:
        """Write a file, whole or not at all, over one of that name.

        Raises:
            StoreError: It cannot be written, e.g. because the disk is full.
        """
        with self.naming("written", path):
            if self._local:
                replace_file(Path(self._full(path)), data)
            else:
                self._fs.pipe_file(self._full(path), data)

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless one of that name exists.

        Returns:
            Whether this call wrote it. Of several writers of different contents at once exactly one gets True (on an
            object store: where it obeys If-None-Match, as S3 does).

        Raises:
            StoreError: It cannot be written.
        """
        with self.naming("written", path):
            if self._local:
                return create_file(Path(self._full(path)), data)
            if self.exists(path):
                return False
            try:
                self._fs.pipe_file(self._full(path), data, mode="create")
            except OSError:
                if not self.exists(path):
                    raise
                # Another writer was first, or our own request got through although its answer was lost.
                return self.read(path) == data
            return True

    def swap(self, path: str, data: bytes, *, expected: bytes | None) -> bool:
        """Write a file only where it still has the expected content.

        Args:
            path: The file.
            data: The new content.
            expected: The content it must have; None where there must be no such file.

        Returns:
            Whether this call wrote it. False where another writer changed the file (S3: a put with If-Match). On a
            local folder the caller holds a lock; other backends compare first and then write.

        Raises:
            StoreError: It cannot be written.
        """
        if expected is None:
            return self.create(path, data)
        with self.naming("written", path):
            if self._is_s3():
                return self._swap_s3(path, data, expected=expected)
            try:
                unchanged = self.read(path) == expected
            except FileNotFoundError:
                return False
            if unchanged:
                self.write(path, data)
            return unchanged

    def _swap_s3(self, path: str, data: bytes, *, expected: bytes) -> bool:
        full = self._full(path)
        try:
            tag = self._fs.info(full, refresh=True)["ETag"]
            if self._fs.cat_file(full) != expected:
                return False
            self._fs.pipe_file(full, data, IfMatch=tag)
        except FileNotFoundError:
            return False
        except OSError as error:
            answer = getattr(error.__cause__, "response", {}).get("Error", {})
            if answer.get("Code") not in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}:
                raise
            return bool(self._fs.cat_file(full) == data)  # ours may have got through although its answer was lost
        return True

    def exists(self, path: str) -> bool:
        """Whether there is a file (not a folder) of that name.

        Raises:
            StoreError: It cannot be told, or what is there is no plain file (a pipe, a device).
        """
        with self.naming("read", path):
            if self._local and self._fs.exists(self._full(path)):
                require_plain(Path(self._full(path)))
            return bool(self._fs.isfile(self._full(path)))

    def list(self, prefix: str = "") -> list[str]:
        """The paths of all files below a folder, sorted, relative to the store; [] where there is no such folder.

        Temporary copies of running or killed writers are not among them.
        """
        with self.naming("read", prefix):
            if self._local:
                paths = [str(path) for path in list_files(Path(self._full(prefix)))]
            else:
                try:
                    paths = list(self._fs.find(self._full(prefix)))
                except FileNotFoundError:
                    paths = []
        return sorted(name[len(self._base) :].lstrip("/") for name in paths)

    def remove(self, path: str) -> None:
        """Remove a file; one that is already gone is no error, since another process may have been first."""
        with self.naming("removed", path):
            try:
                self._fs.rm_file(self._full(path))
            except FileNotFoundError:
                return

    def remove_tree(self, prefix: str) -> None:
        """Remove a folder with all that is below it; one that is already gone is no error."""
        with self.naming("removed", prefix):
            if self._fs.exists(self._full(prefix)):
                self._fs.rm(self._full(prefix), recursive=True)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep other threads and processes from the same block, for a local folder.

        On an object store the block runs without a lock; what is written in it must bear that.
        """
        if not self._local:
            yield
            return
        with ExitStack() as held:
            with self.naming("locked", ""):
                held.enter_context(locked_folder(Path(self._base), name))
            yield

    def clean_temporary(self) -> tuple[str, ...]:
        """Remove the temporary copies that killed writers left in a local store. Returns their paths, sorted."""
        if not self._local:
            return ()
        with self.naming("cleaned", ""):
            return tuple(sorted(str(path.relative_to(self._base)) for path in remove_leftovers(Path(self._base))))

    def check_writable(self, prefix: str = "") -> None:
        """Write and remove a small file, so that a run that cannot store its images stops before it makes any.

        Args:
            prefix: The folder that will be written. On an object store rights may end at it, so the file lies in it; on
                a local store it would leave the folder behind.

        Raises:
            StoreError: The store cannot be written.
        """
        name = f".writable-{os.getpid()}-{os.urandom(4).hex()}"
        probe = f"{prefix}/{name}" if prefix and not self._local else name
        self.write(probe, b"probe\n")
        self.remove(probe)

    def _full(self, path: str) -> str:
        return f"{self._base}/{_relative(path)}" if path else self._base

    @contextmanager
    def naming(self, action: str, path: str) -> Iterator[None]:
        """Turn a backend's errors in the block into ones that name the path, the reason and the way out.

        Args:
            action: What is done to the path: "read", "written", "removed" ...
            path: Relative to the store.
        """
        failures: tuple[type[Exception], ...] = (OSError, *self._backend_errors())
        try:
            yield
        except StoreError:
            raise
        except FileNotFoundError as error:
            if action == "read":
                raise FileNotFoundError(f"{self.url(path)} does not exist; check the path.") from error
            raise _store_error(action, self.url(path), error) from error
        except failures as error:
            raise _store_error(action, self.url(path), error) from error

    def _is_s3(self) -> bool:
        return self.root.startswith(("s3://", "s3a://"))

    def _backend_errors(self) -> tuple[type[Exception], ...]:
        if not self._is_s3():
            return ()
        # Missing credentials and unreachable endpoints are no OSErrors there.
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

        return (BotoCoreError,)


def _relative(path: str) -> str:
    if path.startswith("/") or "\\" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError(f"path {path!r} must be relative, with plain names between single slashes.")
    return path


def _store_error(action: str, url: str, error: Exception) -> StoreError:
    code = error.errno if isinstance(error, OSError) else None
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    if code is None:  # object stores raise the right type without a number
        code = next((number for kind, number in _NUMBERS.items() if isinstance(error, kind)), None)
    remedy = _REMEDIES.get(code or 0, "check that the store can be reached, then run again")
    return _rebuilt_error(f"{url} cannot be {action}: {reason[0].lower()}{reason[1:].rstrip('.')}; {remedy}.", code)
