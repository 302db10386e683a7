"""Prune and branch: at a few points of the chain the hopeless ones die and the promising ones continue in their place.

Particle steering in the manner of sequential Monte Carlo, without gradients. Chains compete within their *particle
group* only: `particle_group` consecutive sample indices, all with one label. At each point the best ones of a particle
group are kept, and every place left empty continues as a branch of one of them, with the noise of its own place from
there on. So a sample is a function of its particle group's indices, label and settings, whatever else is in the batch,
and the batch stays full.

Shapes: B samples, F = B / particle_group particle groups, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.chain import Chain, Estimate
from minority.diffusion.minority_metric import renoise_and_denoise, squared_error
from minority.diffusion.noise import NoiseSource
from minority.guidance import Guidance
from minority.guidance.materials import Materials
from minority.guidance.method import Method, Stage
from minority.solvers import Solver


@dataclass(frozen=True, kw_only=True)
class PruneAndBranch(Method):
    """Weighs every chain by its clean estimate.

    Attributes:
        weight_by: By the "metric" (the minority metric), or by "features": where the estimate lies among the real
            images (minority/guidance/prune_by_features.py), which costs no network calls and tells real from unreal,
            but needs the real images at hand.
        particle_group: Chains that compete, at least 2.
        keep: How many of a particle group survive each point, 1 ... particle_group - 1.
        points: When to weigh, as fractions of the way from noise to image, in (0, 1).
        perturbation: Perturbation step of the metric as a fraction of the chain, in [0, 1).
        draws: Noises that the metric is averaged over; each costs one network call a point. Both are without effect
            on "features".
        max_copies: How many chains may continue one parent, the parent included; at least 2. What exceeds it goes
            on as it was, in the order of their weights.
    """

    key: ClassVar[str] = "prune_and_branch"
    paper: ClassVar[str] = "this project's; particles as in sequential Monte Carlo"
    line: ClassVar[str] = "lets chains of large weight continue in the place of those of small weight of the same label"
    stage: ClassVar[Stage] = "chains"
    grids = ({"weight_by": ("features",), "points": ((0.5,), (0.5, 0.7))},)
    shown_when_absent: ClassVar[bool] = True

    weight_by: Literal["metric", "features"] = "metric"
    particle_group: int = 4
    keep: int = 2
    points: tuple[float, ...] = (0.5,)
    perturbation: float = 0.5
    draws: int = 2
    max_copies: int = 2

    def __post_init__(self) -> None:
        if self.particle_group < 2:
            raise ValueError(f"PruneAndBranch.particle_group must be at least 2 chains, got {self.particle_group}.")
        if not 1 <= self.keep < self.particle_group:
            raise ValueError(
                f"PruneAndBranch.keep must lie in 1 ... {self.particle_group - 1}, particle_group being "
                f"{self.particle_group}, got {self.keep}."
            )
        if not self.points or not all(0 < point < 1 for point in self.points):
            raise ValueError(f"PruneAndBranch.points must be fractions of the way in (0, 1), got {self.points}.")
        if not 0 <= self.perturbation < 1:
            raise ValueError(f"PruneAndBranch.perturbation must lie in [0, 1), got {self.perturbation}.")
        if self.draws < 1 or self.max_copies < 2:
            raise ValueError(
                "PruneAndBranch.draws must be at least 1 and .max_copies at least 2, got "
                f"{self.draws} and {self.max_copies}."
            )

    @classmethod
    def samplers(cls) -> Mapping[str, Self]:
        """By the metric, and by features."""
        return {
            "prune-and-branch": cls(points=(0.5, 0.7), perturbation=0.3, draws=4),
            "prune-by-features": cls(weight_by="features", points=(0.5, 0.7)),
        }

    def describe(self) -> str:
        """What chains are weighed by, and the points."""
        return f"prune by {self.weight_by} at {' '.join(f'{point:g}' for point in self.points)}"

    @property
    def needs_real_images(self) -> bool:
        """Where chains are weighed by features."""
        return self.weight_by == "features"

    def ready(self, backbone: Backbone, materials: Materials) -> Guidance:
        """The same settings, with the real images at hand where chains are weighed by features."""
        if self.weight_by != "features" or materials.reference is None:
            return self
        from minority.guidance.prune_by_features import PruneByFeatures  # which builds on this file

        return PruneByFeatures.bind(self, materials.reference, extract=materials.extract)

    def extra_evaluations(self, step: int, num_steps: int) -> float:
        """One prediction a draw at each point, where chains are weighed by the metric."""
        weighed = self.weight_by == "metric" and step > 0 and step in self.pruning_steps(num_steps)
        return float(self.draws) if weighed else 0.0

    def conflict(self, others: Sequence[Guidance], solver: Solver) -> str | None:
        """Branches part by the noise of later steps only."""
        if not solver.is_stochastic:
            return (
                f"{type(solver).__name__} adds no noise on the way, so branches would stay copies; take Ancestral, or "
                "Ddim with eta > 0."
            )
        return None

    def pruning_steps(self, num_steps: int) -> list[int]:
        """The steps of a chain of `num_steps` at which chains are weighed."""
        return [round((1 - point) * (num_steps - 1)) for point in self.points]

    def resample(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor | None:
        """Which chain each one continues, (B,) int64; None between the points.

        Raises:
            ValueError: Where the batch does not hold whole particle groups of one label.
        """
        if estimate.step not in self.pruning_steps(chain.schedule.num_steps) or estimate.step == 0:
            return None
        self._check_particle_groups(len(estimate.x_t), chain.label)
        weights = self.particle_weights(estimate, chain, noise)
        return choose_parents(weights, particle_group=self.particle_group, keep=self.keep, max_copies=self.max_copies)

    def particle_weights(self, estimate: Estimate, chain: Chain, noise: NoiseSource) -> Tensor:
        """How likely each chain is to end in a wanted image, (B,), any monotone scale; override to weigh otherwise."""
        if self.weight_by == "features":
            raise ValueError('to weigh chains by "features", give the real reference: draw(..., reference=...).')
        s = chain.schedule.step_at(self.perturbation)
        x0 = chain.space.clipped(estimate.x0_hat)
        distances = [
            squared_error(x0, renoise_and_denoise(chain, x0, s, noise.particle_weight(estimate.step, draw), clip=True))
            for draw in range(self.draws)
        ]
        return torch.stack(distances).mean(dim=0)

    def _check_particle_groups(self, batch: int, label: Tensor | None) -> None:
        if batch % self.particle_group:
            raise ValueError(
                f"a batch of {batch} does not hold whole particle groups of {self.particle_group} chains; make "
                "its size a multiple."
            )
        if label is not None:
            particle_groups = label.view(-1, self.particle_group)
            if not bool((particle_groups == particle_groups[:, :1]).all()):
                raise ValueError(
                    f"the {self.particle_group} chains of a particle group must have one label; order labels in runs."
                )


def choose_parents(weights: Tensor, *, particle_group: int, keep: int, max_copies: int) -> Tensor:
    """Hand each place of a particle group to one of its survivors.

    The best `keep` stay in their own places; the empty places go to them in turn, the best first, until each has
    `max_copies` places; what is still empty stays as it was. Ties fall to the lower index.

    Args:
        weights: (B,) larger = better; not a number counts as worst.
        particle_group: Consecutive chains that compete.
        keep: Survivors a particle group.
        max_copies: Places a survivor may have, its own included.

    Returns:
        (B,) int64 indices into the batch.
    """
    worst = torch.nan_to_num(weights.float(), nan=-torch.inf)
    order = worst.view(-1, particle_group).argsort(dim=1, descending=True, stable=True).cpu()  # (F, particle_group)
    parents = torch.arange(len(weights)).view(-1, particle_group).clone()
    for f, ranking in enumerate(order.tolist()):
        survivors, empty = ranking[:keep], ranking[keep:]
        # The best of the pruned keep their lives where branches run out, so the worst places are filled first.
        seats = [survivor for _ in range(max_copies - 1) for survivor in survivors]
        for slot, survivor in zip(reversed(empty), seats, strict=False):
            parents[f, slot] = f * particle_group + survivor
    return parents.view(-1).to(weights.device)
