"""Noise schedules and their respacing.

A schedule fixes abar_t, the share of signal variance left in x_t:

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,   eps ~ N(0, I)

A *respaced* schedule keeps a subsequence of the trained timesteps. Samplers take its *steps* 0 ... num_steps - 1
(0 = cleanest); only this module converts a step into the *timestep* that the network was trained with.

All arithmetic is float64 on the CPU; `at` hands out float32 scalars that broadcast over (B, C, H, W).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float64 = NDArray[np.float64]
_LCM_STEPS = 50  # of the chain that latent consistency models are distilled from


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise levels of a chain.

    Attributes:
        abar: (T,) float64 share of signal variance at each step, strictly decreasing, inside (0, 1).
        timesteps: (T,) what the network is told at each step: int64 numbers of trained levels, or float64 times of a
            process in continuous time.
        steps_offset: Added to every timestep of "leadingN", as the pretrained model's scheduler has it.
        source: The schedule that this one was respaced from; None of a schedule that was not.
    """

    abar: Float64
    timesteps: NDArray[np.int64] | Float64
    steps_offset: int = 0
    source: "NoiseSchedule | None" = None

    def __post_init__(self) -> None:
        if self.abar.ndim != 1 or self.abar.shape != self.timesteps.shape or len(self.abar) == 0:
            raise ValueError(
                f"a schedule needs one abar and one timestep for every step, got {self.abar.shape} and "
                f"{self.timesteps.shape}."
            )
        if not (np.all(np.diff(self.abar, prepend=1.0) < 0) and self.abar[-1] >= 0):
            raise ValueError("abar must fall strictly from below 1 towards 0.")

    @classmethod
    def from_betas(cls, betas: Float64) -> "NoiseSchedule":
        """Build from the forward variances beta_t, (T,) in (0, 1)."""
        return cls(abar=np.asarray(np.cumprod(1.0 - betas), dtype=np.float64), timesteps=np.arange(len(betas)))

    @classmethod
    def linear(cls, num_steps: int = 1000) -> "NoiseSchedule":
        """Betas grow linearly from 1e-4 to 0.02 per thousand steps (Ho et al. 2020, section 4)."""
        scale = 1000 / num_steps
        return cls.from_betas(np.linspace(scale * 1e-4, scale * 0.02, num_steps, dtype=np.float64))

    @classmethod
    def cosine(cls, num_steps: int = 1000) -> "NoiseSchedule":
        """Squared-cosine abar with betas capped at 0.999 (Nichol & Dhariwal 2021, section 3.2)."""

        def abar(time: float) -> float:
            return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = [min(1 - abar((i + 1) / num_steps) / abar(i / num_steps), 0.999) for i in range(num_steps)]
        return cls.from_betas(np.array(betas, dtype=np.float64))

    @property
    def num_steps(self) -> int:
        """Length of the chain."""
        return len(self.abar)

    @property
    def trained(self) -> "NoiseSchedule":
        """All levels that the network was trained on: those that this chain's were taken from."""
        return self if self.source is None else self.source.trained

    def shifted_one_level(self) -> "NoiseSchedule":
        """The same levels, each told to the network as the next noisier one.

        So the published loops of MinorityPrompt take the steps of Stable Diffusion's chain (Um & Ye, CVPR 2025): the
        level is that of timestep t - 1 while the network is told t.
        """
        return replace(self, timesteps=self.timesteps + 1, source=self)

    def respaced(self, sections: int | str | Sequence[int]) -> "NoiseSchedule":
        """Keep a subsequence of the steps.

        Args:
            sections: How many steps to keep, evenly spaced from the first to the last; or several counts (also as
                a string, "10,15"), one for each of as many equal parts of the chain; or "ddimN" for N steps of one
                fixed whole stride (Song et al. 2021); or "logsnrN" for N steps evenly spaced in log(abar / (1 - abar))
                (Lu et al. 2022), which fast solvers want. Fractions of the chain then mean other noise levels; or
                "leadingN" and "trailingN" for the timesteps that diffusers' schedulers take by those names, the first
                with the scheduler's offset; "lcmN" for N of the 50 that latent consistency models are distilled to (Luo
                et al. 2023); "late-" before them tells the network the next noisier level (`shifted_one_level`).

        Raises:
            ValueError: Where the chain is too short for the request.

        Example:
            >>> short = NoiseSchedule.cosine(1000).respaced(4)
            >>> len(short.abar)
            4
            >>> short.timesteps.tolist()
            [0, 333, 666, 999]
        """
        if isinstance(sections, str) and sections.startswith("late-"):
            return self.shifted_one_level().respaced(sections.removeprefix("late-"))
        if isinstance(sections, str) and sections.startswith(("leading", "trailing", "lcm")):
            kept = self._of_timesteps(_named_timesteps(sections, self.trained.num_steps, offset=self.steps_offset))
        elif isinstance(sections, str) and sections.startswith("logsnr"):
            kept = _even_log_snr(self.abar, _count(sections, "logsnr"))
        else:
            kept = _spaced_steps(self.num_steps, sections)
        return replace(self, abar=self.abar[kept], timesteps=self.timesteps[kept], source=self)

    def truncated(self, num_steps: int) -> "NoiseSchedule":
        """Keep the cleanest `num_steps` steps."""
        if not 1 <= num_steps <= self.num_steps:
            raise ValueError(f"cannot keep {num_steps} of {self.num_steps} steps.")
        return replace(self, abar=self.abar[:num_steps], timesteps=self.timesteps[:num_steps], source=self)

    def _of_timesteps(self, timesteps: list[int]) -> list[int]:
        """The steps at which the network is told these timesteps."""
        position = {int(timestep): step for step, timestep in enumerate(self.timesteps)}
        if not set(timesteps) <= set(position) or len(set(timesteps)) < len(timesteps):
            raise ValueError(f"cannot keep {len(timesteps)} of {self.num_steps} steps at timesteps {timesteps}.")
        return [position[timestep] for timestep in timesteps]

    def step_at(self, fraction: float) -> int:
        """The step at a fraction of the chain, 0 = cleanest: int(T * fraction), as published.

        Raises:
            ValueError: Where the fraction lies outside [0, 1).
        """
        if not 0 <= fraction < 1:
            raise ValueError(f"a fraction of the chain must lie in [0, 1), got {fraction}.")
        return int(self.num_steps * fraction)

    # The quantities of the forward and the reverse process, each (T,) float64.

    @cached_property
    def abar_previous(self) -> Float64:
        """Abar of the next cleaner step; 1 at step 0."""
        return np.concatenate([[1.0], self.abar[:-1]])

    @cached_property
    def beta(self) -> Float64:
        """Variance added between a step and the next cleaner one."""
        return 1.0 - self.abar / self.abar_previous

    @cached_property
    def posterior_variance(self) -> Float64:
        """Variance of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7); 0 at step 0."""
        return self.beta * (1.0 - self.abar_previous) / (1.0 - self.abar)

    @cached_property
    def posterior_log_variance(self) -> Float64:
        """Its logarithm, where step 0 borrows the value of step 1 instead of log 0."""
        if self.num_steps == 1:
            return np.log(self.beta)
        return np.log(np.concatenate([self.posterior_variance[1:2], self.posterior_variance[1:]]))

    @cached_property
    def posterior_mean_x0_weight(self) -> Float64:
        """Weight of x_0 in the mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7)."""
        return self.beta * np.sqrt(self.abar_previous) / (1.0 - self.abar)

    @cached_property
    def posterior_mean_xt_weight(self) -> Float64:
        """Weight of x_t in the mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 7)."""
        return (1.0 - self.abar_previous) * np.sqrt(self.abar / self.abar_previous) / (1.0 - self.abar)

    def noised(self, x_0: Tensor, step: int, eps: Tensor) -> Tensor:
        """Draw x_t ~ q(x_t | x_0) with the given noise.

        Args:
            x_0: (B, C, H, W) clean images.
            step: Position on this chain.
            eps: (B, C, H, W) standard normal noise.

        Returns:
            (B, C, H, W) x_t.
        """
        return math.sqrt(self.abar[step]) * x_0 + math.sqrt(1.0 - self.abar[step]) * eps

    def x0_from_eps(self, x_t: Tensor, step: int, eps: Tensor) -> Tensor:
        """Tweedie's estimate of the clean image from predicted noise, (B, C, H, W)."""
        abar = self.abar[step]
        return math.sqrt(1.0 / abar) * x_t - math.sqrt(1.0 / abar - 1.0) * eps

    def eps_from_x0(self, x_t: Tensor, step: int, x0: Tensor) -> Tensor:
        """The noise that leads from x0 to x_t, (B, C, H, W); x_t itself where no signal is left."""
        abar = self.abar[step]
        if abar == 0:
            return x_t
        return (math.sqrt(1.0 / abar) * x_t - x0) / math.sqrt(1.0 / abar - 1.0)

    def timestep(self, step: int, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """(B,) int64 or float64: what the network is told at a step, once for every sample."""
        timestep = self.timesteps[step]
        dtype = torch.float64 if np.issubdtype(self.timesteps.dtype, np.floating) else torch.int64
        return torch.full((batch,), timestep.item(), dtype=dtype, device=device)


def _count(text: str, prefix: str) -> int:
    digits = text.removeprefix(prefix).strip()
    if not digits.isdecimal():
        raise ValueError(
            f'steps must be a number, "10,15", "ddim25", "logsnr20", "leading50" or "trailing4", got {text!r}.'
        )
    return int(digits)


def _named_timesteps(name: str, num_trained: int, *, offset: int) -> list[int]:
    """Timesteps as diffusers' schedulers space them, from clean to noisy."""
    if name.startswith("leading"):
        count = _count(name, "leading")
        stride = num_trained // max(1, count)
        timesteps = [i * stride + offset for i in range(count)]
    elif name.startswith("lcm"):
        count, distilled = _count(name, "lcm"), np.arange(1, _LCM_STEPS + 1) * (num_trained // _LCM_STEPS) - 1
        taken = np.floor(np.linspace(0, _LCM_STEPS, count, endpoint=False)).astype(np.int64)
        if count > _LCM_STEPS:
            raise ValueError(f"cannot keep {count} of the {_LCM_STEPS} steps that such models are distilled to.")
        timesteps = distilled[::-1][taken][::-1].tolist()
    else:
        count = _count(name, "trailing")
        stride_up = num_trained / max(1, count)
        timesteps = [int(level) - 1 for level in np.arange(num_trained, 0, -stride_up).round()[:count][::-1]]
    if not 1 <= count <= num_trained:
        raise ValueError(f"cannot keep {count} of {num_trained} steps.")
    return timesteps


def _even_log_snr(abar: Float64, count: int) -> list[int]:
    if not 2 <= count <= len(abar):
        raise ValueError(f"cannot keep {count} of {len(abar)} steps evenly in log-SNR; keep 2 ... {len(abar)}.")
    with np.errstate(divide="ignore"):  # minus infinity where no signal is left
        half_log_snr = 0.5 * (np.log(abar) - np.log1p(-abar))
    # Below -5.1 there is nothing but noise; the last step goes there alone.
    wanted = np.linspace(half_log_snr[0], max(float(half_log_snr[-1]), -5.1), count)
    kept = [int(np.abs(half_log_snr - value).argmin()) for value in wanted]
    for i in range(1, count):  # the cleanest steps may coincide: spread them, upwards and back from the end
        kept[i] = max(kept[i], kept[i - 1] + 1)
    kept[-1] = len(abar) - 1
    for i in range(count - 2, -1, -1):
        kept[i] = min(kept[i], kept[i + 1] - 1)
    return kept


def _spaced_steps(num_steps: int, sections: int | str | Sequence[int]) -> list[int]:
    if isinstance(sections, str) and sections.startswith("ddim"):
        return _whole_stride(num_steps, _count(sections, "ddim"))
    if isinstance(sections, str):
        sections = [_count(part, "") for part in sections.split(",")]
    counts = [sections] if isinstance(sections, int) else list(sections)
    size, extra = divmod(num_steps, len(counts))
    kept: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        length = size + (1 if i < extra else 0)
        if not 1 <= count <= length:
            raise ValueError(f"cannot keep {count} of the {length} steps in part {i + 1} of the chain.")
        stride = 1.0 if count == 1 else (length - 1) / (count - 1)
        # The position is added up, not multiplied: the published respacing rounds this very sum.
        position = 0.0
        for _ in range(count):
            kept.append(start + round(position))
            position += stride
        start += length
    return kept


def _whole_stride(num_steps: int, count: int) -> list[int]:
    for stride in range(1, num_steps):
        steps = list(range(0, num_steps, stride))
        if len(steps) == count:
            return steps
    raise ValueError(f"no whole stride keeps exactly {count} of {num_steps} steps.")
