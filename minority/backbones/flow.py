"""Rectified flow (Liu et al., ICLR 2023; Esser et al., ICML 2024) behind the denoiser contract: a change of scale.

A flow mixes the clean state and noise by shares, and its network predicts their difference:

    x = (1 - s) x_0 + s eps,   v = eps - x_0,   s in (0, 1]

With c = sqrt((1 - s)^2 + s^2) the same states lie on a chain, at the same ratio of signal to noise:

    x_t = x / c,   abar_t = (1 - s)^2 / c^2,   x0_hat = x - s v,   eps = x + (1 - s) v

Nothing is divided by the signal, so that s = 1, pure noise, is as good a level as any other. What the schedule tells is
s itself, in float64.

Shapes: B samples, C channels, H x W pixels, T levels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from minority.diffusion.condition import Condition
from minority.diffusion.denoiser import Prediction
from minority.diffusion.schedule import Float64, NoiseSchedule

# x (B, C, H, W) on the flow's scale, s (B,) float64, condition -> v (B, C, H, W)
Velocity = Callable[[Tensor, Tensor, Condition], Tensor]


class FlowDenoiser(nn.Module):
    """A velocity v(x, s) on a chain.

    Args:
        velocity: Predicts noise minus clean state.
    """

    def __init__(self, velocity: Velocity) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x_t: Tensor, timestep: Tensor, label: Condition = None) -> Prediction:
        """The noise and the clean estimate, (B, C, H, W) each; the timestep is the share of noise s."""
        share = timestep.double()
        wide = share.view(-1, 1, 1, 1)
        scale = ((1 - wide).square() + wide.square()).sqrt()
        x = x_t * scale.to(x_t)
        v = self.velocity(x, share, label).to(x_t.dtype)
        return Prediction(eps=x + (1 - wide).to(x) * v, x0_hat=x - wide.to(x) * v)


@dataclass(frozen=True, eq=False)
class FlowSchedule(NoiseSchedule):
    """The levels of a flow, which spaces its shorter chains by a law of its own instead of keeping some of its levels.

    Attributes:
        law: The shares of noise of a chain of N steps, (N,) float64, from noise to clean.
    """

    law: Callable[[int], Float64] = field(kw_only=True)

    @classmethod
    def of(cls, shares: Float64, law: Callable[[int], Float64]) -> "FlowSchedule":
        """Build from all trained shares of noise, (T,), from clean to noise, and the law."""
        return cls(abar=abar_of(shares), timesteps=np.asarray(shares, dtype=np.float64), law=law)

    def respaced(self, sections: int | str | Sequence[int]) -> NoiseSchedule:
        """N steps by the flow's own law for a number; anything else keeps some of the trained levels.

        Raises:
            ValueError: Where the request makes no sense; "leadingN", "trailingN" and "late-" number trained timesteps,
                which a flow has not.
        """
        if isinstance(sections, str) and sections.startswith(("leading", "trailing", "lcm", "late-")):
            raise ValueError(f"a flow has no numbered timesteps for {sections!r}; give the number of steps alone.")
        if isinstance(sections, str) and sections.isdecimal():
            sections = int(sections)
        if not isinstance(sections, int):
            return super().respaced(sections)
        if sections < 1:
            raise ValueError(f"cannot keep {sections} steps; keep one at least.")
        shares = np.asarray(self.law(sections), dtype=np.float64)[::-1]
        return NoiseSchedule(abar=abar_of(shares), timesteps=shares.copy(), source=self)


def abar_of(shares: Float64) -> Float64:
    """Share of signal variance at shares of noise, (T,)."""
    s = np.asarray(shares, dtype=np.float64)
    signal = np.square(1 - s)
    return np.asarray(signal / (signal + np.square(s)), dtype=np.float64)


def shifted(shares: Float64, shift: float) -> Float64:
    """Shares of noise moved towards noise, as for large images: shift s / (1 + (shift - 1) s) (Esser et al. 2024)."""
    s = np.asarray(shares, dtype=np.float64)
    return np.asarray(shift * s / (1 + (shift - 1) * s), dtype=np.float64)


def flow_schedule(num_steps: int = 1000, *, shift: float = 1.0) -> FlowSchedule:
    """A flow with evenly spaced levels, moved towards noise by `shift`; chains end at pure noise."""

    def law(count: int) -> Float64:
        return shifted(np.linspace(1, 1 / count, count), shift)

    return FlowSchedule.of(shifted(np.arange(1, num_steps + 1) / num_steps, shift), law)
