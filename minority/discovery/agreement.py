"""How well what was found agrees with an attribute that a set has after all: for measuring, nothing is fitted to it.

An attribute's conflicting images are those whose value is not the commonest one of their class.

Shapes: N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minority.downstream.data import Bool, Int64


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of the conflicting images found with those of an attribute.

    Attributes:
        attribute: Its name.
        share: Share of the images that conflict by the attribute: what flagging at random would be right in.
        precision: Share of the images found that conflict by the attribute; NaN where none was found.
        recall: Share of those that conflict by the attribute that were found; NaN where there are none.
        images: Images whose value is known.
    """

    attribute: str
    share: float
    precision: float
    recall: float
    images: int


def agreement_with(
    attribute: str, values: Sequence[str | None], *, conflicting: Bool, labels: Int64
) -> Agreement | None:
    """Compare with one attribute.

    Args:
        attribute: Its name.
        values: N values; images without one (None) take no part.
        conflicting: (N,) what was found.
        labels: (N,) classes.

    Returns:
        None where the attribute has fewer than two values.
    """
    known = np.array([value is not None for value in values], dtype=np.bool_)
    words = np.array([value or "" for value in values])[known]
    if len(np.unique(words)) < 2:
        return None
    truth = conflicting_by(words, labels[known])
    flagged = conflicting[known]
    hits = int((truth & flagged).sum())
    return Agreement(
        attribute=attribute,
        share=float(truth.mean()),
        precision=hits / int(flagged.sum()) if flagged.any() else float("nan"),
        recall=hits / int(truth.sum()) if truth.any() else float("nan"),
        images=len(words),
    )


def conflicting_by(words: np.ndarray, labels: Int64) -> Bool:
    """(N,) whether each value is another than the commonest one of its class; among equals, the first in order."""
    truth = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        values, counts = np.unique(words[members], return_counts=True)
        truth[members] = words[members] != values[counts.argmax()]
    return truth
