"""What to do, in the first line of a report: one of four things, by rule, with its evidence and what would change it.

The rule, in this order; "ahead" means that a 95 % interval lies above 0:

    1. Publish balanced shards: the recipe with synthetic images that validation chose is ahead of the best recipe that
       draws nothing and costs no more to run (an image at most ten times the multiply-adds).
    2. Collect images: groups have fewer than five real training images, and drawing is not ahead. Five were worth as
       much as drawing wherever that was measured.
    3. Publish weights for the real images: the best recipe that draws nothing changes how often, or how much, images
       count, and is level with or ahead of plain training.
    4. Use this recipe on real images alone: it is any other.

A costlier classifier that is better than all of them, such as the backbone asked zero-shot, is named beside it: then
drawing distils it into a network that is cheaper to run.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minority.downstream.arms import REAL_ARMS
from minority.downstream.comparison import verdict
from minority.downstream.cost import in_words
from tasks.report.verdict import AHEAD, BASE_ARM, BEHIND, LEVEL, Downstream, name_of_arm, standing

#: Real images a group from which on nothing was ever gained by drawing for it.
ENOUGH = 5
_MOST_NAMED = 6
_WEIGHING = {arm.name for arm in REAL_ARMS if arm.mixup is None and arm.randaugment is None and not arm.last_layer} - {
    BASE_ARM
}


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What to do.

    Attributes:
        action: In a few words.
        evidence: Why, with intervals.
        changed_by: What would lead to another one.
    """

    action: str
    evidence: str
    changed_by: str

    def to_text(self) -> str:
        """In one paragraph."""
        return f"Recommendation: {self.action}. {self.evidence} {self.changed_by}"


def recommend(downstream: Downstream | None, real: Mapping[str, int]) -> Recommendation | None:
    """What to do by what the classifiers say; None where none was compared with another.

    Args:
        downstream: The comparison.
        real: Group -> real training images.
    """
    if downstream is None or downstream.rival is None:
        return None
    if downstream.num_seeds < 2:
        return Recommendation(
            action="compare with at least two seeds before anything is decided",
            evidence="One training a recipe has no interval.",
            changed_by="Raise downstream.seeds.",
        )
    ahead = downstream.main is not None and _stands(downstream, downstream.rival) == AHEAD
    if ahead:
        return Recommendation(
            action=f"publish balanced shards, and train by the recipe {name_of_arm(downstream.main or '')}",
            evidence=_evidence(downstream),
            changed_by=_changed_by(
                downstream, "Another draw may differ; more real images of the rare groups make drawing worth less."
            ),
        )
    few = {name: count for name, count in real.items() if count < ENOUGH}
    recipe = name_of_arm(downstream.rival)
    if few:
        named = ", ".join(f"{ENOUGH - count} of {name}" for name, count in list(few.items())[:_MOST_NAMED])
        more = "" if len(few) <= _MOST_NAMED else f" and of {len(few) - _MOST_NAMED} more groups"
        return Recommendation(
            action=f"collect images: {named}{more}; until then use {recipe}",
            evidence=_evidence(downstream),
            changed_by=f"With {ENOUGH} real images a group, oversample them; drawing gained nothing from there on.",
        )
    if downstream.rival in _WEIGHING:
        return Recommendation(
            action=f"publish weights for the real images (minority weights), as {recipe} does, and no synthetic ones",
            evidence=_evidence(downstream),
            changed_by=_changed_by(downstream, "A backbone that saw more than these images may change it."),
        )
    return Recommendation(
        action=f"use the recipe {recipe} without synthetic images",
        evidence=_evidence(downstream),
        changed_by=_changed_by(downstream, "A backbone that saw more than these images may change it."),
    )


def _stands(downstream: Downstream, rival: str) -> str:
    return standing(downstream.pairwise[rival][downstream.metric])


def _evidence(downstream: Downstream) -> str:
    """The chosen recipe with synthetic images against the rival, plain training, and what costs more to run."""
    if downstream.main is None:
        best = name_of_arm(downstream.rival or "")
        return f"No recipe with synthetic images was compared; {best} did best on validation."
    against = [name for name in dict.fromkeys((downstream.rival, BASE_ARM)) if name is not None]
    differences = [downstream.pairwise[name][downstream.metric] for name in against if name in downstream.pairwise]
    claims = [verdict(differences[0]), *(verdict(other, name_metric=False) for other in differences[1:])]
    text = f"{name_of_arm(downstream.main)}: {'; '.join(claims)}."
    for name in downstream.costlier:
        text += f" {_costlier(downstream, name)}"
    return text


def _costlier(downstream: Downstream, name: str) -> str:
    """A better classifier that costs more to run: level, ahead or behind, and how much more."""
    assert downstream.main is not None, "there are costlier ones of it"
    cost, of_main = downstream.arms[name].cost.image, downstream.arms[downstream.main].cost.image
    times = f"{cost / of_main:,.0f} times as much" if of_main and np.isfinite(cost) else "more"
    words = {AHEAD: "is behind it", BEHIND: "is ahead of it", LEVEL: "is level with it"}[_stands(downstream, name)]
    gap = -downstream.pairwise[name][downstream.metric].mean
    distils = "" if _stands(downstream, name) == AHEAD else ": drawing distils it into a network that is cheaper to run"
    return (
        f"{name_of_arm(name).capitalize()}, which draws nothing, {words} ({100 * gap:+.1f} points), but asks {times} "
        f"an image ({in_words(cost)} multiply-adds){distils}."
    )


def _changed_by(downstream: Downstream, text: str) -> str:
    return f"This is one draw, with an interval over {downstream.num_seeds} seeds and the test images. {text}"
