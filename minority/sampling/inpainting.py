"""Inpainting with a model that was not trained for it: what lies outside a mask is put back after every step.

The known part of the image, noised to the level of the step that follows, takes the place of what was drawn there, so
that the network completes the rest around it (RePaint: Lugmayr et al., CVPR 2022, without its resampling; diffusers'
inpainting pipelines do the same with U-Nets that see the latent alone). The noise is that of the chain's start at every
step.

Shapes: B samples, C channels, H x W pixels of a state.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from minority.diffusion.noise import NoiseSource
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance import Guidance


@dataclass(frozen=True, kw_only=True, eq=False)
class KeepOutsideMask(Guidance):
    """Keeps known states outside a mask.

    Attributes:
        states: (B, C, H, W) clean states that are known.
        redrawn: (B, 1, H, W) bool, where they are not kept.
    """

    states: Tensor
    redrawn: Tensor

    def constrain(self, x: Tensor, step: int, schedule: NoiseSchedule, noise: NoiseSource) -> Tensor:
        """The state, with the known part put back."""
        known = self.states if step == 0 else schedule.noised(self.states, step - 1, noise.start())
        return torch.where(self.redrawn, x, known)


def masks_of_states(masks: NDArray[np.bool_], state_shape: tuple[int, int, int]) -> Tensor:
    """Masks of images as masks of the states that stand for them, by the nearest pixel as diffusers has it.

    Args:
        masks: (B, H, W) of the images, True where they are redrawn.
        state_shape: (C, H, W) of one state.

    Returns:
        (B, 1, H, W) bool.
    """
    wide = torch.from_numpy(masks).unsqueeze(1).float()
    return F.interpolate(wide, size=state_shape[1:], mode="nearest") > 0.5
