"""Samplers by name, and several of them on the same seeds, side by side.

The scales of the published methods are those of their papers; the others were tried on the 8x8 digits. The best ones
differ from backbone to backbone, so override or calibrate them.

Shapes: N samples, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from minority.backbones import Backbone
from minority.features.pixel_features import pixel_features
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.materials import Extractor, Parts
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.registry import METHODS
from minority.guidance.self_guidance import SelfGuidance
from minority.neighbours.reference import RealReference
from minority.sampling.draw import Drawn, draw
from minority.sampling.settings import SamplerSettings


@dataclass(frozen=True, kw_only=True)
class NamedSampler:
    """A sampler that has a name.

    Attributes:
        settings: How it draws.
        paper: Where it is published.
        line: What it does, in a line.
    """

    settings: SamplerSettings
    paper: str
    line: str


_OURS = "this project's combination"
_BOOST = BoostAndSkip(boost=4.0, skip=0.12)
_BY_METRIC = PruneAndBranch(points=(0.5, 0.7), perturbation=0.3, draws=4)
_BY_FEATURES = PruneAndBranch(weight_by="features", points=(0.5, 0.7))


def _solvers() -> dict[str, NamedSampler]:
    return {
        "ancestral": NamedSampler(
            settings=SamplerSettings(),
            paper="Ho, Jain & Abbeel, NeurIPS 2020, arXiv 2006.11239",
            line="plain sampling: the reverse chain of DDPM, without guidance",
        ),
        "ddim": NamedSampler(
            settings=SamplerSettings(solver="ddim"),
            paper="Song, Meng & Ermon, ICLR 2021, arXiv 2010.02502",
            line="the same marginals without noise on the way",
        ),
        "dpm-solver": NamedSampler(
            settings=SamplerSettings(solver="dpm_solver", steps="logsnr20"),
            paper="Lu et al., 2022, arXiv 2211.01095",
            line="DPM-Solver++, second order, multistep, in 20 steps",
        ),
    }


def _methods() -> dict[str, NamedSampler]:
    """Every method of the registry, alone, under the names that its file gives."""
    return {
        name: NamedSampler(
            settings=SamplerSettings(solver=method.solver).guided(settings),
            paper=method.paper,
            line=f"of text-to-image models: {method.line}" if method.needs_prompts else method.line,
        )
        for method in METHODS.values()
        for name, settings in method.samplers().items()
    }


def _combined() -> dict[str, NamedSampler]:
    guide = SelfGuidance(scale=2.0, perturbation=0.5, jacobian=False)
    softer = SelfGuidance(scale=1.5, perturbation=0.5, jacobian=False)
    quick = SamplerSettings(solver="dpm_solver", steps="logsnr8")
    combined = {
        "boosted-solver": (
            quick.guided(BoostAndSkip(boost=1.2, skip=0.0)),
            "DPM-Solver++ in 8 steps, from a louder start",
        ),
        "boost-and-guide": (SamplerSettings().guided(_BOOST, softer), "a boosted start, then the minority metric"),
        "boost-and-prune": (SamplerSettings().guided(_BOOST, _BY_METRIC), "a boosted start, pruned by the metric"),
        "boost-and-prune-by-features": (
            SamplerSettings().guided(_BOOST, _BY_FEATURES),
            "a boosted start, pruned by where the estimates lie among real images",
        ),
        "guide-and-prune-by-features": (
            SamplerSettings().guided(guide, _BY_FEATURES),
            "the minority metric, pruned by where the estimates lie among real images",
        ),
    }
    return {
        name: NamedSampler(settings=settings, paper=_OURS, line=line) for name, (settings, line) in combined.items()
    }


#: Every sampler by name, with its paper and a line: solvers, methods, combinations.
SAMPLERS: Mapping[str, NamedSampler] = _solvers() | _methods() | _combined()
NAMED_SAMPLERS: Mapping[str, SamplerSettings] = {name: sampler.settings for name, sampler in SAMPLERS.items()}


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
    reference: RealReference | None = None,
    extract: Extractor = pixel_features,
    parts: Mapping[str, Parts] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, Drawn]:
    """Draw the same N samples, (N, H, W, C) uint8, by several samplers: same indices, same labels, same noise.

    Args:
        backbone: On any device.
        names: Samplers, in the order wanted.
        seed: The run's seed.
        indices: Sample indices.
        labels: One a sample for a class-conditional backbone, else None.
        reference: The real training images, for samplers that weigh chains by features.
        extract: The features that the reference was fitted on.
        parts: What methods with trained parts have learnt, by the method's key.
        device: Where to compute.

    Raises:
        ValueError: For an unknown name, before anything is drawn, or labels that do not go with the backbone.
    """
    chosen = {name: named_sampler(name) for name in names}
    return {
        name: draw(
            backbone,
            seed=seed,
            indices=indices,
            labels=labels,
            settings=settings,
            reference=reference,
            extract=extract,
            parts=parts,
            device=device,
        )
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
