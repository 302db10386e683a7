"""How the candidates of a unit come into being: from noise, or as variants of labelled training images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minority.sampling.draw import draw
from minority.sampling.edit import edit_images
from minority.sampling.edit_sources import choose_sources
from minority.sampling.settings import SamplerSettings
from tasks.augment.planning import UnitPlan
from tasks.inputs.guidance_parts import open_parts
from tasks.inputs.workspace import Workspace


@dataclass(frozen=True, eq=False)
class DrawnUnit:
    """A unit's candidates.

    Attributes:
        images: (N, H, W, C) uint8.
        evaluations: Denoiser evaluations a sample.
        root_ancestors: (N,) sample index of the chain that each descends from; its own where chains were not pruned.
        sources: (N,) positions of the training images that they are variants of; None where they come from noise.
    """

    images: NDArray[np.uint8]
    evaluations: float
    root_ancestors: NDArray[np.int64]
    sources: NDArray[np.int64] | None = None


def draw_candidates(
    plan: UnitPlan, workspace: Workspace, *, sampler: SamplerSettings, labels: list[int] | None
) -> DrawnUnit:
    """Draw a unit. The baseline always comes from noise.

    Args:
        plan: The unit.
        workspace: The run.
        sampler: How the chains are solved and guided.
        labels: One a sample for a class-conditional backbone, else None.
    """
    backbone, device, seed = workspace.backbone, workspace.device, workspace.config.seed
    parts = open_parts(workspace, sampler.guidance)
    edit = workspace.config.edit if plan.sampler == "minority" else None
    if edit is None:
        drawn = draw(
            backbone,
            seed=seed,
            indices=plan.indices,
            labels=labels,
            settings=sampler,
            reference=workspace.candidate_filter.reference,
            extract=workspace.extract,
            parts=parts,
            device=device,
        )
        return DrawnUnit(drawn.images, drawn.evaluations, drawn.root_ancestors)
    real = workspace.real
    sources = choose_sources(
        seed,
        plan.indices,
        plan.groups,
        real_groups=real.train_groups,
        group_labels=real.group_labels,
        among=edit.sources,
        has_mask=real.train.has_mask if edit.masked else None,
    )
    images, evaluations = edit_images(
        backbone,
        workspace.train_images[sources],
        seed=seed,
        indices=plan.indices,
        labels=labels,
        settings=sampler,
        fraction=edit.fraction,
        masks=np.stack([real.train.mask(position) for position in sources]) if edit.masked else None,
        parts=parts,
        device=device,
    )
    return DrawnUnit(images, evaluations, np.array(plan.indices, dtype=np.int64), sources)
