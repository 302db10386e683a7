"""Which real image a sample varies."""

import numpy as np
import pytest

from minority.sampling.edit_sources import choose_sources

REAL_GROUPS = np.repeat([0, 1, 2, 3], 10)
LABELS = [0, 0, 1, 1]


def choose(indices, group, **how):
    groups = [group] * len(indices)
    return choose_sources(3, indices, groups, real_groups=REAL_GROUPS, group_labels=LABELS, **how)


@pytest.mark.parametrize(("among", "expected"), [("group", {0}), ("label", {1}), ("other_groups", {1, 2, 3})])
def test_sources_are_of_the_groups_that_are_asked_for(among, expected):
    found = choose(range(60), 0, among=among)

    assert set(REAL_GROUPS[found]) == expected
    assert len(set(found.tolist())) >= 8


@pytest.mark.parametrize("among", ["group", "label", "other_groups"])
def test_sources_are_a_function_of_seed_and_index(among):
    whole = choose(range(40), 0, among=among)

    np.testing.assert_array_equal(choose(range(7, 9), 0, among=among), whole[7:9])
    assert not np.array_equal(choose(range(40, 80), 0, among=among), whole)


def test_images_without_a_mask_are_passed_over_where_masks_are_redrawn():
    has_mask = np.arange(40) % 10 == 3

    found = choose(range(30), 0, among="other_groups", has_mask=has_mask)

    assert set(found.tolist()) == {13, 23, 33}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"among": "label"}, "label 1 has no real image outside group 2; set edit.sources to group"),
        ({"among": "other_groups"}, "there is no real image outside group 2; set edit.sources to group"),
        ({"has_mask": np.zeros(2, dtype=bool)}, "group 2 has no real image with a mask.*leave edit.masked out"),
    ],
)
def test_a_group_that_nothing_can_be_varied_for_is_refused(how, says):
    with pytest.raises(ValueError, match=says):
        choose_sources(0, [0], [2], real_groups=np.array([2, 2]), group_labels=LABELS, **how)


def test_a_group_without_images_is_refused():
    with pytest.raises(ValueError, match="group 1 has no real image that could be varied; leave edit out or add some"):
        choose_sources(0, [0], [1], real_groups=np.array([2, 2]), group_labels=LABELS)
