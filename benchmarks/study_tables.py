"""The study's result as tables: every arm, and the best arm with synthetic images against those without."""

from collections.abc import Sequence

import pandas as pd

from minority.downstream.arms import Arm
from minority.downstream.comparison import METRICS, Runs, choose_arm, paired_difference, summarise
from minority.downstream.data import DownstreamData
from minority.downstream.jobs import Outcome
from minority.downstream.trials import Trial

_COLUMNS = {
    "worst_group_accuracy": "worst group, %",
    "balanced_accuracy": "balanced, %",
    "accuracy": "accuracy, %",
}


def markdown(outcome: Outcome, arms: Sequence[Arm], data: DownstreamData, *, more: Sequence[str] = ()) -> str:
    """The whole report in Markdown; says what is missing. `more`: further arms to compare with those without images."""
    tested = {arm.name: outcome.tested[arm.name] for arm in arms if arm.name in outcome.tested}
    if not tested:
        return "No arm was finished.\n"
    parts = [arm_table(outcome, tested, data)]
    generative = [arm.name for arm in arms if arm.is_generative and arm.name in tested]
    others = [arm.name for arm in arms if not arm.is_generative and arm.name in tested]
    if generative and others:
        best = _chosen(outcome, generative, data)
        rival = _chosen(outcome, others, data)
        parts.append(
            f"Chosen on validation: `{best}` among the arms with synthetic images, `{rival}` among those without.\n"
        )
        parts += [difference_table(name, others, tested, data) for name in (best, *more)]
    if outcome.unfinished:
        parts.append(f"Not finished: {', '.join(outcome.unfinished)}.\n")
    return "\n".join(parts)


def arm_table(outcome: Outcome, tested: Runs, data: DownstreamData) -> str:
    """Mean and 95 % interval of every arm, with the validation figure that it was chosen by."""
    means = summarise(tested, data.test)
    means["figure"] = [
        _interval(m, low, high) for m, low, high in zip(means["mean"], means["low"], means["high"], strict=True)
    ]
    table = means.pivot(index="arm", columns="metric", values="figure").loc[list(tested)][list(_COLUMNS)]
    table = table.rename(columns=_COLUMNS)
    validated = {arm: outcome.validated[arm] for arm in tested}
    on_validation = summarise(validated, data.validation, metrics=("worst_group_accuracy",)).set_index("arm")["mean"]
    table.insert(0, "validation: worst group, %", [f"{100 * on_validation[arm]:.1f}" for arm in table.index])
    table.insert(0, "chosen", [_setting(outcome.chosen[arm]) for arm in table.index])
    table.insert(0, "synthetic images", [_amount(outcome.chosen[arm].arm, data) for arm in table.index])
    return str(table.reset_index().to_markdown(index=False)) + "\n"


def difference_table(arm: str, baselines: Sequence[str], tested: Runs, data: DownstreamData) -> str:
    """The paired differences of one arm to others, in points."""
    rows = []
    for baseline in baselines:
        row = {f"{arm} against": baseline}
        for metric in METRICS:
            if metric not in _COLUMNS:
                continue
            found = paired_difference(tested, arm, baseline=baseline, truth=data.test, metric=metric)
            doubt = "" if found.excludes_zero else " n.s."
            row[_COLUMNS[metric].replace("%", "points")] = (
                f"{100 * found.mean:+.1f} ({100 * found.low:.1f} ... {100 * found.high:.1f}){doubt}"
            )
        rows.append(row)
    return str(pd.DataFrame(rows).to_markdown(index=False)) + "\n\nn.s.: the 95 % interval does not exclude 0.\n"


def _chosen(outcome: Outcome, names: Sequence[str], data: DownstreamData) -> str:
    return choose_arm(
        {name: outcome.validated[name] for name in names}, data.validation, num_groups=len(data.group_names)
    )


def _interval(mean: float, low: float, high: float) -> str:
    return f"{100 * mean:.1f} ({100 * low:.1f} ... {100 * high:.1f})"


def _setting(trial: Trial) -> str:
    own = "" if trial.arm.tuned is None else f", {trial.arm.tuned} {getattr(trial.arm, trial.arm.tuned):g}"
    return f"rate {trial.learning_rate:g}, decay {trial.weight_decay:g}{own}"


def _amount(arm: Arm, data: DownstreamData) -> str:
    return "" if arm.source is None else str(len(data.synthetic[arm.source]))
