"""DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2): second order, multistep, 10 to 25 steps.

It wants steps evenly spaced in log-SNR (`NoiseSchedule.respaced("logsnr20")`): on steps evenly spaced in time the
last ones grow so fast in l that extrapolating over them gains nothing on DDIM.

With signal a = sqrt(abar), noise s = sqrt(1 - abar) and half log-SNR l = log(a / s), the ODE of the chain is solved
exactly for a clean estimate D that is constant in l; D is extrapolated from the last two estimates.

    x_next = (s_next / s) x_t - a_next (exp(-h) - 1) D,   h = l_next - l
         D = x0_hat + (x0_hat - x0_before) h / (2 h_before)
"""

import math
from dataclasses import dataclass

from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.schedule import NoiseSchedule
from minority.solvers import Arrival, Move


@dataclass(frozen=True, kw_only=True)
class DpmSolver:
    """Deterministic; one network call a step, like the others.

    The first and the last step are of first order: the first has no predecessor, and the last one goes to no noise at
    all, where l is infinite and the solution is the clean estimate itself.

    Attributes:
        clip_x0: Clip the clean estimate to where clean states lie (images: [-1, 1]).
    """

    clip_x0: bool = True

    @property
    def is_stochastic(self) -> bool:
        """False: it solves an ordinary differential equation."""
        return False

    def move(self, chain: Chain, estimate: Estimate, previous: Arrival | None) -> Move:
        """Solve from this step's noise level to the next cleaner one (algorithm 2; its first step is DDIM's).

        Args:
            chain: The denoiser and its schedule.
            estimate: What the denoiser says about the present state, (B, C, H, W).
            previous: The step before, from which the clean estimate is extrapolated; None at the start.
        """
        schedule, step = chain.schedule, estimate.step
        x0 = chain.space.clipped(estimate.x0_hat) if self.clip_x0 else estimate.x0_hat
        if step == 0:
            return Move(mean=x0, deviation=None, x0=x0)
        h = _half_log_snr(schedule, step - 1) - _half_log_snr(schedule, step)
        data = x0
        if previous is not None:
            h_before = _half_log_snr(schedule, step) - _half_log_snr(schedule, previous.step)
            data = x0 + (h / (2 * h_before)) * (x0 - previous.x0)
        next_abar = float(schedule.abar[step - 1])
        kept = math.sqrt((1 - next_abar) / (1 - float(schedule.abar[step])))
        mean = kept * estimate.x_t - math.sqrt(next_abar) * math.expm1(-h) * data
        return Move(mean=mean, deviation=None, x0=x0)


def _half_log_snr(schedule: NoiseSchedule, step: int) -> float:
    abar = float(schedule.abar[step])
    if abar == 0:
        return -math.inf
    return 0.5 * (math.log(abar) - math.log1p(-abar))
