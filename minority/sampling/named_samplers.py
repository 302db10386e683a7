"""Samplers by name, and several of them on the same seeds, side by side.

The scales of the published methods are those of their papers; the others were tried on the 8x8 digits. The best ones
differ from backbone to backbone, so override or calibrate them.

Shapes: N samples, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from minority.backbones import Backbone
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.guidance.shaped_noise import ShapedNoise
from minority.sampling.draw import Drawn, draw
from minority.sampling.settings import SamplerSettings

_SELF = SelfGuidance(scale=3.0, perturbation=0.5)
_FREE = SelfGuidance(scale=3.0, perturbation=0.5, jacobian=False)
_PRUNE = PruneAndBranch(points=(0.5, 0.7), perturbation=0.3, draws=4)

NAMED_SAMPLERS: Mapping[str, SamplerSettings] = {
    "ancestral": SamplerSettings(),
    "ddim": SamplerSettings(solver="ddim"),
    "dpm-solver": SamplerSettings(solver="dpm_solver", steps="logsnr20"),
    "boosted-solver": SamplerSettings(
        solver="dpm_solver", steps="logsnr8", boost_and_skip=BoostAndSkip(boost=1.2, skip=0.0)
    ),
    "sgms-published": SamplerSettings(self_guidance=SelfGuidance(scale=0.4)),
    "sgms": SamplerSettings(self_guidance=_SELF),
    "jacobian-free": SamplerSettings(self_guidance=_FREE),
    "boost-and-skip": SamplerSettings(boost_and_skip=BoostAndSkip(boost=4.0, skip=0.12)),
    "boost-and-guide": SamplerSettings(
        boost_and_skip=BoostAndSkip(boost=4.0, skip=0.12),
        self_guidance=SelfGuidance(scale=1.5, perturbation=0.5, jacobian=False),
    ),
    "prune-and-branch": SamplerSettings(prune_and_branch=_PRUNE),
    "boost-and-prune": SamplerSettings(boost_and_skip=BoostAndSkip(boost=4.0, skip=0.12), prune_and_branch=_PRUNE),
    "temperature": SamplerSettings(shaped_noise=ShapedNoise(ancestral_scale=1.1)),
    "truncated": SamplerSettings(shaped_noise=ShapedNoise(truncate=1.5)),
    "classifier-free": SamplerSettings(classifier_free=ClassifierFree(scale=1.5)),
}


def named_sampler(name: str) -> SamplerSettings:
    """The settings of a sampler.

    Raises:
        ValueError: Naming the samplers that there are.

    Example:
        >>> named_sampler("sgms").self_guidance.scale
        3.0
    """
    if name not in NAMED_SAMPLERS:
        raise ValueError(f"there is no sampler {name!r}; take one of {', '.join(NAMED_SAMPLERS)}.")
    return NAMED_SAMPLERS[name]


def compare(
    backbone: Backbone,
    names: Sequence[str],
    *,
    seed: int,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    device: torch.device | str = "cpu",
) -> dict[str, Drawn]:
    """Draw the same samples by several samplers: same indices, same labels, same noise.

    Args:
        backbone: On any device.
        names: Samplers, in the order wanted.
        seed: The run's seed.
        indices: Sample indices.
        labels: One a sample for a class-conditional backbone, else None.
        device: Where to compute.

    Raises:
        ValueError: For an unknown name, before anything is drawn, or labels that do not go with the backbone.
    """
    chosen = {name: named_sampler(name) for name in names}
    return {
        name: draw(backbone, seed=seed, indices=indices, labels=labels, settings=settings, device=device)
        for name, settings in chosen.items()
    }


def contact_sheet(rows: Sequence[NDArray[np.uint8]], *, enlarge: int = 1, gap: int = 2) -> NDArray[np.uint8]:
    """Put rows of images under one another: column by column the same seed.

    Args:
        rows: Each (N, H, W, C) uint8, all of one shape.
        enlarge: Whole factor by which pixels grow.
        gap: White pixels between images.

    Returns:
        (height, width, C) uint8.

    Raises:
        ValueError: Where rows differ in shape.
    """
    if not rows or len({row.shape for row in rows}) != 1:
        raise ValueError(f"a contact sheet needs rows of one shape, got {[row.shape for row in rows]}.")
    tiles = np.stack(rows).repeat(enlarge, axis=2).repeat(enlarge, axis=3)  # (R, N, H, W, C)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (gap, 0), (gap, 0), (0, 0)), constant_values=255)
    num_rows, count, height, width, channels = tiles.shape
    sheet = tiles.transpose(0, 2, 1, 3, 4).reshape(num_rows * height, count * width, channels)
    return np.pad(sheet, ((0, gap), (0, gap), (0, 0)), constant_values=255)
