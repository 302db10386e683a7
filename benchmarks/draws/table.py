"""The study's result in words: every recipe over draws, and drawn images against every family without them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.draws.construction import DRAWN, REAL, Construction
from benchmarks.draws.results import DrawResult
from benchmarks.draws.verdict_over_draws import DrawDifference, DrawMetric, best_on_validation, figure, over_draws
from minority.downstream.cost import in_words


def markdown(construction: Construction, results: Sequence[DrawResult], *, lacking: str | None = None) -> str:
    """The whole report; says what is missing."""
    parts = [f"## {construction.name}\n\n{construction.says}\n"]
    if lacking is not None:
        parts.append(f"Not run here: {lacking}\n")
    if results:
        sizes = ", ".join(map(str, results[0].sizes))
        parts.append(
            f"{len(results)} draws; training images a class, commonest first: {sizes}. Test images a draw: "
            f"{len(results[0].parts)}.\n"
        )
    parts.append(arm_table(construction, results))
    if results:
        parts += [family_table(construction, results), chosen_lines(construction, results)]
    return "\n".join(parts)


def arm_table(construction: Construction, results: Sequence[DrawResult]) -> str:
    """Every recipe: means over draws, the lowest and the highest draw, and what it costs."""
    rows = []
    for arm in construction.arms():
        there = [found for found in results if arm.name in found.answers]
        row = {"recipe": arm.name}
        for title, metric in (("balanced, %", "balanced_accuracy"), ("worst class, %", "worst_class_accuracy")):
            row[title] = _range([figure(found.answers[arm.name], metric) for found in there])  # type: ignore[arg-type]
        row["on validation, %"] = _range([found.validated[arm.name] for found in there])
        cost = there[0].costs[arm.name] if there else None
        row["training"] = "" if cost is None else in_words(cost.training)
        row["drawing"] = "" if cost is None else in_words(cost.drawing)
        row["classifying an image"] = "" if cost is None else in_words(cost.image)
        if construction.published:
            row["published"] = construction.published.get(arm.name, "")
        rows.append(row)
    for name, words in construction.published.items():
        if name not in {arm.name for arm in construction.arms()}:
            rows.append({"recipe": name, "published": words})
    table = pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)
    return f"{table}\n\nMean over draws (lowest ... highest draw). Costs are multiply-adds.\n"


def family_table(construction: Construction, results: Sequence[DrawResult]) -> str:
    """The recipe with drawn images that validation chose, draw by draw, against that of every other family.

    Where a construction has no such recipe, that on real images alone is in its place.
    """
    rows = []
    evaluated = judged_family(construction)
    for family, names in construction.families().items():
        if family == evaluated:
            continue
        row = {f"{evaluated} against": family}
        for title, metric in (
            ("balanced, points", "balanced_accuracy"),
            ("worst class, points", "worst_class_accuracy"),
        ):
            found = against(construction, results, names, metric=metric)  # type: ignore[arg-type]
            row[title] = in_points(found)
            if metric == "balanced_accuracy":
                verdict = found.verdict
        row["verdict"] = verdict
        rows.append(row)
    return (
        f"{pd.DataFrame(rows).to_markdown(index=False)}\n\nBoth recipes are those that validation chose in the draw. "
        "95 % over draws, seeds and test images; the verdict goes by balanced accuracy.\n"
    )


def against(
    construction: Construction,
    results: Sequence[DrawResult],
    names: Sequence[str],
    *,
    metric: DrawMetric = "balanced_accuracy",
) -> DrawDifference:
    """The chosen recipe with drawn images minus the chosen one among `names`, over draws."""
    own = construction.families()[judged_family(construction)]
    evaluated = [found.answers[best_on_validation(found.validated, own)] for found in results]
    rivals = [found.answers[best_on_validation(found.validated, names)] for found in results]
    return over_draws(evaluated, rivals, metric=metric)


def judged_family(construction: Construction) -> str:
    """The family that is compared with the others."""
    return DRAWN if construction.families()[DRAWN] else REAL


def chosen_lines(construction: Construction, results: Sequence[DrawResult]) -> str:
    """Which recipe validation chose, draw by draw."""
    lines = []
    for family, names in construction.families().items():
        if not names:
            continue
        chosen = [best_on_validation(found.validated, names) for found in results]
        lines.append(f"- {family}: {', '.join(chosen)}")
    return "Chosen, draw by draw:\n\n" + "\n".join(lines) + "\n"


def in_points(found: DrawDifference) -> str:
    """For example "+3.0 (1.7 ... 4.3)"."""
    if np.isnan(found.low):
        return f"{100 * found.mean:+.1f} (one draw)"
    return f"{100 * found.mean:+.1f} ({100 * found.low:.1f} ... {100 * found.high:.1f})"


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{100 * np.mean(values):.1f} ({100 * min(values):.1f} ... {100 * max(values):.1f})"
