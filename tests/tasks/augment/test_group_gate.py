"""Groups with few or no real images are let through or refused by what their first samples show."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from tasks.augment.group_gate import gates_of
from tasks.augment.planning import GATE_CANDIDATES, Tally, plan_round, quotas
from tasks.config.sections import PlanConfig

GROUPS = ["shape=a,mark=0", "shape=a,mark=1", "shape=b,mark=0", "shape=b,mark=1"]


def rows(group, *, attributes, label, count=40, round_number=0):
    shows = [np.arange(count) < round(share * count) for share in (label, attributes)]
    return {
        "group": [group] * count,
        "round": [round_number] * count,
        "shows_label": shows[0].tolist(),
        "shows_attributes": shows[1].tolist(),
    }


def table(*parts):
    return pa.table({name: [value for part in parts for value in part[name]] for name in parts[0]})


def gates(*parts, floor=0.5):
    found = gates_of(table(*parts), groups=GROUPS, sparse=[False, True, True, False], real={GROUPS[2]: 3}, floor=floor)
    return {gate.group: gate for gate in found}


def test_a_group_whose_attribute_is_lost_is_refused_by_name_with_what_to_do():
    found = gates(
        rows(GROUPS[0], attributes=0.0, label=0.0),
        rows(GROUPS[1], attributes=0.05, label=0.9),
        rows(GROUPS[2], attributes=0.8, label=0.6),
    )

    assert set(found) == {GROUPS[1], GROUPS[2]}  # groups with enough real images have no gate
    assert not found[GROUPS[1]].is_open
    assert found[GROUPS[1]].advice == (
        "shape=a,mark=1 is refused: of 40 samples 5% show the attributes asked for, 50% must; collect about 5 real "
        "images of it and oversample them."
    )
    assert found[GROUPS[2]].is_open
    assert (found[GROUPS[2]].real, found[GROUPS[1]].real) == (3, 0)


@pytest.mark.parametrize("group", GROUPS[1:3])
def test_a_lost_label_is_looked_for_too(group):
    found = gates(rows(group, attributes=1.0, label=0.3))[group]

    assert not found.is_open
    assert "30% show the label asked for" in found.advice


def test_a_group_with_some_real_images_is_not_refused_by_its_attributes():
    found = gates(*(rows(group, attributes=0.05, label=0.9) for group in GROUPS[1:3]))

    assert (found[GROUPS[1]].real, found[GROUPS[1]].is_open) == (0, False)
    assert (found[GROUPS[2]].real, found[GROUPS[2]].is_open) == (3, True)
    assert found[GROUPS[2]].advice == (
        "shape=b,mark=0, which has 3 real images, is drawn: of 40 samples 5% show the attributes asked for and 90% the "
        "label."
    )


def test_later_rounds_do_not_change_the_word_of_the_first():
    first = rows(GROUPS[1], attributes=0.6, label=0.6)

    found = gates(first, rows(GROUPS[1], attributes=0.0, label=0.0, round_number=1))

    assert found == gates(first)


@pytest.mark.parametrize(("floor", "is_open"), [(0.6, True), (0.625, False)])
def test_the_floor_is_a_setting(floor, is_open):
    assert gates(rows(GROUPS[1], attributes=0.6, label=1.0), floor=floor)[GROUPS[1]].is_open is is_open


def test_the_first_round_draws_enough_of_a_sparse_group_to_decide():
    config, wanted = PlanConfig(expected_yield=1.0), [0, 2, 2, 40]
    tallies = [Tally(missing=count) for count in wanted]

    plain, gated = (
        plan_round(config, tallies, round_number=0, first_index=0, wanted=wanted, sparse=sparse)
        for sparse in ((), (False, True, True, False))
    )
    second = plan_round(
        config, tallies, round_number=1, first_index=0, wanted=wanted, sparse=(False, True, True, False)
    )

    assert np.bincount(plain.groups, minlength=4).tolist() == [0, 2, 2, 40]
    assert np.bincount(gated.groups, minlength=4).tolist() == [0, GATE_CANDIDATES, GATE_CANDIDATES, 40]
    assert np.bincount(second.groups, minlength=4).tolist() == [0, 2, 2, 40]


def test_a_list_of_groups_fills_these_alone():
    train = SimpleNamespace(groups=[GROUPS[0]] * 9 + [GROUPS[3]] * 4)
    real = SimpleNamespace(groups=GROUPS, train=train)

    assert quotas(real, PlanConfig(groups="all")) == [0, 9, 9, 5]
    assert quotas(real, PlanConfig(groups=(GROUPS[1],))) == [0, 9, 0, 0]
