"""Weights on disk: a path, or a URL with its checksum. Nothing is fetched that was not asked for by both."""

import hashlib
import logging
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

import torch

from minority.backbones.backbone import BackboneError, file_sha256

_CHUNK = 2**20  # bytes


def find_weights(source: str, *, sha256: str | None = None, cache: Path | None = None) -> Path:
    """The file that `source` names, checked.

    Args:
        source: A path, the name of a file in the cache, or an http(s) or file URL. A URL needs `sha256`, is announced
            in the log, and is fetched once.
        sha256: 64 hex digits that the file must have; None trusts a file on disk as it is.
        cache: Where fetched files are kept; None is `checkpoints` in torch's hub folder ($TORCH_HOME).

    Returns:
        The path of the file.

    Raises:
        BackboneError: Where there is no such file, a URL has no checksum or cannot be read, or the checksum differs.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BackboneError(f"a SHA-256 checksum has 64 hex digits, got {sha256!r}.")
    cache = Path(torch.hub.get_dir()) / "checkpoints" if cache is None else cache
    if re.match(r"(https?|file)://", source):
        return _from_url(source, sha256=sha256, cache=cache)
    for path in (Path(source).expanduser(), cache / source):
        if path.is_file():
            return _checked(path, sha256)
    raise BackboneError(
        f"the weights {source} are neither a file nor in {cache}; fetch them yourself, or give their URL and SHA-256."
    )


def _from_url(url: str, *, sha256: str | None, cache: Path) -> Path:
    if sha256 is None:
        raise BackboneError(f"the weights at {url} need a SHA-256 checksum beside their URL; add it.")
    path = cache / f"{sha256[:16]}-{url.rsplit('/', 1)[-1]}"
    if path.is_file():
        return _checked(path, sha256)
    logging.getLogger(__name__).warning("fetching %s to %s", url, path)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, partial.open("wb") as file:
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            raise BackboneError(
                f"{url} has SHA-256 {digest.hexdigest()[:12]}..., expected {sha256[:12]}...; nothing was kept, check "
                "both."
            )
        partial.rename(path)
    except (urllib.error.URLError, TimeoutError) as error:
        raise BackboneError(f"{url} cannot be read ({error}); fetch it yourself and give its path.") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _checked(path: Path, sha256: str | None) -> Path:
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise BackboneError(
            f"{path} has SHA-256 {found[:12]}..., expected {sha256[:12]}...; fetch it again or correct the checksum."
        )
    return path
