"""The state of a training run on disk, replaced by one rename; a death in between leaves the old one.

The file of `torch.save` ends in a line `SHA-256: <64 hex digits>` over all before it, which is looked at before any of
it is read: a flipped bit is never trained on.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from minority.diffusion.schedule import NoiseSchedule
from minority.training.settings import TrainingSettings
from minority.weights import WeightsError, read_pickled

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]

_LINE = b"\nSHA-256: %s\n"
_CHUNK = 2**20  # bytes


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Put a state, tensors and plain values, in the place of the last one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    torch.save(state, temporary)
    with temporary.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256")  # leaves the place at the end
        file.write(_LINE % digest.hexdigest().encode())
    temporary.replace(path)


def read_checkpoint(path: Path, *, identity: str) -> dict[str, Any]:
    """Read a state.

    Args:
        path: The file.
        identity: Of the run that asks; see `run_identity`.

    Raises:
        ValueError: It is damaged or has no checksum, cannot be read, or belongs to another run.
    """
    try:
        _require_whole(path)
        state = read_pickled(path)
        stored = state["identity"]
    except (OSError, WeightsError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is not a readable training checkpoint; remove it to train from the start.") from error
    if stored != identity:
        raise ValueError(
            f"{path} belongs to a training run with other settings, images, labels, schedule or network; remove "
            f"it to train from the start, or restore what made it."
        )
    return dict(state)


def _require_whole(path: Path) -> None:
    """Refuse a file that is not what its checksum says; checkpoints of earlier versions have none."""
    with path.open("rb") as file:
        left = max(0, path.stat().st_size - len(_LINE % bytes(64)))
        digest = hashlib.sha256()
        while left and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
        if file.read() != _LINE % digest.hexdigest().encode():
            raise WeightsError(f"{path} is not what its checksum says, or has none.")


def run_identity(
    network: nn.Module, images: UInt8, labels: Int64 | None, *, schedule: NoiseSchedule, settings: TrainingSettings
) -> str:
    """A hash over all that a resumed run must share with the one that began; the initial weights are left out."""
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(repr([(name, tuple(value.shape)) for name, value in network.state_dict().items()]).encode())
    for array in (images, labels, schedule.abar, schedule.timesteps):
        digest.update(b"none" if array is None else f"{array.dtype}{array.shape}".encode())
        digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
