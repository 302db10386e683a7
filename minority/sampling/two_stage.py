"""Two-stage backbones: one draws small images, an upsampler turns each into a large one (Dhariwal & Nichol 2021).

Guidance and scores belong to the first stage; the second is drawn plainly, with noise of its own for every sample.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from minority.backbones.backbone import Backbone, BackboneError
from minority.backbones.unet import UNetDenoiser
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import from_pixels, to_pixels
from minority.sampling.sampler import sample
from minority.solvers.ancestral import Ancestral
from minority.solvers.ddim import Ddim
from minority.weights import joint_sha256


@dataclass(frozen=True, kw_only=True)
class UpsamplerSettings:
    """How the second stage is drawn.

    Attributes:
        steps: Steps of its respaced chain: a number, or sections such as "ddim25".
        solver: "ancestral", or deterministic "ddim".
    """

    steps: int | str = 250
    solver: Literal["ancestral", "ddim"] = "ancestral"

    def __post_init__(self) -> None:
        if self.solver not in ("ancestral", "ddim"):
            raise ValueError(f"UpsamplerSettings.solver must be ancestral or ddim, got {self.solver!r}.")


def join_stages(first: Backbone, upsampler: Backbone, *, settings: UpsamplerSettings | None = None) -> Backbone:
    """One backbone of two.

    Args:
        first: Draws small images.
        upsampler: Takes an image as small, and the labels of the first stage or none.
        settings: How the second stage is drawn.

    Returns:
        A backbone of the upsampler's images, whose chain, noise levels and scores are those of the first stage.

    Raises:
        BackboneError: Where the two do not fit.
    """
    settings = settings or UpsamplerSettings()
    _check(first, upsampler, settings)
    parts = {"first": first, "upsampler": upsampler}
    return replace(
        first,
        name=f"{first.name}+{upsampler.name}",
        image_shape=upsampler.image_shape,
        sha256=joint_sha256({role: part.sha256 for role, part in parts.items()}),
        settings_sha256=joint_sha256({role: part.settings_sha256 for role, part in parts.items()}),
        codec=UpsamplerCodec(upsampler, first.image_shape, settings),
        facts=(*first.facts, *upsampler.facts),
    )


@dataclass(frozen=True, eq=False)
class UpsamplerCodec:
    """The second stage as a codec.

    Attributes:
        upsampler: The second stage.
        state_shape: (C, H, W) of the first stage's images.
        settings: How it is drawn.
    """

    upsampler: Backbone
    state_shape: tuple[int, int, int]
    settings: UpsamplerSettings
    discretised: bool = True

    def encode(self, images: Tensor) -> Tensor:
        """Images made small by averaging, as the upsampler was trained, on the grid of 8-bit images."""
        return on_grid(F.interpolate(images, size=self.state_shape[1:], mode="area"))

    def decode(self, states: Tensor) -> Tensor:
        """Small images enlarged bilinearly: what guidance and particle weights of unfinished chains see of the second
        stage.
        """
        return F.interpolate(states, size=self.upsampler.image_shape[1:], mode="bilinear", align_corners=False)

    def finish(self, states: Tensor, seed: int, indices: Sequence[int], label: Tensor | None) -> tuple[Tensor, float]:
        """Draw the large images of small ones, and the network calls that each took."""
        assert isinstance(self.upsampler.denoiser, UNetDenoiser), "join_stages sees to it"
        images, cost = sample(
            self.upsampler.denoiser.conditioned_on(on_grid(states)),
            self.upsampler.schedule.respaced(self.settings.steps),
            SampleNoise(seed, indices, shape=self.upsampler.image_shape, stage=1, device=states.device),
            label=None if self.upsampler.num_classes is None else label,
            solver=Ddim() if self.settings.solver == "ddim" else Ancestral(),
            space=self.upsampler.space,
        )
        return images, cost.evaluations()

    @property
    def finish_evaluations(self) -> float:
        """A call a step of the second stage's respaced chain."""
        return float(self.upsampler.schedule.respaced(self.settings.steps).num_steps)

    def to(self, device: torch.device) -> "UpsamplerCodec":
        """The same codec on a device."""
        return replace(self, upsampler=self.upsampler.to(device))

    def in_precision(self, precision: Any) -> "UpsamplerCodec":
        """The same codec with the upsampler in another precision."""
        return replace(self, upsampler=self.upsampler.in_precision(precision))


def on_grid(images: Tensor) -> Tensor:
    """Images as a file of 8 bits would give them back: so the first stage's images reach the second."""
    return from_pixels(to_pixels(images)).to(images.device)


def _check(first: Backbone, upsampler: Backbone, settings: UpsamplerSettings) -> None:
    denoiser = upsampler.denoiser
    if not isinstance(denoiser, UNetDenoiser) or not denoiser.settings.low_resolution:
        raise BackboneError(f"{upsampler.name} is no upsampler: it takes no low-resolution image; leave it out.")
    if first.codec is not None or getattr(getattr(first.denoiser, "settings", None), "low_resolution", False):
        raise BackboneError(f"{first.name} draws no small images, so it cannot be the first of two stages.")
    (channels, height, width), (c, h, w) = upsampler.image_shape, first.image_shape
    if c != channels or height % h or width % w or height // h != width // w:
        raise BackboneError(
            f"{upsampler.name} makes images of {upsampler.image_shape} (C, H, W), which is no multiple of the "
            f"{first.image_shape} of {first.name}."
        )
    if upsampler.num_classes not in (None, first.num_classes):
        raise BackboneError(
            f"{upsampler.name} knows {upsampler.num_classes} classes, {first.name} {first.num_classes or 'none'}; take "
            "stages of the same classes, or an upsampler without."
        )
    upsampler.schedule.respaced(settings.steps)  # refuses a number of steps that its chain does not have
