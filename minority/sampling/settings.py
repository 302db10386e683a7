"""How samples are drawn, as one order form: every knob is declared beside the code that obeys it.

The guidance methods are no list here: every method of minority/guidance/registry.py is a setting of its own name.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, make_dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from minority.backbones.backbone import Precision
from minority.diffusion.chain import Variance
from minority.engine.prepare import EngineSettings
from minority.guidance import check_combination, particle_group_of
from minority.guidance.method import Method, default_of
from minority.guidance.registry import METHODS
from minority.solvers import Solver, SolverName
from minority.solvers.ancestral import Ancestral
from minority.solvers.ddim import Ddim
from minority.solvers.dpm_solver import DpmSolver
from minority.solvers.renoise import Renoise

#: Methods that settings name only where they are used, so that they change no recipe that does without them.
_SHOWN_IN_USE = ("minority_prompt", "cads", "cfg_plus_plus")


@dataclass(frozen=True, kw_only=True)
class _ChainSettings:
    """How the chain is solved; the first part of SamplerSettings."""

    steps: int | str = 50
    variance: Variance = "learned_range"
    solver: SolverName = "ancestral"
    eta: float = 0.0


if TYPE_CHECKING:
    _WithMethods = _ChainSettings
else:
    _WithMethods = make_dataclass(
        "_WithMethods",
        [(key, method | None, field(default=None)) for key, method in METHODS.items()],
        bases=(_ChainSettings,),
        frozen=True,
        kw_only=True,
    )


@dataclass(frozen=True, kw_only=True)
class SamplerSettings(_WithMethods):
    """How samples are drawn. Beside the attributes below, every guidance method is one: its settings, or None.

    Attributes:
        steps: Steps of the respaced chain: a number, or sections such as "10,15", "ddim25", "leading50",
            "trailing4" or "lcm4".
        variance: Reverse variance (minority/diffusion/chain.py).
        solver: How the chain is solved (minority/solvers).
        eta: Noise of the solver "ddim", >= 0; without effect on others.
        precision: Of the network's weights and activations; everything else is fp32.
        engine: How the network is run. Changes images at most in the last bit.
        batch_size: Samples a network call. Costs memory; changes images at most in the last bit.
    """

    precision: Precision = "fp32"
    engine: EngineSettings = field(default_factory=EngineSettings)
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"SamplerSettings.batch_size must be at least 1, got {self.batch_size}.")
        if not self.eta >= 0:
            raise ValueError(f"SamplerSettings.eta must not be negative, got {self.eta}.")
        check_combination(self.guidance, self.chain_solver)

    @property
    def guidance(self) -> list[Method]:
        """The methods that steer the chain, possibly none, in the order of the registry."""
        return [method for key in METHODS if (method := self.method(key)) is not None]

    def method(self, key: str) -> Method | None:
        """The settings of one method, by its key; None where it is not used."""
        method: Method | None = getattr(self, key)
        return method

    def guided(self, *methods: Method) -> Self:
        """The same settings with these methods, each in the place of its key."""
        chosen: dict[str, Any] = {method.key: method for method in methods}
        return replace(self, **chosen)

    @property
    def particle_group(self) -> int:
        """Consecutive sample indices that are drawn together, with one label, as chains may replace one another."""
        return particle_group_of(self.guidance)

    @property
    def chain_solver(self) -> Solver:
        """The solver of the chain."""
        if self.solver == "ddim":
            return Ddim(eta=self.eta)
        solvers: dict[str, Solver] = {"dpm_solver": DpmSolver(), "renoise": Renoise()}
        return solvers.get(self.solver) or Ancestral()

    def plain(self, *, by_prompts: bool = False) -> Self:
        """The same chain without guidance: plain ancestral sampling, unless another solver is chosen.

        Args:
            by_prompts: Of a text-to-image backbone, whose plain samples keep classifier-free guidance.
        """
        nothing: dict[str, Any] = {
            key: None for key, method in METHODS.items() if not (by_prompts and method.obeys_prompts)
        }
        return replace(self, **nothing)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for recipes and files; see `without_absent_methods`."""
        return without_absent_methods(asdict(self))


def without_absent_methods(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain values, less the methods that are not used and need not be shown, and their settings likewise.

    So a method that is added to the registry, or a setting to a method, changes no recipe that does without it.
    """
    return {
        name: _without_defaults(METHODS[name], value) if name in METHODS and isinstance(value, Mapping) else value
        for name, value in settings.items()
        if value is not None or name not in METHODS or METHODS[name].shown_when_absent
    }


def _without_defaults(kind: type[Method], settings: Mapping[str, Any]) -> dict[str, Any]:
    hidden = {name for name in kind.shown_where_set if settings.get(name) == default_of(kind, name)}
    return {name: value for name, value in settings.items() if name not in hidden}
