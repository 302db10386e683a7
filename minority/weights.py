"""Weights on disk: a path, or a URL with its checksum, read without running any code.

Nothing is fetched that was not asked for by URL and checksum.
"""

import hashlib
import json
import logging
import os
import pickle
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

_CHUNK = 2**20  # bytes


class WeightsError(ValueError):
    """Weights cannot be found or read; one line that names the file, the reason and the remedy."""


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
        WeightsError: Where there is no such file, a URL has no checksum or cannot be read, or the checksum differs.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise WeightsError(f"a SHA-256 checksum has 64 hex digits, got {sha256!r}.")
    cache = Path(torch.hub.get_dir()) / "checkpoints" if cache is None else cache
    if re.match(r"(https?|file)://", source):
        return _from_url(source, sha256=sha256, cache=cache)
    for path in (Path(source).expanduser(), cache / source):
        if path.is_file():
            return _checked(path, sha256)
    raise WeightsError(
        f"the weights {source} are neither a file nor in {cache}; fetch them yourself, or give their URL and SHA-256."
    )


def _from_url(url: str, *, sha256: str | None, cache: Path) -> Path:
    if sha256 is None:
        raise WeightsError(f"the weights at {url} need a SHA-256 checksum beside their URL; add it.")
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
            raise WeightsError(
                f"{url} has SHA-256 {digest.hexdigest()[:12]}..., expected {sha256[:12]}...; nothing was kept, check "
                "both."
            )
        partial.rename(path)
    except (urllib.error.URLError, TimeoutError) as error:
        raise WeightsError(f"{url} cannot be read ({error}); fetch it yourself and give its path.") from error
    finally:
        partial.unlink(missing_ok=True)
    return path


def _checked(path: Path, sha256: str | None) -> Path:
    if sha256 is not None and (found := file_sha256(path)) != sha256:
        raise WeightsError(
            f"{path} has SHA-256 {found[:12]}..., expected {sha256[:12]}...; fetch it again or correct the checksum."
        )
    return path


def file_sha256(path: Path) -> str:
    """Checksum of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def joint_sha256(parts: Mapping[str, str]) -> str:
    """One checksum over several.

    Args:
        parts: Checksum or text of each part by its role; the order does not count.

    Returns:
        64 hex digits.
    """
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a flat table of tensors onto the CPU.

    Args:
        path: A `.safetensors` file, or a file of `torch.save`, which is read without running any code in it.

    Raises:
        WeightsError: Where the file is missing, empty, truncated, would run code, or holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is not a file; give the path of the weights.")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty; fetch or copy it again.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else read_pickled(path)
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} is not a flat table of tensors ({_outline(content)}); save the state dict alone.")
    return dict(content)


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is truncated or not a safetensors file ({_first_line(error)}); fetch or copy it again."
        ) from error


def read_pickled(path: Path) -> Any:
    """Read what `torch.save` wrote, tensors and plain values, onto the CPU, without running any code in it.

    Args:
        path: The file.

    Raises:
        WeightsError: Where the file is missing, truncated, or would run code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which end below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked_for = re.search(r"GLOBAL (\S+)|(?:unrecognized (?:function|class)) (.+)|(Can only build .+)", str(error))
        if asked_for:
            raise WeightsError(
                f"{path} holds more than tensors and could run code when opened, so it is refused (it asks for "
                f"{asked_for[asked_for.lastindex or 0]}); take the weights from a source you trust and save the state "
                "dict alone."
            ) from error
        reason = "its content is no pickle that torch.save writes"
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        # A torn archive ends in any of these, by where it was torn.
        reason = _first_line(error)
    raise WeightsError(f"{path} is truncated or not a checkpoint ({reason}); fetch or copy it again.")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def _outline(content: object) -> str:
    if isinstance(content, Mapping):
        return "its entries are " + (", ".join(str(key) for key in list(content)[:3]) or "none")
    return f"it holds a {type(content).__name__}"
