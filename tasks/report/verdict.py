"""What the classifiers say: every arm with its intervals, paired differences, and the verdict in one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from minority.downstream.arms import Arm
from minority.downstream.comparison import (
    ARM_PHRASES,
    Difference,
    Metric,
    choose_arm,
    group_intervals,
    paired_difference,
    summarise,
    verdict,
)
from minority.downstream.cost import ArmCost, cost_of
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.jobs import Outcome
from minority.downstream.settings import DownstreamSettings
from minority.downstream.trials import ChosenBy
from tasks.report.findings import Estimate, Ratios, SamplerFindings

BASE_ARM = "real"
#: A recipe that costs more than so many times the main one to run is no rival of it, but is named beside it.
MOST_TIMES = 10
_DECISIVE: dict[ChosenBy, Metric] = {"worst_group": "worst_group_accuracy", "balanced": "balanced_accuracy"}
PUBLISHED_SOURCE = "minority"
AHEAD, BEHIND, LEVEL, ONE_SEED = "ahead", "behind", "not distinguishable", "one seed, no interval"
WORTH_IT, NOT_WORTH_IT, HARMFUL, UNDECIDED = "worth it", "not worth it", "they do harm", "one seed decides nothing"


@dataclass(frozen=True, eq=False, kw_only=True)
class ArmResults:
    """The trainings of a comparison, as they were found.

    Attributes:
        outcome: What was chosen, and all predictions.
        data: The images.
        settings: The budget of every arm.
        figures: All figures of the tested classifiers: columns arm, seed, metric, group, value.
    """

    outcome: Outcome
    data: DownstreamData
    settings: DownstreamSettings
    figures: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class ArmFindings:
    """One arm.

    Attributes:
        name: The arm's.
        generative: Whether it uses synthetic images.
        source: The source of its synthetic images, or None.
        num_synthetic: How many there are.
        setting: What validation chose among its trials, in words.
        validated: The chosen trial's worst group on the validation images, mean over tuning seeds.
        cost: Multiply-adds of training it, of drawing its images and of classifying one image.
        means: Metric -> mean over seeds and interval.
        groups: Group -> accuracy and interval.
        figures: Metric -> what it belongs to -> mean over seeds, with the lowest and the highest seed for ends.
    """

    name: str
    generative: bool
    source: str | None
    num_synthetic: int
    setting: str
    validated: float
    cost: ArmCost
    means: Mapping[str, Estimate]
    groups: Mapping[str, Estimate]
    figures: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """The comparison, summed up.

    Attributes:
        arms: The arms by name, in order.
        metrics: What they are compared on; the first decides.
        num_seeds: Tested trainings of each arm.
        trainings: Trainings in total, tuning included.
        budget: Optimiser steps, batch size, trials and tuning seeds of each arm, and the network.
        test_images: Images they are tested on.
        validation_images: Images that settings are chosen on.
        main: The arm with synthetic images that validation chose, those of the published set first; or None.
        rival: The arm without synthetic images that validation chose among those that are no more than ten times as
            costly to run as the main arm, or None.
        costlier: The best on validation of the other ones, if any.
        gains: Arm -> metric -> the arm against real only.
        pairwise: Arm -> metric -> the main arm against it.
        unfinished: Arms that lack results.
    """

    arms: Mapping[str, ArmFindings]
    metrics: tuple[Metric, ...]
    num_seeds: int
    trainings: int
    budget: Mapping[str, object]
    test_images: int
    validation_images: int
    main: str | None
    rival: str | None
    costlier: tuple[str, ...]
    gains: Mapping[str, Mapping[str, Difference]]
    pairwise: Mapping[str, Mapping[str, Difference]]
    unfinished: tuple[str, ...]

    @property
    def metric(self) -> Metric:
        """What decides: worst-group accuracy, which is worst-class accuracy where groups are the classes."""
        return self.metrics[0]

    @property
    def headline(self) -> list[Difference]:
        """The main arm against real only and against the rival, as far as they were tested."""
        wanted = dict.fromkeys((BASE_ARM, self.rival))
        return [self.pairwise[arm][self.metric] for arm in wanted if arm is not None and arm in self.pairwise]

    @property
    def shown(self) -> list[str]:
        """The arms that are shown group by group: real only, the rival, the main one."""
        wanted = dict.fromkeys((BASE_ARM, self.rival, self.main))
        return [arm for arm in wanted if arm is not None and arm in self.arms]


def evaluate_results(results: ArmResults | None) -> Downstream | None:
    """Sum up a comparison; None where no arm was finished.

    Args:
        results: What was found, or None where nothing was trained.
    """
    if results is None or not results.outcome.tested:
        return None
    outcome, data = results.outcome, results.data
    runs, metrics = outcome.tested, _metrics(data.test, results.settings.chosen_by)
    arms = {name: trial.arm for name, trial in outcome.chosen.items()}
    published = [name for name, arm in arms.items() if arm.source == PUBLISHED_SOURCE]
    best = partial(_best, outcome=outcome, data=data, by=results.settings.chosen_by)
    main = best(published or [name for name, arm in arms.items() if arm.is_generative])
    costs = {name: cost_of(arm, data, results.settings) for name, arm in arms.items()}
    others = [name for name, arm in arms.items() if not arm.is_generative]
    dear = [] if main is None else [name for name in others if costs[name].image > MOST_TIMES * costs[main].image]
    rival = best([name for name in others if name not in dear])
    costlier = best(dear)
    num_seeds = min(len(by_seed) for by_seed in runs.values())

    def against(arm: str, baseline: str) -> dict[str, Difference]:
        return {m: paired_difference(runs, arm, baseline=baseline, truth=data.test, metric=m) for m in metrics}

    return Downstream(
        arms=_arms(results, arms, metrics=metrics, costs=costs),
        metrics=metrics,
        num_seeds=num_seeds,
        trainings=len(runs) * (results.settings.trials * results.settings.tuning_seeds + num_seeds),
        budget=_budget(results.settings),
        test_images=len(data.test),
        validation_images=len(data.validation),
        main=main,
        rival=rival,
        costlier=() if costlier is None else (costlier,),
        gains={name: against(name, BASE_ARM) for name in runs if name != BASE_ARM and BASE_ARM in runs},
        pairwise={} if main is None else {name: against(main, name) for name in runs if name != main},
        unfinished=tuple(outcome.unfinished),
    )


def pronounce(downstream: Downstream | None, samplers: Mapping[str, SamplerFindings], *, ratios: Ratios | None) -> str:
    """The verdict of the run in one sentence: downstream where it was measured, the yield where not."""
    if downstream is not None and downstream.headline:
        first, *others = downstream.headline
        claims = [verdict(first), *(verdict(other, name_metric=False) for other in others)]
        if downstream.rival == BASE_ARM:
            claims.append("no other recipe without synthetic images was better on validation")
        return f"{name_of_arm(first.arm)}: {'; '.join(claims)}: {conclusion(downstream.headline)}."
    if "minority" not in samplers:
        return "No sample was drawn with guidance, so there is nothing to evaluate."
    share = samplers["minority"].yield_
    claim = f"{100 * share.value:.1f}% of the samples drawn are rare, valid and new"
    if ratios is not None and np.isfinite(ratios.yield_.value):
        gain = ratios.yield_
        interval = "" if np.isnan(gain.low) else f" ({gain.low:.1f} ... {gain.high:.1f}, 95% interval)"
        claim += f", {gain.value:.1f} times the share of plain sampling{interval}"
    return claim + "; what they are worth to a classifier was not measured."


def conclusion(headline: Sequence[Difference]) -> str:
    """Whether the synthetic images pay: only where they are ahead of real only and of the best other recipe."""
    standings = [standing(difference) for difference in headline]
    if ONE_SEED in standings:
        return UNDECIDED
    if standings[0] == BEHIND:
        return HARMFUL
    return WORTH_IT if all(each == AHEAD for each in standings) else NOT_WORTH_IT


def standing(difference: Difference) -> str:
    """Where a difference leaves its arm: ahead, behind, or not distinguishable."""
    if np.isnan(difference.low):
        return ONE_SEED
    if not difference.excludes_zero:
        return LEVEL
    return AHEAD if difference.mean > 0 else BEHIND


def name_of_arm(arm: str) -> str:
    """An arm's name for people, e.g. "real + minority"."""
    return ARM_PHRASES.get(arm, arm.replace("+", " + "))


def _metrics(test: LabelledImages, chosen_by: ChosenBy) -> tuple[Metric, ...]:
    metrics = _metrics_of(test)
    if chosen_by == "balanced":  # what recipes are chosen by decides
        metrics = ("balanced_accuracy", *(metric for metric in metrics if metric != "balanced_accuracy"))
    return metrics


def _metrics_of(test: LabelledImages) -> tuple[Metric, ...]:
    if np.array_equal(test.labels, test.groups):
        return ("worst_class_accuracy", "balanced_accuracy", "accuracy")
    return ("worst_group_accuracy", "worst_class_accuracy", "balanced_accuracy", "accuracy")


def _best(names: Sequence[str], outcome: Outcome, data: DownstreamData, *, by: ChosenBy) -> str | None:
    if not names:
        return None
    validated = {name: outcome.validated[name] for name in names}
    return choose_arm(validated, data.validation, num_groups=len(data.group_names), by=by)


def _arms(
    results: ArmResults, arms: Mapping[str, Arm], *, metrics: Sequence[Metric], costs: Mapping[str, ArmCost]
) -> dict[str, ArmFindings]:
    outcome, data = results.outcome, results.data
    summary = summarise(outcome.tested, data.test, metrics=metrics)
    decisive: Metric = _DECISIVE[results.settings.chosen_by]
    validated = summarise(outcome.validated, data.validation, metrics=(decisive,))
    on_validation = dict(zip(validated["arm"], validated["mean"], strict=True))
    means: dict[str, dict[str, Estimate]] = {}
    for row in summary.to_dict("records"):
        means.setdefault(row["arm"], {})[row["metric"]] = Estimate(value=row["mean"], low=row["low"], high=row["high"])
    figures = _figures(results.figures)
    return {
        name: ArmFindings(
            name=name,
            generative=arm.is_generative,
            source=arm.source,
            num_synthetic=0 if arm.source is None else len(data.synthetic[arm.source]),
            setting=_setting(outcome, name),
            validated=on_validation[name],
            cost=costs[name],
            means=means[name],
            groups=_groups(outcome, data, name),
            figures=figures.get(name, {}),
        )
        for name, arm in arms.items()
    }


def _groups(outcome: Outcome, data: DownstreamData, arm: str) -> dict[str, Estimate]:
    rows = group_intervals(outcome.tested[arm], data.test, group_names=data.group_names)
    return {
        row["group"]: Estimate(value=row["mean"], low=row["low"], high=row["high"]) for row in rows.to_dict("records")
    }


def _figures(figures: pd.DataFrame) -> dict[str, dict[str, dict[str, Estimate]]]:
    by_arm: dict[str, dict[str, dict[str, Estimate]]] = {}
    spread = figures.groupby(["arm", "metric", "group"], sort=False)["value"].agg(["mean", "min", "max"])
    for row in spread.reset_index().to_dict("records"):
        estimate = Estimate(value=row["mean"], low=row["min"], high=row["max"])
        by_arm.setdefault(row["arm"], {}).setdefault(row["metric"], {})[row["group"]] = estimate
    return by_arm


def _setting(outcome: Outcome, name: str) -> str:
    trial = outcome.chosen[name]
    if trial.arm.learner in ("linear_probe", "zero_shot"):
        return f"{(trial.arm.tuned or '').replace('_', ' ')} {_own(trial.arm):g}"
    strength = "" if trial.arm.tuned is None else f", {trial.arm.tuned.replace('_', ' ')} {_own(trial.arm):g}"
    return f"learning rate {trial.learning_rate:g}, weight decay {trial.weight_decay:g}{strength}"


def _own(arm: Arm) -> float:
    assert arm.tuned is not None, "tuned"
    return float(getattr(arm, arm.tuned))


def _budget(settings: DownstreamSettings) -> dict[str, object]:
    return {
        "network": settings.network.kind,
        "pretrained": settings.network.weights is not None,
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "trials": settings.trials,
        "tuning_seeds": settings.tuning_seeds,
        "chosen_by": {"worst_group": "the worst group", "balanced": "the mean over groups"}[settings.chosen_by],
    }
