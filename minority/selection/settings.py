"""What counts as rare, valid, new and of its label, and what becomes of it: the knobs of the selection."""

from dataclasses import dataclass, field

from minority.neighbours.approximate import Search
from minority.selection.discriminator import DiscriminatorSettings
from minority.selection.policy import Policy


@dataclass(frozen=True, kw_only=True)
class HeldOutRules:
    """Thresholds as quantiles of rare real images that nothing was fitted on.

    Rare real images look less typical than others, so a floor that suits the crowd refuses them. Each of these floors
    loses at most its quantile of them. The scale are the training images, each evaluated without itself: left out of
    its own neighbours, and unseen by the member of the discriminator that evaluates it.

    Attributes:
        realism: Quantile of the realism floor, in [0, 1).
        copy_ratio: Quantile of the floor of nearest over mean distance to the neighbours, in [0, 1). A mirrored
            training image counts as a training image.
        p_real: Quantile of the floor of the discriminator's p(real), in [0, 1).
        label: Quantile of the floor of the discriminator's probability of the label, in [0, 1).
        discriminator: How the discriminator is trained.
    """

    realism: float = 0.01
    copy_ratio: float = 0.01
    p_real: float = 0.03
    label: float = 0.03
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)

    def __post_init__(self) -> None:
        for name in ("realism", "copy_ratio", "p_real", "label"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"HeldOutRules.{name} must lie in [0, 1), got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """What counts as rare, valid, new and of its label.

    Attributes:
        neighbours: k of every nearest-neighbour measure.
        search: How neighbours are looked up: "exact" compares all pairs, "faiss" walks along the links of a graph,
            "auto" does the former up to 50,000 training images.
        rare_quantile: A candidate is rare beyond this quantile of the training images' own mean distance to their k
            nearest neighbours, in [0, 1).
        realism_floor: A candidate is valid from this realism on; 1 is the edge of the k-NN manifold. Without effect
            where `held_out` is given.
        copy_quantile: A candidate is a copy below this quantile of the training images' own distance to their
            nearest neighbour, in [0, 1).
        label_floor: A candidate keeps its label from this label agreement on, in [0, 1]; 0 switches the filter off.
            Without effect where `held_out` is given.
        label_precision: Where groups are recognised by an ensemble: share of its believed answers on the validation
            split that must be right, in (0, 1]; the confidence that reaches it takes the place of `label_floor`.
        held_out: Floors from rare real images and a discriminator, or None for the fixed ones above.
        policy: Which verdicts a candidate must have to be chosen (minority/selection/policy.py); "consistent" needs
            `held_out`.
        diverse: Fill a quota with candidates that differ, instead of in the order they came.
        look_alike: With `diverse`: a candidate nearer to a kept one than this multiple of the training images' median
            distance to their nearest neighbour is a look-alike; >= 0.
    """

    neighbours: int = 5
    search: Search = "auto"
    rare_quantile: float = 0.9
    realism_floor: float = 1.0
    copy_quantile: float = 0.01
    label_floor: float = 0.45
    label_precision: float | None = None
    held_out: HeldOutRules | None = None
    policy: Policy = "rare"
    diverse: bool = False
    look_alike: float = 0.0

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"SelectionSettings.neighbours must be at least 1, got {self.neighbours}.")
        for name in ("rare_quantile", "copy_quantile"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"SelectionSettings.{name} must lie in [0, 1), got {getattr(self, name)}.")
        if not 0 <= self.label_floor <= 1:
            raise ValueError(f"SelectionSettings.label_floor must lie in [0, 1], got {self.label_floor}.")
        if self.label_precision is not None and not 0 < self.label_precision <= 1:
            raise ValueError(f"SelectionSettings.label_precision must lie in (0, 1], got {self.label_precision}.")
        if self.policy == "consistent" and self.held_out is None:
            raise ValueError(
                "SelectionSettings.policy consistent goes by the discriminator's margin of the label; give "
                "held_out too, e.g. held_out: {}."
            )
        if not self.look_alike >= 0:
            raise ValueError(f"SelectionSettings.look_alike must not be negative, got {self.look_alike}.")
