"""What `minority headroom` foretold of each group, beside what the synthetic images brought it."""

from dataclasses import dataclass
from math import isnan

from tasks.inputs.stored_headroom import StoredHeadroom
from tasks.report.verdict import Downstream


@dataclass(frozen=True, kw_only=True)
class Reached:
    """One group.

    Attributes:
        group: Its name.
        images: Real images that headroom was measured with.
        gain: What twice as many real images were expected to bring to its accuracy; NaN where it was not measured.
        low, high: The 95 % interval of that; the upper end is one for synthetic images, too.
        verdict: What headroom said of it.
        reached: What the main arm brought over the baseline, mean over seeds; NaN where the group was not tested.
    """

    group: str
    images: int
    gain: float
    low: float
    high: float
    verdict: str
    reached: float


@dataclass(frozen=True, kw_only=True)
class HeadroomFindings:
    """All groups.

    Attributes:
        recipe: How headroom's classifiers were trained.
        seeds: Trainings at each size.
        arm: The arm with synthetic images that is looked at; None where none was compared.
        baseline: The arm that it is compared with.
        groups: Group by group.
    """

    recipe: str
    seeds: int
    arm: str | None
    baseline: str | None
    groups: list[Reached]


def beside_headroom(found: StoredHeadroom | None, downstream: Downstream | None) -> HeadroomFindings | None:
    """Put the two side by side; None where headroom was not measured on these images.

    The baseline is headroom's own recipe where it was compared, else the strongest without synthetic images.
    """
    if found is None:
        return None
    arm = None if downstream is None else downstream.main
    baseline = None
    if downstream is not None and arm is not None:
        baseline = found.recipe if found.recipe in downstream.arms else downstream.rival
    reached: dict[str, float] = {}
    if downstream is not None and arm is not None and baseline is not None:
        with_images, without = downstream.arms[arm].groups, downstream.arms[baseline].groups
        reached = {name: with_images[name].value - without[name].value for name in with_images}
    unmeasured = float("nan")
    groups = []
    for group in found.groups:
        known = group.verdict != "too few to measure" and not isnan(group.gain)
        low, high = group.interval if known else (unmeasured, unmeasured)
        groups.append(
            Reached(
                group=group.group,
                images=group.images,
                gain=group.gain if known else unmeasured,
                low=low,
                high=high,
                verdict=group.verdict,
                reached=reached.get(group.group, unmeasured),
            )
        )
    return HeadroomFindings(recipe=found.recipe, seeds=found.seeds, arm=arm, baseline=baseline, groups=groups)
