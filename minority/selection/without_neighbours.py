"""Verdicts on samples of groups that have few or no real images, where no neighbour of their own kind can evaluate.

Such a sample is evaluated by what its group shares with others that do have images:

    label_kept   classifiers of label and attributes, fitted on all training images, say that it shows what was asked
    valid        among the training images that share its label or one of its attribute values it lies no farther
                 outside than real images of a combination do when all of that combination are left out; and the
                 discriminator, where there is one, takes it for real
    new          it is no near-copy of any training image, as for every other sample
    rare         always: an image of a group that has next to none is rare

Shapes: N training images, M candidates, F conditions, D features.
"""

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from minority.neighbours.pairwise import Features
from minority.neighbours.reference import RealReference
from minority.selection.filter_contract import CandidateFilter, Verdicts
from minority.selection.quantiles import lower_limit

#: Share of the training images that the floor of realism loses.
_FLOOR = 0.05
#: Images that a reference is fitted on, at most: one a group is needed.
_MOST = 5000

Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


class SharedReference:
    """The training images that share a label or an attribute value with a group.

    Args:
        features: (N, D) of the training images.
        values: (N, F) their label and attribute values; -1 where one is unknown.
        neighbours: k of the manifold.
        device: Where distances are computed.
    """

    def __init__(
        self, features: Features, values: Int64, *, neighbours: int, device: torch.device | str = "cpu"
    ) -> None:
        self._features, self._values, self._neighbours, self._device = features, values, neighbours, device
        self._fitted: dict[tuple[int, ...], RealReference | None] = {}

    @cached_property
    def floor(self) -> float:
        """The realism that all but few training images reach when their whole combination is left out."""
        realism = []
        for group in np.unique(self._values, axis=0):
            members = (self._values == group).all(axis=1)
            reference = self._fit(self._shares(group) & ~members)
            if reference is not None:
                realism.append(reference.locate(self._features[self._some(members)]).realism)
        return lower_limit(np.concatenate(realism), quantile=_FLOOR) if realism else 1.0

    def realism(self, features: Features, asked: Int64) -> NDArray[np.float64]:
        """(M,) realism among those images (`Neighbourhood.realism`); 0 where fewer than two share anything.

        Args:
            features: (M, D) of the candidates.
            asked: (M, F) the values that they were drawn for; -1 where none was asked for.
        """
        highest = np.zeros(len(features))
        for group in np.unique(asked, axis=0):
            members = (asked == group).all(axis=1)
            key = tuple(group.tolist())
            if key not in self._fitted:
                # Without the few images of the group itself, as the floor is measured.
                self._fitted[key] = self._fit(self._shares(group) & ~(self._values == group).all(axis=1))
            reference = self._fitted[key]
            if reference is not None:
                highest[members] = reference.locate(features[members]).realism
        return highest

    def _shares(self, group: Int64) -> Bool:
        return np.asarray(((self._values == group) & (group >= 0)).any(axis=1))

    def _fit(self, chosen: Bool) -> RealReference | None:
        some = self._some(chosen)
        if len(some) < 2:
            return None
        return RealReference.fit(self._features[some], k=self._neighbours, device=self._device)

    @staticmethod
    def _some(chosen: Bool) -> Int64:
        """Positions of at most `_MOST` of the chosen images, the same every time."""
        positions = np.flatnonzero(chosen)
        return np.sort(np.random.default_rng(0).permutation(positions)[:_MOST])


def without_neighbours(
    verdicts: Verdicts, sparse: Bool, *, realism: NDArray[np.float64], floor: float, candidate_filter: CandidateFilter
) -> Verdicts:
    """The same verdicts, but for candidates of groups with few or no real images.

    Args:
        verdicts: By all filters; `shows_values` is there.
        sparse: (M,) which candidates are of such a group.
        realism: (M,) among the training images that share something (`SharedReference.realism`).
        floor: From which on they are valid (`SharedReference.floor`).
        candidate_filter: Whose discriminator's floor holds, where there is one.

    Raises:
        ValueError: No classifier said whether they show what was asked for.
    """
    if verdicts.shows_values is None:
        raise ValueError(
            "groups without neighbours are evaluated by classifiers of label and attributes; ask them first."
        )
    valid = realism >= floor
    if verdicts.output is not None:
        valid &= verdicts.output.p_real >= candidate_filter.thresholds["p_real"]
    shown = verdicts.shows_values.all(axis=1)
    return replace(
        verdicts,
        rare=verdicts.rare | sparse,
        valid=np.where(sparse, valid, verdicts.valid),
        label_kept=np.where(sparse, shown, verdicts.label_kept & shown),
    )
