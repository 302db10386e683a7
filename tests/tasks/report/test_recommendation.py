"""What a report says first: one of four things, by rule."""

from types import MappingProxyType

import pytest

from minority.downstream.comparison import Difference
from minority.downstream.cost import ArmCost
from tasks.report.findings import Estimate
from tasks.report.recommendation import recommend
from tasks.report.verdict import ArmFindings, Downstream

NO_ESTIMATE = Estimate(value=0.5, low=0.4, high=0.6)
PLENTY = {"group=a": 60, "group=b": 12}


def arm(name, *, image=1e6, generative=False):
    return ArmFindings(
        name=name,
        generative=generative,
        source="minority" if generative else None,
        num_synthetic=0,
        setting="",
        validated=0.5,
        cost=ArmCost(training=1e9, drawing=0.0, image=image),
        means=MappingProxyType({"balanced_accuracy": NO_ESTIMATE}),
        groups={},
        figures={},
    )


def comparison(*, rival="mixup", gain=(0.05, 0.02, 0.08), costlier=None, seeds=3, main="filled minority"):
    def gap(name, mean, low, high):
        return {
            "balanced_accuracy": Difference(
                arm=main,
                baseline=name,
                metric="balanced_accuracy",
                mean=mean,
                low=low,
                high=high,
                num_seeds=seeds,
                confidence=0.95,
            )
        }

    arms = [arm(main, generative=True), arm("real"), arm(rival), arm("zero-shot", image=4e8)]
    pairwise = {"real": gap("real", 0.2, 0.1, 0.3), rival: gap(rival, *gain)}
    if costlier is not None:
        pairwise["zero-shot"] = gap("zero-shot", *costlier)
    return Downstream(
        arms={each.name: each for each in arms},
        metrics=("balanced_accuracy",),
        num_seeds=seeds,
        trainings=1,
        budget={},
        test_images=100,
        validation_images=100,
        main=main,
        rival=rival,
        costlier=() if costlier is None else ("zero-shot",),
        gains={},
        pairwise=pairwise,
        unfinished=(),
    )


def test_a_recipe_that_is_ahead_publishes_shards():
    found = recommend(comparison(), PLENTY)

    assert found.action == "publish balanced shards, and train by the recipe filled minority"
    assert "+5.0 points balanced accuracy (2.0 ... 8.0) against mixup" in found.evidence
    assert "This is one draw" in found.changed_by


@pytest.mark.parametrize(
    ("rival", "action"),
    [
        ("oversampling", "publish weights for the real images"),
        ("class-balanced-loss", "publish weights for the real images"),
        ("mixup", "use the recipe mixup without synthetic images"),
        ("linear probe", "use the recipe linear probe without synthetic images"),
    ],
)
def test_a_level_recipe_leaves_the_synthetic_images_out(rival, action):
    found = recommend(comparison(rival=rival, gain=(0.01, -0.02, 0.04)), PLENTY)

    assert found.action.startswith(action)
    assert "an interval that does not exclude 0" in found.evidence


def test_few_real_images_are_collected_where_drawing_is_not_ahead():
    found = recommend(comparison(gain=(0.01, -0.02, 0.04)), PLENTY | {"group=c": 2, "group=d": 4})

    assert found.action == "collect images: 3 of group=c, 1 of group=d; until then use mixup"


def test_few_real_images_do_not_matter_where_drawing_is_ahead():
    assert recommend(comparison(), PLENTY | {"group=c": 2}).action.startswith("publish balanced shards")


def test_a_costlier_classifier_that_is_better_is_named_with_its_price():
    found = recommend(comparison(costlier=(-0.02, -0.03, -0.01)), PLENTY)

    assert found.action.startswith("publish balanced shards")
    assert "Zero-shot, which draws nothing, is ahead of it (+2.0 points), but asks 400 times as much" in found.evidence
    assert "drawing distils it into a network that is cheaper to run" in found.evidence


def test_one_seed_decides_nothing_and_no_comparison_says_nothing():
    assert recommend(comparison(seeds=1), PLENTY).action.startswith("compare with at least two seeds")
    assert recommend(None, PLENTY) is None
