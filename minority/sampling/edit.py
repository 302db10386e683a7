"""Variants of labelled real images: noise an image partly, then denoise it under guidance.

The image keeps its coarse content, and with it its label, as far as it is not noised away (SDEdit: Meng et al., ICLR
2022). That gives an unconditional backbone labelled samples of groups that it hardly ever draws. Told another group
than the image's, a backbone moves it there and keeps what it can of the rest (Diff-Mix: Wang et al., CVPR 2024).
Whether the image shows its label is for the filters to say, as with every candidate.

Shapes: B samples, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.finite import require_finite
from minority.diffusion.noise import NoiseSource, SampleNoise
from minority.diffusion.pixels import from_pixels, to_pixels
from minority.diffusion.schedule import NoiseSchedule
from minority.engine.prepare import prepared
from minority.guidance import Guidance
from minority.guidance.materials import Materials, Parts
from minority.sampling.draw import check_backbone
from minority.sampling.edit_sources import Sources
from minority.sampling.finite_states import finite_states
from minority.sampling.inpainting import KeepOutsideMask, masks_of_states
from minority.sampling.sampler import sample
from minority.sampling.settings import SamplerSettings


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """Candidates are variants of labelled real training images.

    Attributes:
        fraction: How far up the chain the images are noised (t0 / T), in (0, 1). The higher, the more differs, the
            label at last.
        sources: Which images are varied: "group", those of the sample's own group; "label", those of its label's
            other groups; or "other_groups", those of all other groups, whatever their label. The latter two are moved
            into the sample's group, for backbones that are told the group.
        masked: Whether only what the set's masks mark is redrawn; images without a mask are then not varied.
    """

    fraction: float = 0.5
    sources: Sources = "group"
    masked: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"EditSettings.fraction must lie in (0, 1), got {self.fraction}.")
        if self.sources not in get_args(Sources):
            raise ValueError(f"EditSettings.sources must be {', '.join(get_args(Sources))}, got {self.sources!r}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class StartFromImages(Guidance):
    """Starts a chain part of the way down, from noised images.

    Attributes:
        images: (B, C, H, W) in [-1, 1], one for each sample of the batch; or the states that stand for them.
        fraction: How far up the chain they are noised (t0 / T), in [0, 1); 0 changes almost nothing.
    """

    images: Tensor
    fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise ValueError(f"StartFromImages.fraction must lie in [0, 1), got {self.fraction}.")

    def start(self, schedule: NoiseSchedule, noise: NoiseSource) -> tuple[Tensor, int]:
        """The noised images (B, C, H, W), and the step that they are noised to."""
        step = schedule.step_at(self.fraction)
        return schedule.noised(self.images, step, noise.start()), step


def edit_images(
    backbone: Backbone,
    images: NDArray[np.uint8],
    *,
    seed: int,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    settings: SamplerSettings,
    fraction: float,
    masks: NDArray[np.bool_] | None = None,
    parts: Mapping[str, Parts] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[NDArray[np.uint8], float]:
    """Draw a variant of every image.

    Args:
        backbone: On any device.
        images: (B, H, W, C) uint8.
        seed: The run's seed.
        indices: One sample index an image; each decides its own noise.
        labels: One an image for a class-conditional backbone, None for an unconditional one.
        settings: How the chain is solved and guided; a boosted start does not go with this one, nor does pruning.
        fraction: How far up the chain the images are noised, in [0, 1).
        masks: (B, H, W), True where an image is redrawn; None: everywhere. A backbone whose chain is one of images
            keeps every other pixel exactly; of a latent one the rest is what its autoencoder makes of the image.
        parts: What methods with trained parts have learnt, by the method's key.
        device: Where to compute.

    Returns:
        (B, H, W, C) uint8, and denoiser evaluations a sample.

    Raises:
        ValueError: Where labels do not go with the backbone, counts differ, methods cannot be combined, or the network
            answers NaN or infinity.
    """
    if (labels is None) != (backbone.num_classes is None):
        raise ValueError(
            f"backbone {backbone.name} knows {backbone.num_classes or 'no'} classes; labels must fit that."
        )
    if len(indices) != len(images) or (labels is not None and len(labels) != len(images)) or len(images) == 0:
        raise ValueError(f"{len(images)} images need as many indices and labels, and there must be one at least.")
    pruning = [method.key for method in settings.guidance if method.particle_group > 1]
    if pruning:
        raise ValueError(f"pruned chains take another image's place and label; leave {pruning[0]} out.")
    if masks is not None and masks.shape != images.shape[:3]:
        raise ValueError(f"images of {images.shape[:3]} (B, H, W) need masks of that shape, got {masks.shape}.")
    check_backbone(backbone, settings)
    backbone = prepared(backbone, device=device, precision=settings.precision, engine=settings.engine)
    schedule = backbone.schedule.respaced(settings.steps)
    methods = [method.ready(backbone, Materials(parts=parts or {}, device=device)) for method in settings.guidance]
    made, evaluations = [], 0.0
    for start in range(0, len(images), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        label = None if labels is None else torch.tensor(labels[part], dtype=torch.int64, device=device)
        with finite_states(backbone, precision=settings.precision):
            with torch.no_grad():
                states = backbone.encode(from_pixels(images[part]).to(device))
            require_finite(states, "the encoded image")
            kept: list[Guidance] = []
            if masks is not None:
                redrawn = masks_of_states(masks[part], backbone.state_shape).to(device)
                kept = [KeepOutsideMask(states=states, redrawn=redrawn)]
            x, cost = sample(
                backbone.denoiser,
                schedule,
                SampleNoise(seed, indices[part], shape=backbone.state_shape, device=device),
                label=label,
                condition=backbone.condition(seed, indices[part], label),
                guidance=[*methods, StartFromImages(images=states, fraction=fraction), *kept],
                variance=settings.variance,
                solver=settings.chain_solver,
                space=backbone.space,
            )
            require_finite(x, "the end of a chain")
            with torch.no_grad():
                x, extra = backbone.finish(x, seed=seed, indices=indices[part], label=label)
            require_finite(x, "a finished image")
        made.append(to_pixels(x))
        evaluations = cost.evaluations() + extra
    return np.concatenate(made), evaluations
