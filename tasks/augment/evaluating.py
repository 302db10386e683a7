"""What candidates turned out to be: their groups, and every filter's word on them."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from minority.runtime.image_arrays import Images
from minority.selection.filter_contract import Verdicts
from minority.selection.without_neighbours import without_neighbours
from tasks.inputs.factor_filter import FactorFilter
from tasks.inputs.workspace import Workspace


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Candidates with what they turned out to be.

    Attributes:
        groups: (N,) group of each: the one it was drawn for, or the one that was recognised.
        labels: (N,) the groups' labels.
        features: (N, D).
        verdicts: The filter's, with the labeller's word on the label where there is one.
    """

    groups: NDArray[np.int64]
    labels: NDArray[np.int64]
    features: NDArray[np.floating]
    verdicts: Verdicts


def evaluate_images(
    workspace: Workspace, images: Images, planned_groups: NDArray[np.int64], *, inherited: bool = False
) -> Evaluated:
    """Recognise groups where the backbone does not know them, and ask every filter.

    Args:
        workspace: The run.
        images: (N, H, W, C) uint8.
        planned_groups: (N,) the groups that they were drawn for.
        inherited: They are variants of real images and have these images' groups: a group is not given by the labeller
            then, but must be confirmed by it. So is the group of a prompt, which may not have been obeyed.
    """
    group_labels = np.array(workspace.real.group_labels)
    groups, confidence = planned_groups, None
    if workspace.labeller is not None:
        groups, confidence = workspace.labeller.label(images)
    recognised = groups
    confirmed = inherited or workspace.backbone.prompts is not None
    if confirmed:
        groups = planned_groups
    labels, features = group_labels[groups], workspace.extract(images)
    verdicts = workspace.candidate_filter.evaluate(features, labels, images=images)
    if workspace.factor_filter is not None:
        verdicts = _shown(
            workspace, workspace.factor_filter, verdicts, images, features=features, groups=planned_groups
        )
        return Evaluated(groups=planned_groups, labels=labels, features=features, verdicts=verdicts)
    if confidence is not None:
        kept = confidence >= workspace.label_floor
        if confirmed:
            kept &= recognised == planned_groups
        elif workspace.backbone.num_classes is not None:
            kept &= labels == group_labels[planned_groups]
        verdicts = verdicts.with_labeller(confidence, kept)
    return Evaluated(groups=groups, labels=labels, features=features, verdicts=verdicts)


def _shown(
    workspace: Workspace,
    factor_filter: FactorFilter,
    verdicts: Verdicts,
    images: Images,
    *,
    features: NDArray[np.floating],
    groups: NDArray[np.int64],
) -> Verdicts:
    """The verdicts, with what the classifiers of label and attributes say; in sparse groups theirs decide."""
    asked = factor_filter.values[groups]
    said = replace(
        verdicts,
        shows_values=factor_filter.classifiers.accepts(images, asked),
        labeller_confidence=factor_filter.classifiers.confidence(images, asked),
    )
    realism = factor_filter.shared.realism(features, asked)
    return without_neighbours(
        said,
        factor_filter.sparse[groups],
        realism=realism,
        floor=factor_filter.shared.floor,
        candidate_filter=workspace.candidate_filter,
    )
