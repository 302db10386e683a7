"""LISA: images are blended with selected partners, so that the attribute tells nothing (Yao et al. 2022, 2201.00299).

A partner has the same class and another attribute, or the same attribute and another class; which of the two is drawn
image by image. Where there is no such partner of either kind, an image is its own.

Shapes: N images, S steps, B images a step.
"""

import numpy as np
from numpy.typing import NDArray

from minority.downstream.data import Int64

#: Of the Beta distribution that shares of a blend are drawn from, as in the paper.
ALPHA = 2.0


def draw_partners(
    chosen: Int64, *, labels: Int64, attributes: Int64, same_class: float, rng: np.random.Generator
) -> Int64:
    """Draw a partner for every image of every step.

    Args:
        chosen: (S, B) positions of the images.
        labels: (N,) classes.
        attributes: (N,) attributes.
        same_class: Share of the images that get a partner of their class, in [0, 1].
        rng: Decides.

    Returns:
        (S, B) positions.
    """
    of_class = rng.random(chosen.shape) < same_class
    partners = chosen.copy()
    for label, attribute in {(int(y), int(a)) for y, a in zip(labels, attributes, strict=True)}:
        candidates = {
            True: np.flatnonzero((labels == label) & (attributes != attribute)),
            False: np.flatnonzero((labels != label) & (attributes == attribute)),
        }
        member = (labels[chosen] == label) & (attributes[chosen] == attribute)
        for kind in (True, False):
            wanted = member & (of_class == kind)
            # Where one kind of partner does not exist, the other one serves.
            among = candidates[kind] if len(candidates[kind]) else candidates[not kind]
            if len(among):
                partners[wanted] = among[rng.integers(len(among), size=int(wanted.sum()))]
    return partners


def draw_shares(shape: tuple[int, int], *, rng: np.random.Generator) -> NDArray[np.float32]:
    """(S, B) shares of the images themselves in the blends."""
    return rng.beta(ALPHA, ALPHA, size=shape).astype(np.float32)
