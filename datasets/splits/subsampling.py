"""Thinning a set on purpose: few rare classes (step imbalance), or a label that goes with an attribute (spurious).

The exponential tail is `splits.long_tail`. Everything maps labels and a seed to sorted positions; no image is touched.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from datasets.splits.stratified import Indices, long_tail
from datasets.splits.streams import Stream


def exponential_tail(
    labels: Indices, indices: Indices, *, imbalance: float, order: Sequence[int], seed: int
) -> Indices:
    """As `splits.long_tail`, with the classes ranked from commonest to rarest in any order.

    Args:
        labels: (N,) class of each image of the whole set.
        indices: Positions to choose from.
        imbalance: Images of the first class divided by images of the last, >= 1.
        order: Every class once, the commonest first.
        seed: Chooses which images of a class stay.

    Raises:
        ValueError: `order` is not every class once; or as `long_tail`.
    """
    if sorted(order) != list(range(int(labels.max()) + 1)):
        raise ValueError(f"order must name each of the {int(labels.max()) + 1} classes once, got {list(order)}.")
    rank = np.empty(len(order), dtype=np.int64)
    rank[np.asarray(order)] = np.arange(len(order))
    return long_tail(rank[labels], indices, imbalance=imbalance, seed=seed)


def step_tail(labels: Indices, indices: Indices, *, imbalance: float, rare: Sequence[int], seed: int) -> Indices:
    """Thin some classes to a fixed fraction of the others (Buda, Maki and Mazurowski, arXiv 1710.05381).

    Args:
        labels: (N,) class of each image of the whole set.
        indices: Positions to choose from.
        imbalance: Images of a common class divided by images of a rare one, >= 1. Common classes keep n each, rare ones
            round(n / imbalance), n as large as every class allows.
        rare: The rare classes; at least one class is left.
        seed: Chooses which images of a class stay.

    Returns:
        The sorted positions that stay.

    Raises:
        ValueError: A setting that is not allowed, or a class would be left without images.
    """
    classes = sorted({int(label) for label in labels})
    if not 1 <= imbalance < math.inf:
        raise ValueError(f"imbalance must be at least 1, got {imbalance}.")
    if not set(rare) < set(classes) or not rare:
        raise ValueError(f"rare must name some but not all of the classes {classes}, got {list(rare)}.")
    sizes = np.bincount(labels[indices], minlength=max(classes) + 1)
    share = {label: 1 / imbalance if label in rare else 1.0 for label in classes}
    # 1e-9: 5 images at a share of 1/20 are enough for 100, whatever the last binary digit says.
    most = min(math.floor(sizes[label] / share[label] + 1e-9) for label in classes)
    counts = {label: math.floor(most * share[label] + 0.5) for label in classes}
    empty = [label for label, count in counts.items() if count == 0]
    if empty:
        raise ValueError(f"imbalance {imbalance:g} leaves class {empty[0]} no image; lower it, or give more images.")
    pools: dict[tuple[int, ...], Indices] = {(label,): indices[labels[indices] == label] for label in classes}
    return _draw(pools, {(label,): count for label, count in counts.items()}, seed=(seed, Stream.STEP_TAIL))


def spurious(
    labels: Indices,
    attribute: Sequence[str | None],
    indices: Indices,
    *,
    majority: Mapping[int, str],
    share: float,
    seed: int,
) -> Indices:
    """Make a label go with an attribute, e.g. 95 % of the blond are women and 95 % of the others men.

    In each named class as many images are kept as give the asked share; the other classes stay as they are. Images of
    the class whose attribute is missing are left out, since nobody can tell on which side they are.

    Args:
        labels: (N,) class of each image of the whole set.
        attribute: N values of the attribute, None where it is missing.
        indices: Positions to choose from.
        majority: Class -> the value that most of its images shall have.
        share: Share of a class with that value, in [0.5, 1).
        seed: Chooses which images stay.

    Returns:
        The sorted positions that stay.

    Raises:
        ValueError: A setting that is not allowed, or a class has no image of one of the two sides.
    """
    if not 0.5 <= share < 1:
        raise ValueError(f"share must be at least 0.5 and below 1, got {share}.")
    pools: dict[tuple[int, ...], Indices] = {}
    counts: dict[tuple[int, ...], int] = {}
    kept = [index for index in indices if int(labels[index]) not in majority]
    for label, value in majority.items():
        members = [int(index) for index in indices if labels[index] == label and attribute[index] is not None]
        sides = [[i for i in members if (attribute[i] == value) == wanted] for wanted in (False, True)]
        if not all(sides):
            raise ValueError(
                f"class {label} has {len(sides[1])} images with {value!r} and {len(sides[0])} without; "
                "a spurious attribute needs some of both."
            )
        total = min(len(sides[1]) / share, len(sides[0]) / (1 - share))
        # 1e-9: 50 / 0.95 * 0.95 is 50, whatever the last binary digit says.
        wanted_counts = (max(1, math.floor(total * (1 - share) + 0.5)), max(1, math.floor(total * share + 1e-9)))
        for side, count in enumerate(wanted_counts):
            pools[label, side] = np.array(sides[side], dtype=np.int64)
            counts[label, side] = min(count, len(sides[side]))
    drawn = _draw(pools, counts, seed=(seed, Stream.SPURIOUS))
    return np.sort(np.concatenate([drawn, np.array(kept, dtype=np.int64)]))


def _draw(
    pools: Mapping[tuple[int, ...], Indices], counts: Mapping[tuple[int, ...], int], *, seed: tuple[int, int]
) -> Indices:
    """counts[p] positions of every pool p, sorted. A pool's choice does not depend on the other pools."""
    chosen = [np.empty(0, dtype=np.int64)]
    for name, pool in pools.items():
        order = np.random.default_rng([*seed, *name]).permutation(len(pool))
        chosen.append(np.sort(pool)[order[: counts[name]]])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
