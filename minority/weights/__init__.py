"""Weights on disk: a path, or a URL with its checksum, read without running any code.

Nothing is fetched that was not asked for by URL and checksum.
"""

from minority.weights.checksums import FileState, file_sha256, file_state, is_settled, joint_sha256
from minority.weights.errors import WeightsError
from minority.weights.fetching import find_weights
from minority.weights.reading import read_pickled, read_tensors, refuse_pointer, require_finite_tensors
from minority.weights.state_dict import StateDict, read_state_dict

__all__ = [
    "FileState",
    "StateDict",
    "WeightsError",
    "file_sha256",
    "file_state",
    "find_weights",
    "is_settled",
    "joint_sha256",
    "read_pickled",
    "read_state_dict",
    "read_tensors",
    "refuse_pointer",
    "require_finite_tensors",
]
