"""How samples are drawn, as one order form: every knob is declared beside the code that obeys it."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from minority.backbones.backbone import Precision
from minority.diffusion.chain import Variance
from minority.engine.prepare import EngineSettings
from minority.guidance import Guidance, check_combination, family_of
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.cads import Cads
from minority.guidance.cfg_plus_plus import CfgPlusPlus
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.minority_prompt import MinorityPrompt
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.guidance.shaped_noise import ShapedNoise
from minority.solvers import Solver
from minority.solvers.ancestral import Ancestral
from minority.solvers.ddim import Ddim
from minority.solvers.dpm_solver import DpmSolver

#: Methods that settings name only where they are used, so that they change no recipe that does without them.
_SHOWN_IN_USE = ("minority_prompt", "cads", "cfg_plus_plus")


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How samples are drawn.

    Attributes:
        steps: Steps of the respaced chain: a number, or sections such as "10,15", "ddim25", "leading50" or "trailing4".
        variance: Reverse variance (minority/diffusion/chain.py).
        solver: How the chain is walked (minority/solvers).
        eta: Noise of the solver "ddim", >= 0; without effect on others.
        self_guidance: Climb the minority metric, or None.
        boost_and_skip: Start from boosted noise some steps down, or None.
        prune_and_branch: Let promising chains replace hopeless ones, or None.
        classifier_free: Amplify what the label adds, or None.
        shaped_noise: Louder, quieter or truncated noise, or None.
        minority_prompt: Learn a word of the prompt towards rarity, or None.
        cads: Noise the prompt early on, or None.
        cfg_plus_plus: Classifier-free guidance that stays on the data's manifold, or None.
        precision: Of the network's weights and activations; everything else is fp32.
        engine: How the network is run. Changes images at most in the last bit.
        batch_size: Samples a network call. Costs memory; changes images at most in the last bit.
    """

    steps: int | str = 50
    variance: Variance = "learned_range"
    solver: Literal["ancestral", "ddim", "dpm_solver"] = "ancestral"
    eta: float = 0.0
    self_guidance: SelfGuidance | None = None
    boost_and_skip: BoostAndSkip | None = None
    prune_and_branch: PruneAndBranch | None = None
    classifier_free: ClassifierFree | None = None
    shaped_noise: ShapedNoise | None = None
    minority_prompt: MinorityPrompt | None = None
    cads: Cads | None = None
    cfg_plus_plus: CfgPlusPlus | None = None
    precision: Precision = "fp32"
    engine: EngineSettings = field(default_factory=EngineSettings)
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"SamplerSettings.batch_size must be at least 1, got {self.batch_size}.")
        if not self.eta >= 0:
            raise ValueError(f"SamplerSettings.eta must not be negative, got {self.eta}.")
        check_combination(self.guidance, self.walk)

    @property
    def guidance(self) -> list[Guidance]:
        """The methods that steer the chain, possibly none."""
        methods = (
            self.boost_and_skip,
            self.self_guidance,
            self.prune_and_branch,
            self.classifier_free,
            self.shaped_noise,
            self.minority_prompt,
            self.cads,
            self.cfg_plus_plus,
        )
        return [method for method in methods if method is not None]

    @property
    def family(self) -> int:
        """Consecutive sample indices that are drawn together, with one label, as chains may replace one another."""
        return family_of(self.guidance)

    @property
    def walk(self) -> Solver:
        """The solver that walks the chain."""
        if self.solver == "ddim":
            return Ddim(eta=self.eta)
        return DpmSolver() if self.solver == "dpm_solver" else Ancestral()

    def plain(self) -> "SamplerSettings":
        """The same chain without guidance: plain ancestral sampling, unless another solver is chosen."""
        return replace(
            self,
            self_guidance=None,
            boost_and_skip=None,
            prune_and_branch=None,
            classifier_free=None,
            shaped_noise=None,
            minority_prompt=None,
            cads=None,
            cfg_plus_plus=None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for recipes and files."""
        return {key: value for key, value in asdict(self).items() if value is not None or key not in _SHOWN_IN_USE}
