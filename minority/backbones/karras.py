"""Denoisers in the parametrisation of Karras et al. (NeurIPS 2022, "EDM") behind the denoiser contract.

They take an image with noise of standard deviation sigma on top and give back the clean one. The chain's states are
the same images, scaled down:

    x_t = sqrt(abar_t) (x_0 + sigma_t eps),   sigma_t = sqrt((1 - abar_t) / abar_t)

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minority.diffusion.denoiser import Prediction
from minority.diffusion.schedule import NoiseSchedule

# x (B, C, H, W), sigma (B,), label -> x_0 (B, C, H, W)
CleanDenoiser = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class KarrasDenoiser(nn.Module):
    """A denoiser D(x, sigma) on a chain.

    Args:
        denoise: D, already preconditioned (see `precondition`).
        schedule: The noise levels; any will do, `karras_schedule` gives the published ones.
    """

    sigma: Tensor

    def __init__(self, denoise: CleanDenoiser, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.denoise = denoise
        abar = torch.from_numpy(schedule.abar)
        self.register_buffer("sigma", ((1 - abar) / abar).sqrt().float(), persistent=False)

    def forward(self, x_t: Tensor, timestep: Tensor, label: Tensor | None = None) -> Prediction:
        """The noise and the clean estimate, (B, C, H, W) each; the latter is what D says."""
        sigma = self.sigma[timestep].to(x_t)
        wide = sigma.view(-1, 1, 1, 1)
        scaled = x_t * (1 + wide.square()).sqrt()  # x_t / sqrt(abar_t)
        x0_hat = self.denoise(scaled, sigma, label)
        return Prediction(eps=(scaled - x0_hat) / wide, x0_hat=x0_hat)


def precondition(network: CleanDenoiser, *, sigma_data: float = 0.5) -> CleanDenoiser:
    """Make D from the raw network F (Karras et al. 2022, table 1, "Ours").

        D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma) / 4)

    Args:
        network: F: scaled images (B, C, H, W), noise condition (B,), label -> (B, C, H, W).
        sigma_data: Standard deviation of the training images.
    """

    def denoise(x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        wide = sigma.view(-1, 1, 1, 1)
        total = wide.square() + sigma_data**2
        output = network(x / total.sqrt(), sigma.log() / 4, label)
        return sigma_data**2 / total * x + wide * sigma_data / total.sqrt() * output

    return denoise


def karras_schedule(
    num_steps: int = 256, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> NoiseSchedule:
    """The published noise levels, evenly spaced in sigma^(1/rho) (Karras et al. 2022, eq. 5).

    Args:
        num_steps: Levels, at least 2.
        sigma_min: The lowest, > 0.
        sigma_max: The highest.
        rho: How much more densely low levels are spaced.
    """
    if not 0 < sigma_min < sigma_max or num_steps < 2:
        raise ValueError(
            f"a schedule needs 0 < sigma_min < sigma_max and two steps, got {sigma_min}, {sigma_max}, {num_steps}."
        )
    steps = torch.linspace(0, 1, num_steps, dtype=torch.float64).numpy()
    sigma = (sigma_min ** (1 / rho) + steps * (sigma_max ** (1 / rho) - sigma_min ** (1 / rho))) ** rho
    return NoiseSchedule(abar=1 / (1 + sigma**2), timesteps=torch.arange(num_steps).numpy())
