"""Which groups a run fills, and what a backbone with separate conditions is told of them."""

import numpy as np
import pytest

from minority.backbones.factors import Factor, Factors
from tasks.config.runs import AugmentConfig
from tasks.errors import InputError
from tasks.inputs.planned_groups import GroupValues, planned_real_data, sparse_groups, values_of
from tests.marked_set import make_marked_set

COUNTS = {("lying", "red"): 9, ("lying", "blue"): 7, ("standing", "red"): 6, ("standing", "blue"): 0}
FACTORS = Factors((Factor("label", ("lying", "standing")), Factor("colour", ("blue", "red"))))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_marked_set(tmp_path_factory.mktemp("bars") / "set", counts=COUNTS)


def config(dataset, **plan):
    return AugmentConfig(name="bars", dataset=dataset, backbone={"path": "nowhere"}, plan=plan)


def test_all_combinations_of_label_and_attributes_are_groups_of_a_run(dataset):
    observed, every = (planned_real_data(config(dataset, groups=groups)) for groups in ("observed", "all"))

    assert observed.groups == ["shape=lying,colour=blue", "shape=lying,colour=red", "shape=standing,colour=red"]
    assert every.groups == [*observed.groups[:2], "shape=standing,colour=blue", observed.groups[2]]
    assert every.absent == {"shape=standing,colour=blue": 1}
    assert every.group_labels == [0, 0, 1, 1]
    assert every.digest == observed.digest
    np.testing.assert_array_equal(np.bincount(every.train_groups, minlength=4), [7, 9, 0, 6])
    assert sparse_groups(every, neighbours=7) == [False, False, True, True]


def test_named_groups_are_added_and_others_refused_with_what_there_is(dataset):
    real = planned_real_data(config(dataset, groups=["shape=standing,colour=blue"]))

    assert set(real.absent) == {"shape=standing,colour=blue"}
    with pytest.raises(InputError, match=r"shape=standing,colour=green.*colour: blue, red"):
        planned_real_data(config(dataset, groups=["shape=standing,colour=green"]))


def test_a_set_without_attributes_has_nothing_to_combine():
    with pytest.raises(InputError, match="are its classes alone"):
        planned_real_data(config({"reader": "digits"}, groups="all"))


def test_a_backbone_is_told_label_and_attributes_of_every_group(dataset):
    real = planned_real_data(config(dataset, groups="all"))

    rows = GroupValues(real).rows(FACTORS)

    assert FACTORS.values(np.array(rows)).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert values_of(real.groups[2]) == {"shape": "standing", "colour": "blue"}


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        (Factors((FACTORS.factors[0], Factor("size", ("s", "l")))), "the condition size"),
        (
            Factors((Factor("label", ("standing", "lying")), FACTORS.factors[1])),
            "bring the set's classes into that order",
        ),
        (Factors((FACTORS.factors[0], Factor("colour", ("red", "green")))), "has the colour 'blue'"),
    ],
)
def test_conditions_that_are_not_those_of_the_set_are_refused(dataset, factors, says):
    real = planned_real_data(config(dataset, groups="all"))

    with pytest.raises(InputError, match=says):
        GroupValues(real).rows(factors)


def test_runs_that_fill_observed_groups_keep_their_recipe_and_their_words(dataset):
    before = config(dataset)

    for same in (config(dataset, groups="observed"), config(dataset, gate=0.5)):
        assert same.model_dump(mode="json") == before.model_dump(mode="json")
        assert same.recipe(backbone_identity="a", real_digest="b") == before.recipe(
            backbone_identity="a", real_digest="b"
        )
    assert "groups" not in before.model_dump(mode="json")["plan"]
    every = config(dataset, groups="all")
    assert every.recipe(backbone_identity="a", real_digest="b") != before.recipe(backbone_identity="a", real_digest="b")
