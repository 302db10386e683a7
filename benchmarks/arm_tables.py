"""Tables of training recipes: every arm with its intervals, and one arm against others."""

from collections.abc import Mapping, Sequence

import pandas as pd

from minority.downstream.comparison import METRICS, Metric, Runs, choose_arm, paired_difference, summarise
from minority.downstream.data import DownstreamData
from minority.downstream.jobs import Outcome
from minority.downstream.trials import Trial

_TITLES: Mapping[Metric, str] = {
    "worst_group_accuracy": "worst group",
    "worst_class_accuracy": "worst class",
    "balanced_accuracy": "balanced",
    "accuracy": "accuracy",
}


def arm_table(outcome: Outcome, data: DownstreamData, *, synthetic_images: Mapping[str, int]) -> str:
    """Mean and 95 % interval of every arm that was tested, with what validation says of it.

    Args:
        outcome: The trainings.
        data: The images they were validated and tested on.
        synthetic_images: Arm -> how many it learns from; those without are left out.
    """
    names = list(outcome.tested)
    validated = {arm: outcome.validated[arm] for arm in names}
    on_validation = summarise(validated, data.validation, metrics=("worst_group_accuracy",)).set_index("arm")["mean"]
    table = figures(outcome.tested, data, metrics=_metrics(data))
    table.insert(0, "validation: worst group, %", [f"{100 * on_validation[arm]:.1f}" for arm in names])
    table.insert(0, "chosen", [_setting(outcome.chosen[arm]) for arm in names])
    table.insert(0, "synthetic images", [str(synthetic_images.get(arm, "")) for arm in names])
    return str(table.reset_index().to_markdown(index=False)) + "\n"


def figures(tested: Runs, data: DownstreamData, *, metrics: Sequence[Metric]) -> pd.DataFrame:
    """A row an arm, a column a metric: "94.3 (92.1 ... 95.8)", in percent."""
    means = summarise(tested, data.test, metrics=metrics)
    means["figure"] = [
        f"{100 * mean:.1f} ({100 * low:.1f} ... {100 * high:.1f})"
        for mean, low, high in zip(means["mean"], means["low"], means["high"], strict=True)
    ]
    table = means.pivot(index="arm", columns="metric", values="figure").loc[list(tested)][list(metrics)]
    return table.rename(columns={metric: f"{_TITLES[metric]}, %" for metric in metrics})


def difference_table(arm: str, baselines: Sequence[str], tested: Runs, data: DownstreamData) -> str:
    """The paired differences of one arm to others, in points."""
    rows = []
    for baseline in baselines:
        row = {f"{arm} against": baseline}
        for metric in _metrics(data):
            found = paired_difference(tested, arm, baseline=baseline, truth=data.test, metric=metric)
            doubt = "" if found.excludes_zero else " n.s."
            row[f"{_TITLES[metric]}, points"] = (
                f"{100 * found.mean:+.1f} ({100 * found.low:.1f} ... {100 * found.high:.1f}){doubt}"
            )
        rows.append(row)
    return str(pd.DataFrame(rows).to_markdown(index=False)) + "\n\nn.s.: the 95 % interval does not exclude 0.\n"


def chosen_on_validation(outcome: Outcome, names: Sequence[str], data: DownstreamData) -> str:
    """The arm among `names` that validation images choose."""
    return choose_arm(
        {name: outcome.validated[name] for name in names}, data.validation, num_groups=len(data.group_names)
    )


def _metrics(data: DownstreamData) -> list[Metric]:
    """Without the worst group where groups are the classes."""
    by_class = data.group_names == data.class_names
    return [metric for metric in METRICS if not (by_class and metric == "worst_group_accuracy")]


def _setting(trial: Trial) -> str:
    own = "" if trial.arm.tuned is None else f", {trial.arm.tuned} {getattr(trial.arm, trial.arm.tuned):g}"
    return f"rate {trial.learning_rate:g}, decay {trial.weight_decay:g}{own}"
