"""What the backbone says about images, and where that lies among real images that the backbone never saw."""

import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from minority.sampling.draw import Scores, score_images
from minority.selection.quantiles import quantile_among
from tasks.inputs.workspace import Workspace

#: Real images draw their scoring noise from indices that no sample has.
TRAINING_INDEX = 2**62
VALIDATION_INDEX = 2**62 + 2**61

_scoring = threading.Lock()


def score(workspace: Workspace, images: NDArray[np.uint8], *, indices: Sequence[int], told: list[int] | None) -> Scores:
    """Minority score and negative ELBO of images.

    Args:
        workspace: The run.
        images: (N, H, W, C) uint8.
        indices: N distinct ones that decide each image's noise.
        told: What the backbone is told of each (`Workspace.told`).
    """
    return score_images(
        workspace.backbone,
        images,
        seed=workspace.config.seed,
        indices=indices,
        labels=told,
        settings=workspace.config.scores,
        batch_size=workspace.config.sampler.batch_size,
        engine=workspace.config.sampler.engine,
        device=workspace.device,
    )


def score_quantiles(workspace: Workspace, scores: Scores) -> dict[str, NDArray[np.float64]]:
    """Quantiles of the scores among those of validation images, in [0, 1].

    The backbone was trained on the training images, which it may therefore find likelier than any unseen one.

    Validation images for which the backbone has no number (NaN) are no part of the scale.

    Returns:
        minority_score and negative_elbo, each (N,); without what there is no scale for.
    """
    with _scoring:  # once a process, however many units come first
        scale = _validation_scores(workspace)
    if scale is None:
        return {}
    found = {}
    for name in ("minority_score", "negative_elbo"):
        values = getattr(scale, name)
        known = values[~np.isnan(values)]
        if len(known):
            found[name] = quantile_among(getattr(scores, name), known)
    return found


@lru_cache(maxsize=2)
def _validation_scores(workspace: Workspace) -> Scores | None:
    validation = workspace.real.validation
    count = min(workspace.config.scores.held_out, len(validation))
    if count == 0:
        return None
    draw = np.random.default_rng(workspace.config.seed)
    positions = np.sort(draw.choice(len(validation), size=count, replace=False))
    return score(
        workspace,
        validation.images(positions.tolist()),
        indices=[VALIDATION_INDEX + int(position) for position in positions],
        told=workspace.told(
            labels=validation.labels[positions].tolist(),
            groups=[workspace.real.groups.index(validation.groups[position]) for position in positions],
        )
        if workspace.backbone.num_classes is not None
        else None,
    )
