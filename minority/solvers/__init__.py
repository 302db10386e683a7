"""How a chain is solved: one file a solver, one contract for all.

A solver sees what the denoiser says about the present state and proposes where to go next: a mean, and how much noise
to add to it. The loop adds the shifts of guidance to that mean, then the noise, so every solver can be guided and none
knows how noise is drawn.

Shapes: B samples, C channels, H x W pixels; images are in [-1, 1].
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from torch import Tensor

from minority._exports import exported_from
from minority.diffusion.chain import Chain, Estimate

if TYPE_CHECKING:
    from minority.solvers.ancestral import Ancestral
    from minority.solvers.ddim import Ddim
    from minority.solvers.dpm_solver import DpmSolver


#: What settings call the solvers.
SolverName = Literal["ancestral", "ddim", "dpm_solver", "renoise"]


class Move(NamedTuple):
    """Where a solver wants to go.

    Attributes:
        mean: (B, C, H, W) the next state before guidance and noise.
        deviation: Standard deviation of the noise to add, broadcastable to the mean; None for none.
        x0: (B, C, H, W) the clean estimate that was used.
    """

    mean: Tensor
    deviation: Tensor | None
    x0: Tensor


@dataclass(frozen=True, eq=False)
class Arrival:
    """What one step leaves behind: for multistep solvers, and for callbacks.

    Attributes:
        step: The step that was left.
        x: (B, C, H, W) the state after it.
        x0: (B, C, H, W) the clean estimate that it used.
        parents: (B,) int64 which chain each one continues, where chains were pruned and branched; None elsewhere.
    """

    step: int
    x: Tensor
    x0: Tensor
    parents: Tensor | None = None


class Solver(Protocol):
    """Takes a chain from noise to an image."""

    @property
    def is_stochastic(self) -> bool:
        """Whether it adds noise on the way, so that two copies of a chain part."""
        ...

    def move(self, chain: Chain, estimate: Estimate, previous: Arrival | None) -> Move:
        """Propose the next state.

        Args:
            chain: The denoiser and its schedule.
            estimate: What the denoiser says about the present state, without gradients.
            previous: What the step before left behind; None at the start of the chain.
        """
        ...


__all__ = ["Ancestral", "Arrival", "Ddim", "DpmSolver", "Move", "Solver", "SolverName"]

__getattr__ = exported_from(__file__)
