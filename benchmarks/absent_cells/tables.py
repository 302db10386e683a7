"""The tables, with training draws as the unit of every interval.

Shapes: N test images, V validation images, S seeds, D draws, R replicates.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.absent_cells.construction import Construction, Draw
from benchmarks.absent_cells.recipes import (
    GENERATED,
    Answers,
    Trial,
    accepted_shares,
    all_recipes,
    answers,
    finished,
    real_recipes,
)
from benchmarks.draws.verdict_over_draws import FEWEST_DRAWS, verdict_of
from tasks.augment.group_gate import GroupGate

_WORTH = 1.0  # points
_FLOOR = 0.5
_KEPT = "synthetic, kept"
Found = Mapping[str, Sequence[Answers]]
Shares = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]


def over_draws(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over draws and its 95 % interval by Student's t; NaN for a single draw."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.975, count - 1)) * float(np.std(values, ddof=1)) / count**0.5
    return mean, mean - half, mean + half


def verdict(low: float, high: float, *, draws: int) -> str:
    """By the rule of `verdict_of`, for an interval in points; says so where there are too few draws."""
    said = verdict_of(low, high, draws=draws, worth=_WORTH)
    return said if draws >= FEWEST_DRAWS else f"{said} (fewer than {FEWEST_DRAWS} draws)"


def report(draws: Sequence[Draw], ks: Sequence[int], *, seeds: int) -> str:
    """All tables as Markdown, of the draws that are finished."""
    parts, of = [], draws[0].construction
    by_k: dict[int, dict[int, Found]] = {}
    for k in ks:
        done = {draw: shares for draw in draws if (shares := finished(draw, k, seeds=seeds)) is not None}
        if not done:
            continue
        by_k[k] = {}
        for draw in done:
            by_k[k][draw.seed] = _found(Trial(draw, k), all_recipes(of), seeds=seeds)
        found = list(by_k[k].values())
        parts += [
            _accuracies(of, k, found),
            _differences(of, k, found),
            gate_table(of, k, found, {draw.seed: shares for draw, shares in done.items()}),
        ]
    if len(by_k) > 1:
        parts.append(more_images_table(of, by_k))
    return "\n\n".join(parts) or "nothing is finished yet."


def gate_report(draws: Sequence[Draw], ks: Sequence[int], *, seeds: int) -> str:
    """`rule_table` of some draws; trains what it needs and is not there."""
    by_k: dict[int, list[Found]] = {}
    accepted: dict[int, list[dict[str, list[list[float]]]]] = {}
    for k in ks:
        by_k[k], accepted[k] = [], []
        for draw in draws:
            draw.folder.mkdir(parents=True, exist_ok=True)
            trial = Trial(draw, k)
            by_k[k].append(_found(trial, ("balanced", "synthetic"), seeds=seeds))
            accepted[k].append(accepted_shares(trial, seeds=seeds))
    return rule_table(draws[0].construction, by_k, accepted)


def _found(trial: Trial, names: Sequence[str], *, seeds: int) -> Found:
    """What some recipes of a draw answered: from their files, or trained now."""
    test, validation = trial.draw.test(), trial.draw.validation()
    return {
        name: [answers(trial, name, seed=seed, test=test, validation=validation) for seed in range(seeds)]
        for name in names
    }


def _accuracies(of: Construction, k: int, found: Sequence[Found]) -> str:
    lines = [
        f"k = {k}, {len(found)} draws, {len(next(iter(found[0].values())))} seeds each. Mean over draws (interval).",
        "| arm | absent cells % | worst cell % | unbiased % | validation with / without the absent cells % |",
        "|---|---|---|---|---|",
    ]
    for name in found[0]:
        absent = over_draws([_mean(draw[name], of.absent_cells) for draw in found])
        worst = np.mean([min(_mean(draw[name], [cell]) for cell in of.cells) for draw in found])
        unbiased = np.mean([_mean(draw[name], of.cells) for draw in found])
        both = [np.mean([one.validated(with_absent=w) for draw in found for one in draw[name]]) for w in (True, False)]
        lines.append(f"| {name} | {_shown(absent)} | {worst:.1f} | {unbiased:.1f} | {both[0]:.1f} / {both[1]:.1f} |")
    return "\n".join(lines)


def more_images_table(of: Construction, by_k: Mapping[int, Mapping[int, Found]]) -> str:
    """Collecting more images against drawing with fewer: balancing at the larger k less what was drawn at the smaller.

    Args:
        of: The study.
        by_k: Real images a cell -> number of a draw -> what its recipes answered.
    """
    lines = [
        "Accuracy in the absent cells of balancing more real images, less that of drawing with fewer; paired by draw.",
        "| balanced, real images a cell | synthetic, kept, real images a cell | draws | points |",
        "|---|---|---|---|",
    ]
    for more in by_k:
        for fewer in (k for k in by_k if k < more):
            both = [(by_k[more][draw], by_k[fewer][draw]) for draw in by_k[more].keys() & by_k[fewer].keys()]
            gains = [_mean(a["balanced"], of.absent_cells) - _mean(b[_KEPT], of.absent_cells) for a, b in both]
            if gains:
                lines.append(f"| {more} | {fewer} | {len(gains)} | {_shown(over_draws(gains))} |")
    return "\n".join(lines)


def _differences(of: Construction, k: int, found: Sequence[Found]) -> str:
    real = real_recipes(of)
    lines = [
        f"k = {k}: differences in points, paired, interval over draws.",
        "| | against | absent cells | unbiased | verdict |",
        "|---|---|---|---|---|",
    ]
    rivals = {
        "best on real images by validation": [_chosen(draw, real, with_absent=True) for draw in found],
        "the same, no absent cell in validation": [_chosen(draw, real, with_absent=False) for draw in found],
    } | {name: [name] * len(found) for name in real}
    for name in GENERATED:
        for title, chosen in rivals.items():
            pairs = list(zip(found, chosen, strict=True))
            absent = over_draws(
                [_mean(d[name], of.absent_cells) - _mean(d[rival], of.absent_cells) for d, rival in pairs]
            )
            unbiased = over_draws([_mean(d[name], of.cells) - _mean(d[rival], of.cells) for d, rival in pairs])
            said = verdict(*absent[1:], draws=len(found))
            lines.append(f"| {name} | {title} | {_shown(absent)} | {_shown(unbiased)} | {said} |")
    return "\n".join(lines)


def gate_table(of: Construction, k: int, found: Sequence[Found], facts: Mapping[int, Shares]) -> str:
    """Gains in the cells that the gate lets through and in those that it refuses, in every draw."""
    lines = [
        f'k = {k}: the gate, cells of {len(found)} draws. Gain of "synthetic" in the cell itself, in points: mean over '
        "the cells of a draw, then interval over the draws that have such cells.",
        "| gate | cells | | against the best real recipe | against balanced |",
        "|---|---|---|---|---|",
    ]
    accepted = [np.mean([np.array(one) for one in fact["accepted"].values()], axis=0) for fact in facts.values()]
    best = [_chosen(draw, real_recipes(of), with_absent=True) for draw in found]
    name = of.attribute[0]
    for title, places in {name: [1], "label": [0], f"{name} and label": [0, 1]}.items():
        opened = [shares[:, places].min(axis=1) >= _FLOOR for shares in accepted]
        for verb, chosen in (("let through", opened), ("refused", [~cells for cells in opened])):
            gains = [_over_cells(of, found, chosen, rivals) for rivals in (best, ["balanced"] * len(found))]
            count = sum(int(cells.sum()) for cells in chosen)
            lines.append(f"| {title} | {verb} | {count} | {gains[0]} | {gains[1]} |")
    heads = [f"{of.labels[label]}, {of.attribute[1 + attribute]}" for label, attribute in of.absent]
    lines += ["", f"| draw | {' | '.join(heads)} |", "|---|" + "---|" * len(of.absent)]
    for place, (draw, seed) in enumerate(zip(found, facts, strict=True)):
        truth = np.mean([np.array(shares) for shares in facts[seed]["oracle"].values()], axis=0)
        cells = [
            f"{own[1]:.2f} / {own[0]:.2f} ({true[1]:.2f} / {true[0]:.2f}) "
            f"{_mean(draw['synthetic'], [cell]) - _mean(draw[best[place]], [cell]):+.0f}"
            for cell, own, true in zip(of.absent_cells, accepted[place], truth, strict=True)
        ]
        lines.append(f"| {seed} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{name.capitalize()} / label accepted by the classifiers of the training images (by the oracle), gain.",
        "",
        *_correlations(of, found, best, facts),
    ]
    return "\n".join(lines)


def rule_table(
    of: Construction,
    by_k: Mapping[int, Sequence[Found]],
    accepted: Mapping[int, Sequence[Mapping[str, Sequence[Sequence[float]]]]],
) -> str:
    """The gate of the product, which asks for the attribute only where no image is real: each k, then all together.

    Args:
        of: The study.
        by_k: Real images a cell -> what the recipes of each draw answered, the same draws for every k.
        accepted: Real images a cell -> shares of the samples of each draw that were accepted; see `accepted_shares`.
    """
    count = len(next(iter(by_k.values())))
    lines = [
        f'The gate by its rule, {count} draws. Gain of "synthetic" over "balanced" in the cell itself, in '
        "points: mean over the cells of a draw, then interval over the draws that have such cells.",
        "| real images a cell | let through | gain | refused | gain | difference in draws that have both | all cells |",
        "|---|---|---|---|---|---|---|",
    ]
    # (D, C) each: draws, absent cells.
    gains, opened = {}, {}
    for k, found in by_k.items():
        gains[str(k)] = np.array(
            [
                [_mean(draw["synthetic"], [cell]) - _mean(draw["balanced"], [cell]) for cell in of.absent_cells]
                for draw in found
            ]
        )
        shown = [np.mean([np.array(one) for one in shares.values()], axis=0) for shares in accepted[k]]
        opened[str(k)] = np.array([[_lets_through(k, *cell) for cell in cells.tolist()] for cells in shown])
    gains["all"] = np.concatenate(list(gains.values()), axis=1)
    opened["all"] = np.concatenate(list(opened.values()), axis=1)
    for title, gained in gains.items():
        is_open = opened[title]
        through, refused = _means_over(gained, is_open), _means_over(gained, ~is_open)
        differences = [through[draw] - refused[draw] for draw in through.keys() & refused.keys()]
        counts = f"{is_open.sum()} | {_interval(through.values())} | {(~is_open).sum()} | {_interval(refused.values())}"
        lines.append(f"| {title} | {counts} | {_interval(differences)} | {_interval(gained.mean(axis=1))} |")
    return "\n".join(lines)


def _lets_through(k: int, shows_label: float, shows_attributes: float) -> bool:
    """Whether the gate of the product draws a group with k real images."""
    gate = GroupGate(
        group="", real=k, candidates=1, shows_label=shows_label, shows_attributes=shows_attributes, floor=_FLOOR
    )
    return gate.is_open


def _means_over(gained: NDArray[np.float64], side: NDArray[np.bool_]) -> dict[int, float]:
    """Draw -> mean gain of its cells on one side of the gate, of the draws that have any there."""
    return {draw: float(gained[draw, cells].mean()) for draw, cells in enumerate(side) if cells.any()}


def _interval(values: Iterable[float]) -> str:
    """Mean and interval over draws; "-" for no draw."""
    values = list(values)
    return _shown(over_draws(values)) if values else "-"


def _correlations(
    of: Construction, found: Sequence[Found], best: Sequence[str], facts: Mapping[int, Shares]
) -> list[str]:
    """How the gains of single cells go with the share accepted there, by whom it is accepted."""
    gains = {
        title: [
            _mean(draw["synthetic"], [cell]) - _mean(draw[rival], [cell])
            for draw, rival in zip(found, rivals, strict=True)
            for cell in of.absent_cells
        ]
        for title, rivals in (("the best real recipe", best), ("balanced", ["balanced"] * len(found)))
    }
    lines = []
    for key, who in (("accepted", "the classifiers of the training images"), ("oracle", "the oracle")):
        shares = [np.mean([np.array(one)[:, :2] for one in fact[key].values()], axis=0) for fact in facts.values()]
        accepted = np.concatenate(shares).min(axis=1)
        told = []
        for title, gained in gains.items():
            known = len(set(gained)) > 1 and len(set(accepted.tolist())) > 1
            of_all = stats.spearmanr(accepted, gained) if known else None
            told.append(
                f"{title} -" if of_all is None else f"{title} {of_all.statistic:+.2f} (p = {of_all.pvalue:.2g})"
            )
        lines.append(f"- accepted by {who}, over {len(accepted)} cells, and gain over {', over '.join(told)}")
    return ["Rank correlation (Spearman) of the share", "", *lines]


def _over_cells(
    of: Construction, found: Sequence[Found], chosen: Sequence[NDArray[np.bool_]], rivals: Sequence[str]
) -> str:
    """The gain of "synthetic" over a rival in some cells of every draw that has any."""
    gains = []
    for draw, mine, rival in zip(found, chosen, rivals, strict=True):
        cells = np.array(of.absent_cells)[mine].tolist()
        if cells:
            gains.append(_mean(draw["synthetic"], cells) - _mean(draw[rival], cells))
    return _interval(gains)


def _mean(answers: Sequence[Answers], cells: Sequence[int] | range) -> float:
    return float(np.mean([one.accuracy(list(cells)) for one in answers]))


def _chosen(draw: Found, names: Sequence[str], *, with_absent: bool) -> str:
    return max(names, key=lambda name: np.mean([one.validated(with_absent=with_absent) for one in draw[name]]))


def _shown(estimate: tuple[float, float, float]) -> str:
    mean, low, high = estimate
    return f"{mean:.1f}" if np.isnan(low) else f"{mean:.1f} ({low:.1f} ... {high:.1f})"
