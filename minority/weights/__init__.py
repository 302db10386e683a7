"""Weights on disk: a path, or a URL with its checksum, read without running any code.

Nothing is fetched that was not asked for by URL and checksum.
"""

from minority.weights.checksums import file_sha256, joint_sha256
from minority.weights.errors import WeightsError
from minority.weights.fetching import find_weights
from minority.weights.reading import read_pickled, read_tensors, refuse_pointer
from minority.weights.state_dict import StateDict, read_state_dict

__all__ = [
    "StateDict",
    "WeightsError",
    "file_sha256",
    "find_weights",
    "joint_sha256",
    "read_pickled",
    "read_state_dict",
    "read_tensors",
    "refuse_pointer",
]
