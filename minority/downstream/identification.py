"""Which training images are drawn more often, without a look at any attribute.

    by loss     the images of every class on which an early model's loss is largest (as the small-loss trick turned
                round; Nam et al. 2020 show that images against a bias are learnt late)
    by errors   the images that an early model gets wrong: Just Train Twice (Liu et al. 2021, arXiv 2107.09044)
    by distance AvgkNN: the mean distance to the k nearest images of the class, in pixels (Sehwag et al. 2022)

Shapes: N images, K classes.
"""

import numpy as np
import torch

from minority.downstream.data import Bool, Float64, Int64, UInt8
from minority.runtime.image_arrays import Images, choose_images

NEIGHBOURS = 5
_ROWS = 512  # images whose distances are held at a time; changes memory, not results
_MOST_COMPARED = 10_000  # images of a class that others are compared with, where the images are not held in memory


def losses_of(probabilities: Float64, labels: Int64) -> Float64:
    """Cross-entropy (N,) of probabilities (N, K) for the labels (N,)."""
    of_label = probabilities[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(of_label, np.finfo(np.float64).tiny)))


def errors_of(probabilities: Float64, labels: Int64) -> Bool:
    """(N,) whether the likeliest class of probabilities (N, K) is another than the label."""
    return np.asarray(probabilities.argmax(axis=1) != labels)


def highest_of_class(scores: Float64, labels: Int64, *, share: float) -> Bool:
    """The images of every class with the highest scores.

    Args:
        scores: (N,).
        labels: (N,) classes.
        share: How many of each class, in (0, 1); at least one image.

    Returns:
        (N,) whether an image is among them.
    """
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(share * len(members)))
        chosen[members[np.argsort(-scores[members], kind="stable")[:count]]] = True
    return chosen


def neighbour_distances(images: Images, labels: Int64, *, k: int = NEIGHBOURS) -> Float64:
    """AvgkNN: mean Euclidean distance (N,) of every image to its k nearest others of the same class, in pixel values.

    A class of one image has distance 0; one of k images or fewer has as many neighbours as there are. Where the images
    are read from their files, neighbours are looked for among a random 10,000 of a class.

    Args:
        images: (N, H, W, C) uint8.
        labels: (N,) classes.
        k: Neighbours, >= 1.
    """
    distances = np.zeros(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        most = len(members) if isinstance(images, np.ndarray) else _MOST_COMPARED
        others = members[choose_images(len(members), most=most, seed=int(label))]
        near = min(k, len(others) - 1)
        if near == 0:
            continue
        pixels = _rows(images[others])
        for start in range(0, len(members), _ROWS):
            asked = members[start : start + _ROWS]
            apart = torch.cdist(_rows(images[asked]), pixels)
            # An image among the others is itself the first of them, at distance 0.
            nearest = apart.topk(near + 1, dim=1, largest=False).values.double()
            own = torch.as_tensor(np.isin(asked, others))[:, None]
            distances[asked] = torch.where(own, nearest[:, 1:], nearest[:, :-1]).mean(dim=1).numpy()
    return distances


def _rows(images: UInt8) -> torch.Tensor:
    """(N, H * W * C) float32."""
    return torch.as_tensor(images.reshape(len(images), -1).astype(np.float32))


def odds_with_share(chosen: Bool, *, share: float) -> Float64:
    """Odds (N,) by which the chosen images (N,) get a share of the draws together; they sum to 1.

    Where all or none are chosen, all are drawn alike.
    """
    count = int(chosen.sum())
    if count in (0, len(chosen)):
        return np.full(len(chosen), 1 / len(chosen))
    return np.where(chosen, share / count, (1 - share) / (len(chosen) - count))


def odds_with_weight(chosen: Bool, *, weight: float) -> Float64:
    """Odds (N,) by which each chosen image (N,) is drawn `weight` times as often as another; they sum to 1."""
    odds = np.where(chosen, weight, 1.0)
    return np.asarray(odds / odds.sum())
