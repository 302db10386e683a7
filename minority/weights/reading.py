"""Files of tensors, read onto the CPU without running any code in them."""

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from minority.weights.errors import WeightsError

_POINTERS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")
_SMALL_ENOUGH = 32 * 10**9  # bytes that repeated numbers may stand for
_LARGEST_POINTER = 1024  # bytes, by the format's own rule


def is_pointer(path: Path) -> bool:
    """Whether a file is what Git LFS leaves where the real file was not fetched."""
    if path.stat().st_size > _LARGEST_POINTER:
        return False
    with path.open("rb") as file:
        return file.read(64).startswith(_POINTERS)


def refuse_pointer(path: Path) -> None:
    """Refuse what Git LFS leaves where the real file was not fetched.

    Raises:
        WeightsError: With the remedy.
    """
    if is_pointer(path):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the file itself; run git lfs pull in its repository, or fetch the file."
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a flat table of tensors onto the CPU.

    Args:
        path: A `.safetensors` file, or a file of `torch.save`, which is read without running any code in it.

    Returns:
        Name -> tensor, each in the shape that it was saved with.

    Raises:
        WeightsError: Where the file is missing, empty, truncated, would run code, or holds something else, a number
            that is not finite included.
    """
    content = read_file(path)
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} is not a flat table of tensors ({outline(content)}); save the state dict alone.")
    require_honest_size(content, source=path, stored=path.stat().st_size)
    require_finite_tensors(content, source=path)
    return dict(content)


def read_file(path: Path) -> Any:
    """Whatever a `.safetensors` file or a file of `torch.save` holds, on the CPU.

    Raises:
        WeightsError: Where the file is missing, empty, a Git LFS pointer, truncated, or would run code.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is not a file; give the path of the weights.")
    if path.stat().st_size == 0:
        raise WeightsError(f"{path} is empty; fetch or copy it again.")
    refuse_pointer(path)
    return _read_safetensors(path) if path.suffix == ".safetensors" else read_pickled(path)


def require_honest_size(tensors: Mapping[str, Tensor], *, source: Path, stored: int) -> None:
    """Refuse tensors that stand for far more numbers than their file holds, before anything is computed of them.

    A pickle can say that one stored number is a tensor of any shape.

    Args:
        tensors: By name.
        source: The file, for the message.
        stored: Its bytes; those of all shards where there are several.

    Raises:
        WeightsError: Where they are more than ten times as large, and larger than most memories.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if size > max(10 * stored, _SMALL_ENOUGH):
        raise WeightsError(
            f"{source} has {stored / 1e6:.3g} MB and stands for tensors of {size / 1e6:.3g} MB, which no training "
            "saves; take the weights from a source you trust."
        )


def require_finite_tensors(tensors: Mapping[str, Tensor], *, source: object) -> None:
    """Refuse weights that hold NaN or infinity: a network with one of them answers nothing else.

    Args:
        tensors: By name, of any shape; those of whole numbers are fine.
        source: What messages call the file or model.

    Raises:
        WeightsError: Naming the first three such tensors.
    """
    wrong = [name for name, value in tensors.items() if value.is_floating_point() and not _is_finite(value)]
    if wrong:
        more = ", ..." if len(wrong) > 3 else ""
        raise WeightsError(
            f"{source} holds NaN or infinity in {len(wrong)} of {len(tensors)} tensors ({', '.join(wrong[:3])}{more}): "
            "its training diverged, or it overflowed when it was saved in fp16; take an earlier checkpoint or fetch it "
            "again."
        )


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float()).all())


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is truncated or not a safetensors file ({first_line(error)}); fetch or copy it again."
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
        reason = first_line(error)
    raise WeightsError(f"{path} is truncated or not a checkpoint ({reason}); fetch or copy it again.")


def first_line(error: BaseException) -> str:
    """An error in one line of at most 160 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__


def outline(content: object) -> str:
    """What something is that should have been a table of tensors."""
    if isinstance(content, Mapping):
        return "its entries are " + (", ".join(str(key) for key in list(content)[:3]) or "none")
    return f"it holds a {type(content).__name__}"
