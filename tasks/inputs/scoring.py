"""What the backbone says about images, and where that lies among real images that the backbone never saw."""

import threading
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from minority.runtime.progress import called
from minority.sampling.draw import Scores, score_images
from minority.selection.quantiles import quantile_among
from minority.selection.stored_networks import array_bytes, read_arrays
from tasks.inputs.fitted import digest_of, fitted
from tasks.inputs.workspace import Models

#: Real images draw their scoring noise from indices that no sample has.
TRAINING_INDEX = 2**62
VALIDATION_INDEX = 2**62 + 2**61

_scoring = threading.Lock()


def score(models: Models, images: NDArray[np.uint8], *, indices: Sequence[int], condition: list[int] | None) -> Scores:
    """Minority score and negative ELBO of images.

    Args:
        models: The run's.
        images: (N, H, W, C) uint8.
        indices: N distinct ones that decide each image's noise.
        condition: What the backbone is conditioned on, of each (`Models.condition_of`).
    """
    return score_images(
        models.backbone,
        images,
        seed=models.config.seed,
        indices=indices,
        labels=condition,
        settings=models.config.scores,
        batch_size=models.config.sampler.batch_size,
        engine=models.config.sampler.engine,
        device=models.device,
    )


def score_quantiles(models: Models, scores: Scores) -> dict[str, NDArray[np.float64]]:
    """Quantiles of the scores among those of validation images, in [0, 1].

    The backbone was trained on the training images, which it may therefore find likelier than any unseen one.

    Validation images for which the backbone has no number (NaN) are no part of the scale.

    Returns:
        minority_score and negative_elbo, each (N,); without what there is no scale for.
    """
    scale = validation_scores(models)
    if scale is None:
        return {}
    quantiles = {}
    for name in ("minority_score", "negative_elbo"):
        values = getattr(scale, name)
        known = values[~np.isnan(values)]
        if len(known):
            quantiles[name] = quantile_among(getattr(scores, name), known)
    return quantiles


def validation_scores(models: Models) -> Scores | None:
    """Scores of validation images, the scale of all others: from the store where they lie already, else made now.

    Returns:
        Of `scores.held_out` validation images at most; None where there are none.

    Raises:
        StoreError: The store cannot be read or written.
    """
    with _scoring:  # once a process, however many units come first
        return _validation_scores(models)


@lru_cache(maxsize=2)
def _validation_scores(models: Models) -> Scores | None:
    validation, config = models.real.validation, models.config
    # An image of a group that is not drawn for has no place on the scale.
    known = np.flatnonzero(models.real.validation_groups >= 0)
    count = min(config.scores.held_out, len(known))
    if count == 0:
        return None
    draw = np.random.default_rng(config.seed)
    positions = known[np.sort(draw.choice(len(known), size=count, replace=False))]
    images, labels = validation.images(positions.tolist()), validation.labels[positions]

    def fit() -> bytes:
        indices = [VALIDATION_INDEX + int(position) for position in positions]
        condition = None
        if models.backbone.num_classes is not None:
            groups = models.real.validation_groups[positions].tolist()
            condition = models.condition_of(labels=labels.tolist(), groups=groups)
        with called("scores of validation images"):
            return array_bytes(vars(score(models, images, indices=indices, condition=condition)))

    decided_by = {
        "images": digest_of(images, labels),
        "positions": positions.tolist(),
        "backbone": [models.backbone.identity, config.backbone.decisive],
        "scores": asdict(config.scores),
        "batch_size": config.sampler.batch_size,
        "engine": asdict(config.sampler.engine),
        "seed": config.seed,
    }
    data = fitted(models.run.dataset_store, "validation-scores", decided_by=decided_by, fit=fit, suffix="safetensors")
    return Scores(**read_arrays(data))
