"""What turns a chain towards rare images: one file a method, one contract for all.

A guidance method may do any of seven things, and by default does none: choose where the chain starts, change what the
network is told before a step, change what the denoiser says, change the noise that is drawn, shift the state that a
step arrives at, replace it, and let some chains die while others branch. The sampler knows no method by name; a new
method is a new file here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from minority._exports import exported_from
from minority.backbones import Backbone
from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.denoiser import Denoiser
from minority.diffusion.noise import NoiseSource
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.materials import Materials
from minority.solvers import Solver

if TYPE_CHECKING:
    from minority.guidance.boost_and_skip import BoostAndSkip
    from minority.guidance.cads import Cads
    from minority.guidance.cfg_plus_plus import CfgPlusPlus
    from minority.guidance.classifier_free import ClassifierFree
    from minority.guidance.jepa_guidance import JepaGuidanceSettings
    from minority.guidance.low_density import LowDensitySettings
    from minority.guidance.method import Method, TrainedMethod
    from minority.guidance.minority_guidance import MinorityGuidanceSettings
    from minority.guidance.minority_prompt import MinorityPrompt
    from minority.guidance.prune_and_branch import PruneAndBranch
    from minority.guidance.registry import METHODS
    from minority.guidance.self_guidance import SelfGuidance
    from minority.guidance.shaped_noise import ShapedNoise


class Guidance:
    """Leaves the chain as it is. Methods override what they need."""

    def ready(self, backbone: Backbone, materials: Materials) -> "Guidance":
        """What guides the chain: these settings themselves, or together with what they need beside themselves.

        Args:
            backbone: The backbone that is guided.
            materials: Real images and trained parts, where there are any.

        Raises:
            ValueError: Something that the method cannot do without is not there.
        """
        return self

    @property
    def needs_gradient(self) -> bool:
        """Whether `shift` differentiates the denoiser: its estimate then carries gradients back to x_t."""
        return False

    @property
    def particle_group(self) -> int:
        """Consecutive chains of a batch that belong together, because `resample` lets them replace one another."""
        return 1

    def conflict(self, others: Sequence["Guidance"], solver: Solver) -> str | None:
        """Why this method cannot be combined with the other methods or the solver; None where it can."""
        return None

    def start(self, schedule: NoiseSchedule, noise: NoiseSource) -> tuple[Tensor, int] | None:
        """Choose the start of the chain.

        Returns:
            The first state (B, C, H, W) and its step; None to leave the start alone.
        """
        return None

    def condition(self, x_t: Tensor, step: int, chain: Chain, noise: NoiseSource) -> None:
        """Act before the estimate of a step: may replace `chain.condition`, what the network is told.

        Args:
            x_t: (B, C, H, W) the state, without gradients.
            step: Its position on the chain.
            chain: The denoiser and its schedule; `chain.given` is the condition as it was at the start.
            noise: The batch's noise.
        """

    def wrap_denoiser(self, denoiser: Denoiser) -> Denoiser:
        """Change what the denoiser says, everywhere in the chain."""
        return denoiser

    def wrap_chain(self, chain: Chain) -> Denoiser:
        """The same for methods that must know the chain, as where they act on some of its steps alone.

        Args:
            chain: `chain.predict` is the denoiser; its schedule tells the steps.
        """
        return self.wrap_denoiser(chain.predict)

    def wrap_noise(self, noise: NoiseSource) -> NoiseSource:
        """Change the noise that is drawn, everywhere in the chain."""
        return noise

    def acts_at(self, step: int, num_steps: int) -> bool:
        """Whether `shift` is wanted at this step of a chain of `num_steps`."""
        return False

    def shift(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor:
        """How far to move the state that this step arrives at, (B, C, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} acts at a step but does not say how it shifts it.")

    def constrain(self, x: Tensor, step: int, schedule: NoiseSchedule, noise: NoiseSource) -> Tensor:
        """Replace the state that a step arrived at, after all shifts and noise.

        Args:
            x: (B, C, H, W) the state, of step - 1; after step 0 the clean one.
            step: The step that was left.
            schedule: The chain.
            noise: The batch's noise.

        Returns:
            (B, C, H, W); by default the same.
        """
        return x

    def resample(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor | None:
        """Let chains replace one another.

        Returns:
            (B,) int64 which chain each one continues from here, within its particle group; None to leave all as they
            are.
        """
        return None


def combination_problem(guidance: Sequence[Guidance], solver: Solver) -> str | None:
    """Which methods cannot work together or with the solver, and why; None where all can.

    Args:
        guidance: The methods, in any order.
        solver: What takes the chain from step to step.
    """
    for i, method in enumerate(guidance):
        others = [*guidance[:i], *guidance[i + 1 :]]
        reason = method.conflict(others, solver)
        if reason is not None:
            return f"{type(method).__name__} cannot be used here: {reason}"
    if sum(method.particle_group > 1 for method in guidance) > 1:
        return "two guidance methods want to prune and branch the chains; leave one of them out."
    return None


def check_combination(guidance: Sequence[Guidance], solver: Solver) -> None:
    """Refuse methods that cannot work together.

    Args:
        guidance: The methods, in any order.
        solver: What takes the chain from step to step.

    Raises:
        ValueError: Naming the methods and why.
    """
    problem = combination_problem(guidance, solver)
    if problem is not None:
        raise ValueError(problem)


def particle_group_of(guidance: Sequence[Guidance]) -> int:
    """Consecutive chains that have to be drawn together, with one label: 1 where none replaces another."""
    return max((method.particle_group for method in guidance), default=1)


__all__ = [
    "METHODS",
    "BoostAndSkip",
    "Cads",
    "CfgPlusPlus",
    "ClassifierFree",
    "Guidance",
    "JepaGuidanceSettings",
    "LowDensitySettings",
    "Method",
    "MinorityGuidanceSettings",
    "MinorityPrompt",
    "PruneAndBranch",
    "SelfGuidance",
    "ShapedNoise",
    "TrainedMethod",
    "check_combination",
    "combination_problem",
    "particle_group_of",
]

__getattr__ = exported_from(__file__)
