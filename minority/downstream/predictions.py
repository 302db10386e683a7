"""What a classifier said about a set of images: enough for every metric, and small enough to keep.

Shapes: N images, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from minority.downstream.data import Float64, Int64


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predicted class of every image, and how sure the classifier was.

    Attributes:
        predicted: (N,) int64 classes.
        confidence: (N,) float32 probability of the predicted class, in [0, 1].
    """

    predicted: Int64
    confidence: NDArray[np.float32]

    @classmethod
    def of(cls, probabilities: Float64) -> "Predictions":
        """Take the likeliest class of every row.

        Args:
            probabilities: (N, K), rows sum to 1.

        Raises:
            ValueError: Where a probability is no number.
        """
        if np.isnan(probabilities).any():
            raise ValueError("probabilities contain NaN; the classifier's training diverged, lower its learning rate.")
        return cls(
            predicted=probabilities.argmax(axis=1).astype(np.int64),
            confidence=probabilities.max(axis=1).astype(np.float32),
        )

    def __len__(self) -> int:
        return len(self.predicted)

    def save(self, file: Path | BinaryIO) -> None:
        """Write an .npz file."""
        np.savez_compressed(
            file, predicted=self.predicted.astype(np.int16), confidence=self.confidence.astype(np.float16)
        )

    @classmethod
    def load(cls, file: Path | BinaryIO) -> "Predictions":
        """Read what `save` wrote; the confidence has lost digits (float16)."""
        with np.load(file, allow_pickle=False) as content:
            return cls(
                predicted=content["predicted"].astype(np.int64), confidence=content["confidence"].astype(np.float32)
            )
