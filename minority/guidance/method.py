"""What a published guidance method says about itself, so that a new one is a new file in this folder and no more.

A method is the frozen dataclass of its settings. Its file gives the key by which presets and the command line name it,
its paper, the values that a calibration searches, and what it costs. Settings, command line, calibration and cost ask
for nothing else (docs/samplers.md shows one). Methods from outside are found by entry points of the group
`minority.guidance`, each of which names a module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any, ClassVar, Literal, Self, get_args

from minority.backbones import Backbone
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance import Guidance
from minority.guidance.materials import Lessons, Materials, Parts, Tensors
from minority.solvers import SolverName

#: What a method changes: where the chain starts, the state that a step arrives at, which chains go on, what the
#: denoiser says, or the noise.
Stage = Literal["start", "state", "chains", "prediction", "noise"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class Method(Guidance):
    """The settings of one method, a frozen dataclass.

    Attributes:
        key: Its name in presets (`sampler.<key>`) and on the command line (`--set sampler.<key>.<setting>=...`).
        paper: Where it is published.
        line: What it does, in a line.
        stage: What it changes. Methods are listed in the order of STAGES.
        grids: What a calibration searches: each grid has ascending values of some settings, and every combination of
            them is a candidate; none: nothing is searched, and the method is kept as a preset has it.
        needs_prompts: Whether it steers text-to-image models alone.
        solver: The solver of its named samplers.
        shown_when_absent: Whether settings without this method say so. A recipe covers what is shown, so that a new
            method must leave this alone: no run is named anew then.
        shown_where_set: Settings that are shown where they differ from their defaults alone, as those must be that a
            method gets later.
        obeys_prompts: Whether it makes a prompt obeyed, so that plain samples of text-to-image models have it, too.
    """

    key: ClassVar[str]
    paper: ClassVar[str]
    line: ClassVar[str]
    stage: ClassVar[Stage] = "state"
    grids: ClassVar[Sequence[Mapping[str, tuple[Any, ...]]]] = ()
    needs_prompts: ClassVar[bool] = False
    solver: ClassVar[SolverName] = "ancestral"
    shown_when_absent: ClassVar[bool] = False
    shown_where_set: ClassVar[tuple[str, ...]] = ()
    obeys_prompts: ClassVar[bool] = False

    @classmethod
    def samplers(cls) -> Mapping[str, Self]:
        """Settings under the names of samplers; by default those of the defaults under the method's key."""
        return {cls.key.replace("_", "-"): cls()}

    @classmethod
    def published(cls) -> Self | None:
        """The paper's settings where every calibration is compared with them, else None."""
        return None

    def describe(self) -> str:
        """The settings in a few words: the key, and what differs from the defaults."""
        shown = [(field.name, getattr(self, field.name)) for field in fields(self)]  # type: ignore[arg-type]
        changed = [
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in shown
            if value != default_of(type(self), name)
        ]
        return " ".join([self.key.replace("_", " "), *changed])

    @property
    def needs_real_images(self) -> bool:
        """Whether it cannot act without real training images at hand."""
        return False

    @property
    def calls(self) -> int:
        """Network calls that every prediction takes: more than 1 where the method asks the denoiser several times."""
        return 1

    def first_step(self, schedule: NoiseSchedule) -> int | None:
        """The step that the chain starts at; None where the method does not choose it."""
        return None

    def extra_evaluations(self, step: int, num_steps: int) -> float:
        """Predictions, and backward passes as two each, beside the step's own; `calls` multiplies them."""
        return 0.0

    def refusal(self, backbone: Backbone) -> str | None:
        """Why this backbone cannot be guided so; None where it can."""
        return None


class TrainedMethod(Method):
    """A method that learns from the real training images before it can guide.

    Attributes:
        steering: Settings that steer a chain and decide nothing of what is learnt.
        uses_plain_samples: Whether it also learns from plain samples of the backbone.
    """

    steering: ClassVar[tuple[str, ...]] = ()
    uses_plain_samples: ClassVar[bool] = False

    @property
    def needs_real_images(self) -> bool:
        """True where anything is learnt."""
        return bool(self.part_names)

    @property
    def part_names(self) -> tuple[str, ...]:
        """What is learnt, in this order; each part is kept as soon as it is there."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it learns.")

    @property
    def training_settings(self) -> dict[str, Any]:
        """The settings that decide what is learnt."""
        settings = asdict(self)  # type: ignore[call-overload]
        return {name: value for name, value in settings.items() if name not in self.steering}

    def train(self, part: str, lessons: Lessons, done: Parts) -> Tensors:
        """Learn one part.

        Args:
            part: One of `part_names`.
            lessons: What there is to learn from.
            done: The parts before it.

        Raises:
            ValueError: Where the images do not allow it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it learns {part}.")

    def learnt(self, materials: Materials) -> Parts:
        """Its parts.

        Raises:
            ValueError: They are not at hand.
        """
        parts = materials.parts.get(self.key, {})
        if any(name not in parts for name in self.part_names):
            raise ValueError(
                f"{self.key} learns from real images before it guides, and there are none; name a preset that has "
                "them (minority sample --preset), or give draw(..., parts=...)."
            )
        return parts

    def acts_at(self, step: int, num_steps: int) -> bool:
        """Settings alone cannot guide.

        Raises:
            ValueError: Always; `ready` gives what guides.
        """
        raise ValueError(f"{self.key} must be made ready with its trained parts before it guides; see Guidance.ready.")


def default_of(kind: type[Method], setting: str) -> Any:
    """The default of a method's setting; `dataclasses.MISSING` where it has none."""
    declared = next(field for field in fields(kind) if field.name == setting)  # type: ignore[arg-type]
    return declared.default if declared.default_factory is MISSING else declared.default_factory()
