"""Weights by path or by URL. Of what a server sends, the size, the pace, the end and the content are checked."""

import contextlib
import hashlib
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from minority.weights.checksums import file_sha256
from minority.weights.errors import WeightsError
from minority.weights.reading import first_line, is_pointer, refuse_pointer

#: Most bytes that a URL may send; another number of GB by the environment variable below.
LARGEST_DOWNLOAD = 50 * 10**9
LARGEST_DOWNLOAD_VARIABLE = "MINORITY_LARGEST_DOWNLOAD_GB"

_CHUNK = 2**20  # bytes
_SILENCE = 60.0  # seconds until a server that says nothing is given up
_SLOWEST = 1000  # bytes a second; slower servers are given up, too


def find_weights(
    source: str, *, sha256: str | None = None, cache: Path | None = None, largest: int | None = None
) -> Path:
    """The file that `source` names, checked.

    Args:
        source: A path, the name of a file in the cache, or an http(s) or file URL. A URL needs `sha256`, is announced
            in the log, and is fetched once.
        sha256: 64 hex digits that the file must have; None trusts a file on disk as it is.
        cache: Where fetched files are kept; None is `checkpoints` in torch's hub folder ($TORCH_HOME).
        largest: Bytes that a URL may send, at most; None is $MINORITY_LARGEST_DOWNLOAD_GB, or 50 GB.

    Returns:
        The path of the file.

    Raises:
        WeightsError: Where there is no such file, a URL has no checksum or cannot be read, the checksum differs, or the
            file is a Git LFS pointer.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise WeightsError(f"a SHA-256 checksum has 64 hex digits, got {sha256!r}.")
    cache = Path(torch.hub.get_dir()) / "checkpoints" if cache is None else cache
    if re.match(r"(https?|file)://", source):
        return _from_url(source, sha256=sha256, cache=cache, largest=_largest() if largest is None else largest)
    for path in (Path(source).expanduser(), cache / source):
        if path.is_file():
            return _checked(path, sha256)
    raise WeightsError(
        f"the weights {source} are neither a file nor in {cache}; fetch them yourself, or give their URL and SHA-256."
    )


def _largest() -> int:
    given = os.environ.get(LARGEST_DOWNLOAD_VARIABLE)
    if given is None:
        return LARGEST_DOWNLOAD
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", given) or float(given) == 0:
        raise WeightsError(f"{LARGEST_DOWNLOAD_VARIABLE} must be a positive number of GB, got {given!r}.")
    return int(float(given) * 10**9)


def _checked(path: Path, sha256: str | None) -> Path:
    refuse_pointer(path)
    if sha256 is not None and (actual := file_sha256(path)) != sha256:
        raise WeightsError(
            f"{path} has SHA-256 {actual[:12]}..., expected {sha256[:12]}...; fetch it again or correct the checksum."
        )
    return path


def _from_url(url: str, *, sha256: str | None, cache: Path, largest: int) -> Path:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise WeightsError(f"{url} is no URL ({error}); correct it.") from error
    shown = urllib.parse.urlunsplit(parts._replace(query="", fragment="", netloc=parts.netloc.rpartition("@")[2]))
    if sha256 is None:
        raise WeightsError(f"the weights at {shown} need a SHA-256 checksum beside their URL; add it.")
    name = re.sub(r"[^\w.-]", "_", parts.path.rsplit("/", 1)[-1])[-100:]
    path = cache / f"{sha256[:16]}-{name}"
    if path.is_file():
        return _checked(path, sha256)
    local = Path(urllib.request.url2pathname(parts.path))
    if parts.scheme == "file" and local.exists() and not local.is_file():
        raise WeightsError(f"{shown} is not a regular file; give the URL of the weights.")
    logging.getLogger(__name__).warning("fetching %s to %s", shown, path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with partial.open("wb") as file:
            for chunk in _sent(url, shown=shown, largest=largest, room=shutil.disk_usage(cache).free):
                digest.update(chunk)
                file.write(chunk)
        if is_pointer(partial):
            raise WeightsError(f"{shown} is a Git LFS pointer, not the weights; give the URL of the file itself.")
        if digest.hexdigest() != sha256:
            raise WeightsError(
                f"{shown} has SHA-256 {digest.hexdigest()[:12]}..., expected {sha256[:12]}...; nothing was kept, check "
                "both."
            )
        partial.rename(path)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be written ({first_line(error)}); make room and rights there, or choose another folder by "
            "TORCH_HOME."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # there is none, or its folder is what is wrong
            partial.unlink()
    return path


def _sent(url: str, *, shown: str, largest: int, room: int) -> Iterator[bytes]:
    """The bytes behind a URL, refused as soon as they are too many, too slow, too few or a web page.

    Raises:
        WeightsError: All that can go wrong with a server.
    """
    try:
        with urllib.request.urlopen(url, timeout=_SILENCE) as answer:
            yield from _checked_chunks(answer, shown=shown, largest=largest, room=room)
    except WeightsError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        # URLError and TimeoutError are OSErrors; a host name or port that is none is a ValueError.
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise WeightsError(
            f"{shown} cannot be read ({first_line(error)}); fetch it yourself and give its path."
        ) from error


def _checked_chunks(answer: Any, *, shown: str, largest: int, room: int) -> Iterator[bytes]:
    declared, received, began = _declared_size(answer), 0, time.monotonic()
    if declared is not None and declared > largest:
        raise WeightsError(_too_large(shown, f"is {declared / 1e9:.3g} GB", largest))
    if declared is not None and declared > room:
        raise WeightsError(f"{shown} is {declared / 1e9:.3g} GB and there is room for {room / 1e9:.3g}; make room.")
    while chunk := answer.read1(_CHUNK):  # one read of the socket, so that a trickle comes back, too
        if received == 0 and chunk.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
            raise WeightsError(f"{shown} answers with a web page, not with weights; give the URL of the file itself.")
        received += len(chunk)
        if received > largest:
            raise WeightsError(_too_large(shown, "does not end", largest))
        waited = time.monotonic() - began
        if waited > _SILENCE and received < _SLOWEST * waited:
            raise WeightsError(
                f"{shown} sends less than {_SLOWEST} bytes a second; fetch it yourself and give its path."
            )
        yield chunk
    if declared is not None and received != declared:
        raise WeightsError(
            f"{shown} ended after {received} of {declared} bytes; nothing was kept, try again or fetch it yourself."
        )


def _declared_size(answer: Any) -> int | None:
    text = answer.headers.get("Content-Length") or ""
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def _too_large(shown: str, what: str, largest: int) -> str:
    return (
        f"{shown} {what}, more than the {largest / 1e9:.3g} GB that may be fetched; set {LARGEST_DOWNLOAD_VARIABLE} "
        "or fetch it yourself and give its path."
    )
