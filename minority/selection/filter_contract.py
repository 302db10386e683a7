"""What a filter says about candidates, and the contract that every filter fulfils.

Shapes: N training images, M candidates, D features.
"""

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.pairwise import Features
from minority.neighbours.reference import Neighbourhood, RealReference
from minority.runtime.image_arrays import Images
from minority.selection.discriminator import DiscriminatorOutput
from minority.selection.policy import FILTERS, Policy, passed


@dataclass(frozen=True, eq=False)
class Verdicts:
    """How the filters evaluate a batch of candidates.

    Attributes:
        neighbourhood: Where they lie among the training images.
        label_agreement: (M,) in [0, 1]: distance to the nearest training image of another label, relative to that
            plus the distance to the nearest of the own label; above 0.5 the own label is nearer.
        rare, valid, new, label_kept: (M,) verdicts.
        output: The discriminator's, where there is one.
        label_probability: (M,) the discriminator's probability of the label.
        label_margin: (M,) the same less that of the likeliest other label.
        labeller_confidence: (M,) in [0, 1], how sure the labeller is of the group, where groups are recognised.
        shows_values: (M, F) whether classifiers of label and attributes say that each value is shown that was asked
            for, where they are asked.
        quantiles: For each score, (M,) its quantile among the training images, each evaluated without itself.
    """

    neighbourhood: Neighbourhood
    label_agreement: NDArray[np.float64]
    rare: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    new: NDArray[np.bool_]
    label_kept: NDArray[np.bool_]
    output: DiscriminatorOutput | None = None
    label_probability: NDArray[np.float64] | None = None
    label_margin: NDArray[np.float64] | None = None
    labeller_confidence: NDArray[np.float64] | None = None
    shows_values: NDArray[np.bool_] | None = None
    quantiles: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def passed(self) -> NDArray[np.bool_]:
        """(M,) whether every filter lets a candidate through."""
        passed: NDArray[np.bool_] = np.logical_and.reduce([getattr(self, name) for name in FILTERS])
        return passed

    def passed_by(self, policy: Policy, groups: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(M,) whether a policy lets a candidate through, for the candidates' (M,) groups."""
        return passed(policy, self.columns, groups)

    @property
    def columns(self) -> dict[str, NDArray[np.generic]]:
        """What selection policies may ask about, each (M,), by the names of the published table."""
        columns: dict[str, NDArray[np.generic]] = {name: getattr(self, name) for name in FILTERS}
        columns["knn_distance_quantile"] = self.quantiles["knn_distance"]
        return columns if self.label_margin is None else columns | {"label_margin": self.label_margin}

    def with_labeller(self, confidence: NDArray[np.float64], kept: NDArray[np.bool_]) -> "Verdicts":
        """The same where an ensemble recognised the groups.

        Its answer takes the place of the neighbours' on the label, and stands beside the discriminator's: where there
        is one, a label is kept only if both say so.

        Args:
            confidence: (M,) in [0, 1], how sure it is of the group.
            kept: (M,) whether it says that the group is kept.
        """
        both = kept if self.output is None else kept & self.label_kept
        return replace(self, labeller_confidence=confidence, label_kept=both)


class CandidateFilter(Protocol):
    """Evaluates candidates against the real training split; the verdicts of one do not depend on any other."""

    @property
    def reference(self) -> RealReference:
        """The training images' features."""

    @property
    def thresholds(self) -> dict[str, float]:
        """Where the filters cut, by score."""

    @property
    def spacing(self) -> float:
        """Distance up to which two kept samples would be look-alikes."""

    def evaluate(self, features: Features, labels: NDArray[np.int64], *, images: Images | None = None) -> Verdicts:
        """Ask every filter.

        Args:
            features: (M, D) of the candidates, from the same extractor as the reference.
            labels: (M,) the labels that they were drawn for.
            images: (M, H, W, C) uint8 the candidates themselves; needed where a discriminator evaluates.

        Raises:
            ValueError: Features do not fit the reference, or the images are needed and missing.
        """


def label_agreement(
    reference: RealReference, training_labels: NDArray[np.int64], features: Features, labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How much nearer the own label's training images are than the others', (M,) in [0, 1].

    A label without training images has agreement 0; the only label there is has agreement 1.

    Args:
        reference: The training images' features.
        training_labels: (N,) their labels.
        features: (M, D) of the candidates.
        labels: (M,) their labels.
    """
    labels = np.asarray(labels)
    same_label, other_label = np.full(len(labels), np.inf), np.full(len(labels), np.inf)
    for label in np.unique(labels):
        members, same = np.flatnonzero(labels == label), training_labels == label
        for distance, training in ((same_label, same), (other_label, ~same)):
            if training.any():
                distance[members] = reference.index.nearest_among(features[members], training)
    total = same_label + other_label
    with np.errstate(invalid="ignore"):
        agreement = np.where(np.isinf(other_label), 1.0, np.where(total > 0, other_label / total, 0.5))
    return np.where(np.isinf(same_label), 0.0, agreement)
