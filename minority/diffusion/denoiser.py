"""The one contract between backbones and everything that uses them.

Every backbone is reduced to a *denoiser*: a callable that predicts the noise in a batch of noisy images. Samplers,
guidance and scores never ask which family of model stands behind it.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from typing import NamedTuple, Protocol

from torch import Tensor

from minority.diffusion.condition import Condition


class Prediction(NamedTuple):
    """What a denoiser says about x_t.

    Attributes:
        eps: (B, C, H, W) predicted noise.
        variance_fraction: (B, C, H, W) where the reverse variance lies between its two bounds, in log space:
            0 is the posterior variance, 1 is beta (Nichol & Dhariwal 2021, "learned range"). None where the
            backbone does not learn its variance.
        x0_hat: (B, C, H, W) estimate of the clean image, from backbones that predict it without dividing by
            sqrt(abar_t), which loses digits at the noisy end. None where it is to be had from eps alone.
        log_variance: (B, C, H, W) logarithm of the reverse variance, from backbones that learn it without bounds
            (Nichol & Dhariwal 2021, "learned"). None for all others.
        renoise: (B, C, H, W) the noise that a deterministic step adds to the clean estimate again, where guidance wants
            another one than eps; None elsewhere.
    """

    eps: Tensor
    variance_fraction: Tensor | None = None
    x0_hat: Tensor | None = None
    log_variance: Tensor | None = None
    renoise: Tensor | None = None


class Denoiser(Protocol):
    """Predicts the noise in x_t."""

    def __call__(self, x_t: Tensor, timestep: Tensor, label: Condition, /) -> Prediction:
        """Predict the noise.

        Args:
            x_t: (B, C, H, W) noisy images.
            timestep: (B,) what the network is told: int64, the *trained* index of the noise level (0 = cleanest), or
                float64, a time, where the backbone's schedule counts in times.
            label: (B,) int64 class labels, or None for an unconditional backbone; of a text-to-image backbone rows of
                its table of prompts, or the prompts' embeddings.
        """
        ...
