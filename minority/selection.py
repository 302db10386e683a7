"""Which candidates become training data: rare AND valid AND new AND with their label kept, up to a quota.

Low likelihood alone is also what garbage has, so every candidate is judged against the real training split in feature
space. The verdicts of one candidate do not depend on any other candidate; only the quota does.

Shapes: N training images, M candidates, D features.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minority.neighbours import Neighbourhood, RealReference
from minority.pairwise import nearest

KEPT = "kept"
#: Why a candidate is not kept, in the order in which the filters are asked.
REASONS = ("common", "not real-looking", "copy of a training image", "label lost", "quota full")


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """What counts as rare, valid, new and of its label.

    Attributes:
        neighbours: k of every nearest-neighbour measure.
        rare_quantile: A candidate is rare beyond this quantile of the training images' own mean distance to their k
            nearest neighbours, in [0, 1).
        realism_floor: A candidate is valid from this realism on; 1 is the edge of the k-NN manifold.
        copy_quantile: A candidate is a copy below this quantile of the training images' own distance to their
            nearest neighbour, in [0, 1).
        label_floor: A candidate keeps its label from this label agreement on, in [0, 1]; 0 switches the filter off.
    """

    neighbours: int = 5
    rare_quantile: float = 0.9
    realism_floor: float = 1.0
    copy_quantile: float = 0.01
    label_floor: float = 0.45

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"SelectionSettings.neighbours must be at least 1, got {self.neighbours}.")
        for name in ("rare_quantile", "copy_quantile"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"SelectionSettings.{name} must lie in [0, 1), got {getattr(self, name)}.")
        if not 0 <= self.label_floor <= 1:
            raise ValueError(f"SelectionSettings.label_floor must lie in [0, 1], got {self.label_floor}.")


@dataclass(frozen=True, eq=False)
class Verdicts:
    """How the filters judge a batch of candidates.

    Attributes:
        neighbourhood: Where they lie among the training images.
        label_agreement: (M,) in [0, 1]: distance to the nearest training image of another label, relative to that
            plus the distance to the nearest of the own label; above 0.5 the own label is nearer.
        rare, valid, new, label_kept: (M,) verdicts.
    """

    neighbourhood: Neighbourhood
    label_agreement: NDArray[np.float64]
    rare: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    new: NDArray[np.bool_]
    label_kept: NDArray[np.bool_]

    @property
    def passed(self) -> NDArray[np.bool_]:
        """(M,) whether every filter lets a candidate through."""
        return self.rare & self.valid & self.new & self.label_kept


class Judge:
    """Judges candidates against the real training split.

    Args:
        features: (N, D) features of the training images.
        labels: (N,) their labels.
        settings: The thresholds.
    """

    def __init__(
        self, features: NDArray[np.floating], labels: NDArray[np.int64], *, settings: SelectionSettings
    ) -> None:
        self.reference = RealReference.fit(features, k=settings.neighbours)
        self.settings = settings
        self._labels = np.asarray(labels)
        own = self.reference.own
        self.thresholds = {
            "knn_distance": float(np.quantile(own.knn_distance, settings.rare_quantile)),
            "realism": settings.realism_floor,
            "nearest_distance": float(np.quantile(own.nearest_distance, settings.copy_quantile)),
            "label_agreement": settings.label_floor,
        }

    def judge(self, features: NDArray[np.floating], labels: NDArray[np.int64]) -> Verdicts:
        """Ask every filter.

        Args:
            features: (M, D) of the candidates, from the same extractor as the reference.
            labels: (M,) the labels that they were drawn for.
        """
        neighbourhood = self.reference.judge(features)
        agreement = self.label_agreement(features, labels)
        return Verdicts(
            neighbourhood=neighbourhood,
            label_agreement=agreement,
            rare=neighbourhood.knn_distance > self.thresholds["knn_distance"],
            valid=neighbourhood.realism >= self.thresholds["realism"],
            new=neighbourhood.nearest_distance > self.thresholds["nearest_distance"],
            label_kept=agreement >= self.thresholds["label_agreement"],
        )

    def label_agreement(self, features: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """How much nearer the own label's training images are than the others', (M,) in [0, 1].

        A label without training images has agreement 0; the only label there is has agreement 1.
        """
        own, other = np.full(len(labels), np.inf), np.full(len(labels), np.inf)
        for label in np.unique(labels):
            mine, same = np.flatnonzero(labels == label), self._labels == label
            for distance, training in ((own, same), (other, ~same)):
                if training.any():
                    found = nearest(
                        features[mine], self.reference.features[training], k=1, device=self.reference.device
                    )
                    distance[mine] = found[0][:, 0]
        total = own + other
        with np.errstate(invalid="ignore"):
            agreement = np.where(np.isinf(other), 1.0, np.where(total > 0, other / total, 0.5))
        return np.where(np.isinf(own), 0.0, agreement)


def choose(
    rows: Mapping[str, NDArray[np.bool_]], labels: NDArray[np.int64], *, quotas: Mapping[int, int]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Keep what passed every filter, in the order given, until the quota of its label is full.

    Args:
        rows: The verdicts "rare", "valid", "new" and "label_kept", each (M,).
        labels: (M,) labels of the candidates.
        quotas: How many may be kept for each label.

    Returns:
        (M,) whether a candidate is kept, and for each one "kept" or the first filter that refused it.
    """
    left = dict(quotas)
    kept = np.zeros(len(labels), dtype=bool)
    reasons: list[str] = []
    for i, label in enumerate(labels.tolist()):
        reason = _first_refusal(rows, i)
        if reason is None and left.get(label, 0) > 0:
            left[label] -= 1
            kept[i] = True
        reasons.append(reason or (KEPT if kept[i] else REASONS[-1]))
    return kept, reasons


def _first_refusal(rows: Mapping[str, NDArray[np.bool_]], i: int) -> str | None:
    for name, reason in zip(("rare", "valid", "new", "label_kept"), REASONS, strict=False):
        if not rows[name][i]:
            return reason
    return None
