"""The loss: how far the prediction is off, how timesteps are weighed, and how the variance is learnt.

- The "simple" loss is the mean squared error of the noise (Ho et al. 2020, algorithm 1 and eq. 14), or that of the
  velocity v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans & Ho 2022, appendix D).
- Min-SNR-gamma weighs it by min(SNR, gamma) / SNR with SNR = abar / (1 - abar), for predicted velocity by
  min(SNR, gamma) / (SNR + 1) (Hang et al. 2023).
- The hybrid loss adds 0.001 times the variational bound, in which the mean is held fixed, so that it teaches the
  variance alone (Nichol & Dhariwal 2021, section 3.1). The bound is that of minority/diffusion/score.py, in bits/dim,
  estimated at one uniformly drawn timestep an image; the clean estimate in its mean is not clipped, as published.

Shapes: B images, C channels, H x W pixels, T timesteps.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.score import discretised_negative_log_likelihood, normal_kl
from minority.training.settings import TrainingSettings

#: The chain is cut into so many equal parts, cleanest first, whose losses are reported one by one.
BUCKETS = 10
_BOUND_WEIGHT = 0.001


class Noisy(NamedTuple):
    """A noised batch.

    Attributes:
        x_0: (B, C, H, W) the clean images.
        x_t: (B, C, H, W).
        step: (B,) positions on the schedule.
        timestep: (B,) what the network is told.
        eps: (B, C, H, W) the noise that is in x_t.
    """

    x_0: Tensor
    x_t: Tensor
    step: Tensor
    timestep: Tensor
    eps: Tensor

    def part(self, where: slice, device: torch.device) -> "Noisy":
        """Some of the images, on a device."""
        return Noisy(*(value[where].to(device) for value in self))


class Noiser:
    """Noises batches to uniformly drawn steps."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.abar = torch.from_numpy(schedule.abar).float()
        self.timesteps = torch.from_numpy(schedule.timesteps)

    def add(self, x_0: Tensor, generator: torch.Generator) -> Noisy:
        """Draw noise and steps for a batch (B, C, H, W)."""
        eps = torch.randn(x_0.shape, generator=generator)
        step = torch.randint(len(self.abar), (len(x_0),), generator=generator)
        abar = self.abar[step][:, None, None, None]
        x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
        return Noisy(x_0, x_t, step, self.timesteps[step], eps)


class DenoisingLoss:
    """The loss of a batch, from what the network says about it.

    Args:
        schedule: The full chain that is trained on.
        settings: Prediction, weighting and variance.
        device: Where batches are.
    """

    def __init__(self, schedule: NoiseSchedule, settings: TrainingSettings, device: torch.device) -> None:
        self.num_steps = schedule.num_steps
        self.learns_variance = settings.variance == "learned_range"
        self.predicts_velocity = settings.prediction == "v_prediction"
        abar = torch.from_numpy(schedule.abar)
        self._signal, self._noise = (
            x.float().to(device)[:, None, None, None] for x in (abar.sqrt(), (1 - abar).sqrt())
        )
        self.weight = None
        if settings.min_snr_gamma is not None:
            snr = abar / (1 - abar)
            whole = snr + 1 if self.predicts_velocity else snr
            self.weight = (snr.clamp(max=settings.min_snr_gamma) / whole).float().to(device)
        self.bound = VarianceBound(schedule, device) if self.learns_variance else None

    def __call__(self, output: Tensor, noisy: Noisy) -> tuple[Tensor, Tensor]:
        """The loss, a scalar, and the squared error of what is predicted for each image (B,), detached.

        Args:
            output: (B, C, H, W) predicted noise or velocity; (B, 2C, H, W) with the variance behind it where that is
                learnt.
            noisy: The batch.
        """
        output = output.float()
        predicted, variance = output.chunk(2, dim=1) if self.learns_variance else (output, None)
        square = (predicted - self._target(noisy)).square()
        error = square.detach().flatten(1).mean(dim=1)
        if self.weight is None:
            loss = square.mean()
        else:
            loss = (self.weight[noisy.step] * square.flatten(1).mean(dim=1)).mean()
        if self.bound is not None and variance is not None:
            terms = self.bound(self._noise_of(predicted.detach(), noisy), variance, noisy)
            loss = loss + _BOUND_WEIGHT * self.num_steps * terms.mean()
        return loss, error

    def _target(self, noisy: Noisy) -> Tensor:
        if not self.predicts_velocity:
            return noisy.eps
        return self._signal[noisy.step] * noisy.eps - self._noise[noisy.step] * noisy.x_0

    def _noise_of(self, predicted: Tensor, noisy: Noisy) -> Tensor:
        if not self.predicts_velocity:
            return predicted
        return self._signal[noisy.step] * predicted + self._noise[noisy.step] * noisy.x_t


class VarianceBound:
    """Terms of the variational bound at steps of a batch's own.

    Args:
        schedule: The full chain.
        device: Where batches are.
    """

    def __init__(self, schedule: NoiseSchedule, device: torch.device) -> None:
        def table(values: object) -> Tensor:
            return torch.as_tensor(values, dtype=torch.float64).float().to(device)[:, None, None, None]

        abar = torch.from_numpy(schedule.abar)
        self._to_x0 = table(abar.rsqrt()), table((1 / abar - 1).sqrt())
        self._mean = table(schedule.posterior_mean_x0_weight), table(schedule.posterior_mean_xt_weight)
        self._low = table(schedule.posterior_log_variance)
        self._high = table(torch.from_numpy(schedule.beta).log())

    def __call__(self, eps_hat: Tensor, variance: Tensor, noisy: Noisy) -> Tensor:
        """The term of each image in bits/dim, (B,).

        Args:
            eps_hat: (B, C, H, W) predicted noise.
            variance: (B, C, H, W) where the log variance lies: -1 at its lower bound, 1 at its upper.
            noisy: The batch.
        """
        step = noisy.step
        x0_hat = self._to_x0[0][step] * noisy.x_t - self._to_x0[1][step] * eps_hat
        share = (variance + 1) / 2
        log_variance = share * self._high[step] + (1 - share) * self._low[step]
        mean, true_mean = self._posterior(x0_hat, noisy), self._posterior(noisy.x_0, noisy)
        kl = normal_kl(true_mean, self._low[step], mean, log_variance)
        decoder = discretised_negative_log_likelihood(noisy.x_0, mean, 0.5 * log_variance)
        terms = torch.where((step == 0)[:, None, None, None], decoder, kl)
        return terms.flatten(1).mean(dim=1) / math.log(2)

    def _posterior(self, x_0: Tensor, noisy: Noisy) -> Tensor:
        return self._mean[0][noisy.step] * x_0 + self._mean[1][noisy.step] * noisy.x_t


class LossWindow:
    """The losses since the last report, whole and by bucket of timesteps.

    Args:
        num_steps: T.
        device: Where losses are.
    """

    def __init__(self, num_steps: int, device: torch.device) -> None:
        self.num_steps = num_steps
        self.losses: list[Tensor] = []
        self.sums = torch.zeros((2, BUCKETS), dtype=torch.float64, device=device)  # of errors, of images

    def add(self, loss: Tensor, error: Tensor, step: Tensor) -> None:
        """Take in a step's loss, and the errors (B,) of its images at their steps (B,)."""
        self.losses.append(loss)
        bucket = step * BUCKETS // self.num_steps
        self.sums[0].index_add_(0, bucket, error.double())
        self.sums[1].index_add_(0, bucket, torch.ones_like(error, dtype=torch.float64))

    def state(self) -> dict[str, Tensor]:
        """What a resumed run must know to report the same."""
        losses = torch.stack(self.losses).cpu() if self.losses else torch.zeros(0)
        return {"losses": losses, "sums": self.sums.cpu()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a state."""
        self.losses = [loss.to(self.sums.device) for loss in state["losses"].unbind()]
        self.sums.copy_(state["sums"])

    def means(self) -> Tensor:
        """(1 + BUCKETS,) float64: mean loss, and mean error by bucket, NaN where no image fell. Forgets them."""
        loss = torch.stack(self.losses).mean().double()
        means = torch.cat([loss[None], self.sums[0] / self.sums[1]])
        self.losses.clear()
        self.sums.zero_()
        return means
