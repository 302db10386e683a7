"""Does it help? Every sampler and every policy by training recipes, on one set, through the product's own flows.

    .venv/bin/python -m benchmarks.study digits --store runs/study

Each sampler makes one run of the flow behind `minority augment`: one round of the same seeds, labels and number of
candidates for all, among which every policy chooses (`downstream.policies`). The recipes on it are those of `minority
downstream`, tuned on validation images and then tested. Recipes on real images alone are trained once. The same command
goes on where it was cut short. Prints Markdown; every run's own report lies in the store.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.arm_tables import arm_table, chosen_on_validation, difference_table
from flows import command_line  # noqa: F401 - sets Prefect's environment before Prefect is imported
from minority.downstream.arms import REAL_ARMS
from minority.downstream.data import DownstreamData
from minority.downstream.jobs import Outcome
from minority.downstream.trials import Trial
from minority.selection.policy import POLICIES, Policy
from tasks.config.presets import load_preset, parse_overrides
from tasks.config.runs import AugmentConfig
from tasks.downstream.data import SELECTED
from tasks.downstream.trainings import has_arms, open_arms, read_outcome

SAMPLERS = ("ancestral", "preset", "sgms-published", "jacobian-free", "boost-and-skip", "prune-and-branch")
_POLICIES: tuple[Policy, ...] = ("all", "clean", "moderate", "rare", "consistent")
#: Recipes with the images of a source.
RECIPES = ("real+SOURCE", "real+SOURCE group-dro", "SOURCE first+logit-adjustment")


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What is compared.

    Attributes:
        preset: A preset of `minority augment`.
        samplers: Names of `minority sample --list`; "preset" is the preset's own sampler.
        policies: Choices among each sampler's candidates.
        recipes: Names of arms, SOURCE in the place of their source.
        candidates: Candidates an image that is missing, >= 1.
        seeds: Tested classifiers a recipe.
        overrides: Further settings of the preset, dotted.
    """

    preset: str
    samplers: tuple[str, ...] = SAMPLERS
    policies: tuple[Policy, ...] = _POLICIES
    recipes: tuple[str, ...] = RECIPES
    candidates: float = 2.2
    seeds: int = 10
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def config(self, sampler: str) -> AugmentConfig:
        """The run of a sampler."""
        config = load_preset(AugmentConfig, self.preset, overrides=self.overrides)
        generative = [
            recipe.replace("SOURCE", f"{SELECTED}-{policy}") for policy in self.policies for recipe in self.recipes
        ]
        real = [arm.name for arm in REAL_ARMS] if sampler == self.samplers[0] else []
        overrides: dict[str, Any] = {
            "plan.max_rounds": 1,
            "plan.baseline": False,
            "plan.expected_yield": 1 / self.candidates,
            "downstream.arms": [*real, *generative],
            "downstream.policies": self.policies,
            "downstream.seeds": self.seeds,
        }
        if sampler != "preset":
            overrides["sampler"] = {
                "name": sampler,
                "steps": config.sampler.steps,
                "batch_size": config.sampler.batch_size,
                "precision": config.sampler.precision,
            }
        if "consistent" in self.policies and config.selection.held_out is None:
            overrides["selection.held_out"] = {}
        return load_preset(AugmentConfig, self.preset, overrides={**self.overrides, **overrides})


def run(settings: StudySettings) -> tuple[Outcome, DownstreamData]:
    """Make every sampler's run.

    Returns:
        All trainings; arms and sources begin with the sampler's name, where the run's begin with "minority". The images
        that they were tested on, with the synthetic ones of every source.
    """
    from flows.augment import augment

    joined, synthetic, data = Outcome(), {}, None
    for sampler in settings.samplers:
        config = settings.config(sampler)
        comparison = config.comparison(augment(config).manifest)
        assert comparison is not None, "arms are asked for"
        if not has_arms(comparison):
            continue  # no policy kept an image; the run's report says why
        found, data = read_outcome(comparison), open_arms(comparison).comparison.data
        joined.chosen.update({_own(arm, sampler): _of(trial, sampler) for arm, trial in found.chosen.items()})
        joined.validated.update({_own(arm, sampler): said for arm, said in found.validated.items()})
        joined.tested.update({_own(arm, sampler): said for arm, said in found.tested.items()})
        joined.unfinished.extend(_own(arm, sampler) for arm in found.unfinished)
        synthetic |= {_own(source, sampler): images for source, images in data.synthetic.items()}
    assert data is not None, "the first run has the recipes on real images"
    return joined, DownstreamData(**{**vars(data), "synthetic": synthetic})


def _own(name: str, sampler: str) -> str:
    return name.replace(SELECTED, sampler)


def _of(trial: Trial, sampler: str) -> Trial:
    arm = trial.arm
    source = None if arm.source is None else _own(arm.source, sampler)
    return replace(trial, arm=replace(arm, name=_own(arm.name, sampler), source=source))


def markdown(outcome: Outcome, data: DownstreamData, *, further: Sequence[str] = ()) -> str:
    """The whole report in Markdown; `further`: arms to compare as well, beside that which validation chose."""
    sources = {arm: trial.arm.source for arm, trial in outcome.chosen.items()}
    amounts = {arm: len(data.synthetic[source]) for arm, source in sources.items() if source is not None}
    others = [arm for arm in outcome.tested if arm not in amounts]
    parts = [arm_table(outcome, data, synthetic_images=amounts)]
    if amounts and others:
        best, rival = (chosen_on_validation(outcome, names, data) for names in (list(amounts), others))
        parts.append(
            f"Chosen on validation: `{best}` among the recipes with synthetic images, `{rival}` among those without.\n"
        )
        parts += [difference_table(arm, others, outcome.tested, data) for arm in (best, *further)]
    if outcome.unfinished:
        parts.append(f"Not finished: {', '.join(outcome.unfinished)}.\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", help="a preset of augment, e.g. digits")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, help="of `minority sample --list`, or preset")
    parser.add_argument("--policies", nargs="+", default=_POLICIES, choices=POLICIES)
    parser.add_argument("--recipes", nargs="+", default=RECIPES, help="arms; SOURCE stands for the source")
    parser.add_argument("--candidates", type=float, default=2.2, help="candidates an image that is missing")
    parser.add_argument("--seeds", type=int, default=10, help="tested classifiers a recipe")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the preset")
    parser.add_argument("--store", default="runs/study")
    parser.add_argument("--against", nargs="+", default=[], metavar="ARM", help="compare these, too: a hint, no result")
    arguments = parser.parse_args()
    settings = StudySettings(
        preset=arguments.preset,
        samplers=tuple(arguments.samplers),
        policies=tuple(arguments.policies),
        recipes=tuple(arguments.recipes),
        candidates=arguments.candidates,
        seeds=arguments.seeds,
        overrides={**parse_overrides(arguments.set), "store": arguments.store},
    )
    outcome, data = run(settings)
    if unknown := sorted(set(arguments.against) - set(outcome.tested)):
        raise SystemExit(f"--against: no arm {', '.join(unknown)} was tested; there are {', '.join(outcome.tested)}.")
    print(markdown(outcome, data, further=arguments.against))


if __name__ == "__main__":
    main()
