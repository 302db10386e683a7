import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.splits.stratified import SplitSettings
from tasks.augment.planning import MOST_TASKS, Tally, batches, plan_baseline, plan_real, plan_round, quotas, tally
from tasks.config.sections import DatasetConfig, PlanConfig
from tasks.inputs.real_data import load_real_data

CONFIG = PlanConfig(expected_yield=0.5, unit_size=10, candidates_per_image=8, max_rounds=3)


@pytest.fixture(scope="module")
def digits():
    return load_real_data(DatasetConfig(reader="digits", split=SplitSettings(test_fraction=0.4, imbalance=20.0)))


def fresh(wanted):
    return [Tally(missing=count) for count in wanted]


def first_round(wanted, config=CONFIG):
    return plan_round(config, fresh(wanted), round_number=0, first_index=0, wanted=wanted)


def samples(units):
    return [(index, group) for unit in units for index, group in zip(unit.indices, unit.groups, strict=True)]


PILOT = PlanConfig(expected_yield=0.1, unit_size=10, candidates_per_image=12, pilot=True)


def test_a_pilot_draws_one_candidate_an_image_that_is_wanted_whatever_yield_is_expected():
    assert Counter(first_round([70, 0, 30], PILOT).groups.tolist()) == {0: 70, 2: 30}


def test_a_pilot_of_few_images_has_enough_candidates_to_tell_and_no_more_than_the_budget():
    assert first_round([6, 2], PILOT).num_samples == 64
    assert first_round([2, 0], PILOT).num_samples == 24


def test_a_run_goes_on_from_a_pilot_by_what_it_kept():
    after = [Tally(missing=60, candidates=70, accepted=10), Tally(missing=30, candidates=30, accepted=0)]

    planned = plan_round(PILOT, after, round_number=1, first_index=100, wanted=[70, 30])

    # 60 at a yield of (10 + 10 x 0.1) of (70 + 10) and 30 at (0 + 1) of (30 + 10) are 437 + 1,200; 1,100 are left.
    assert Counter(planned.groups.tolist()) == {0: 437 * 1100 // 1637, 1: 1200 * 1100 // 1637}


@pytest.mark.parametrize(("pilot", "goes_on"), [(True, False), (False, True)])
def test_a_run_ends_where_a_pilot_kept_nothing(pilot, goes_on):
    config = PILOT.model_copy(update={"pilot": pilot})
    nothing = [Tally(missing=70, candidates=70), Tally(missing=30, candidates=30)]

    planned = plan_round(config, nothing, round_number=1, first_index=100, wanted=[70, 30])

    assert (planned is not None) == goes_on


def test_quotas_fill_every_group_up_to_the_commonest(digits):
    counts = Counter(digits.train.groups)

    wanted = quotas(digits, PlanConfig())

    assert [count + counts[group] for count, group in zip(wanted, digits.groups, strict=True)] == [97] * 10


def test_a_given_quota_asks_nothing_of_groups_that_have_more(digits):
    counts = Counter(digits.train.groups)

    wanted = quotas(digits, PlanConfig(quota=20))

    assert wanted == [max(0, 20 - counts[group]) for group in digits.groups]
    assert min(wanted) == 0 < max(wanted)


def test_the_first_round_asks_what_the_expected_yield_needs():
    units = first_round([0, 5, 20])

    assert Counter(group for _, group in samples(units)) == {1: 10, 2: 40}


def test_only_the_groups_that_are_named_are_filled(digits):
    counts, chosen = Counter(digits.train.groups), digits.groups[7:]

    wanted = quotas(digits, PlanConfig(quota=200, groups=tuple(chosen)))

    assert wanted == [200 - counts[group] if group in chosen else 0 for group in digits.groups]


def test_a_spent_budget_is_shared_by_what_groups_would_have_asked_for():
    config = PlanConfig(expected_yield=0.1, unit_size=10, candidates_per_image=5)

    units = plan_round(config, fresh([3, 9]), round_number=0, first_index=0, wanted=[3, 9])

    assert Counter(group for _, group in samples(units)) == {0: 15, 1: 45}  # of 120 candidates, 60 are allowed


@pytest.mark.parametrize(("particle_group", "candidates"), [(1, 20), (3, 21), (8, 24)])
def test_a_sparse_group_gets_whole_particle_groups_enough_to_decide(particle_group, candidates):
    config = PlanConfig(expected_yield=0.5, unit_size=10, candidates_per_image=8)

    units = plan_round(
        config,
        fresh([2, 30]),
        round_number=0,
        first_index=0,
        wanted=[2, 30],
        particle_group=particle_group,
        sparse=[True, False],
    )

    assert Counter(group for _, group in samples(units))[0] == candidates


def test_what_earlier_rounds_drew_is_taken_off_the_budget():
    config = PlanConfig(expected_yield=0.1, unit_size=10, candidates_per_image=5, max_rounds=9)
    seen = [Tally(missing=10, candidates=37, accepted=0)]

    units = plan_round(config, seen, round_number=1, first_index=37, wanted=[10])

    assert units.num_samples == 50 - 37


def test_units_have_the_set_size_and_own_names_and_number_samples_without_gaps():
    units = plan_round(CONFIG, fresh([3, 9]), round_number=1, first_index=100, wanted=[3, 9])

    assert [unit.num_samples for unit in units] == [10, 10, 4]
    assert [unit.unit for unit in units] == ["minority-01-00000", "minority-01-00001", "minority-01-00002"]
    assert [index for index, _ in samples(units)] == list(range(100, 124))


def test_every_unit_has_the_groups_in_proportion():
    units = first_round([10, 40])

    assert all(Counter(unit.groups) == {0: 2, 1: 8} for unit in units)


@given(
    missing=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    particle_group=st.integers(1, 5),
    unit_size=st.integers(1, 12),
    candidates_per_image=st.integers(1, 4),
)
def test_particle_groups_have_one_group_and_lie_whole_in_one_unit(
    missing, particle_group, unit_size, candidates_per_image
):
    config = PlanConfig(expected_yield=0.5, unit_size=unit_size, candidates_per_image=candidates_per_image)

    units = plan_round(
        config, fresh(missing), round_number=0, first_index=0, wanted=missing, particle_group=particle_group
    )

    if units is None:
        assert sum(missing) * candidates_per_image < particle_group * max(1, len(missing))
        return
    assert units.num_samples % particle_group == 0
    assert units.num_samples <= sum(missing) * candidates_per_image
    groups_of, units_of = {}, {}
    for unit in units:
        for index, group in zip(unit.indices, unit.groups, strict=True):
            groups_of.setdefault(index // particle_group, set()).add(group)
            units_of.setdefault(index // particle_group, set()).add(unit.unit)
    assert all(len(groups) == 1 for groups in groups_of.values())
    assert all(len(names) == 1 for names in units_of.values())


def test_a_later_round_asks_by_the_yield_that_was_seen():
    seen = [Tally(missing=10, candidates=190, accepted=35)]  # with ten imagined ones at 0.5: 40 of 200

    units = plan_round(CONFIG, seen, round_number=1, first_index=190, wanted=[45])

    assert len(samples(units)) == 10 / 0.2


@pytest.mark.parametrize(
    ("tallies", "round_number"),
    [
        ([Tally(missing=0, candidates=9, accepted=9)], 1),
        ([Tally(missing=5, candidates=9, accepted=4)], 3),  # the fourth round of three
        ([Tally(missing=1, candidates=72, accepted=8)], 1),  # eight candidates for each of nine images are spent
    ],
    ids=["quotas full", "rounds over", "budget spent"],
)
def test_planning_ends(tallies, round_number):
    assert plan_round(CONFIG, tallies, round_number=round_number, first_index=0, wanted=[9]) is None


@given(
    wanted=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    expected_yield=st.floats(0.01, 1),
    budget=st.floats(1, 9),
    true_yield=st.integers(0, 4),
)
def test_all_rounds_together_stay_within_the_budget(wanted, expected_yield, budget, true_yield):
    config = PlanConfig(expected_yield=expected_yield, candidates_per_image=budget, unit_size=7, max_rounds=6)
    tallies, drawn, round_number = fresh(wanted), 0, 0

    while units := plan_round(config, tallies, round_number=round_number, first_index=drawn, wanted=wanted):
        assert [index for index, _ in samples(units)] == list(range(drawn, drawn + len(samples(units))))
        drawn += len(samples(units))
        asked = Counter(group for _, group in samples(units))
        tallies = [
            Tally(
                missing=max(0, t.missing - asked[g] * true_yield // 4),
                candidates=t.candidates + asked[g],
                accepted=t.accepted + asked[g] * true_yield // 4,
            )
            for g, t in enumerate(tallies)
        ]
        round_number += 1

    assert drawn <= budget * sum(wanted)
    assert round_number <= 6


def test_the_baseline_shares_index_and_group_with_candidates_of_the_first_round():
    wanted = [3, 0, 7]
    units = first_round(wanted)

    baseline = plan_baseline(CONFIG, units, wanted)

    assert set(samples(baseline)) < set(samples(units))
    assert Counter(group for _, group in samples(baseline)) == {0: 3, 2: 7}
    assert {unit.sampler for unit in baseline} == {"plain"}


def test_every_real_training_image_is_planned_once(digits):
    units = plan_real(CONFIG, digits)

    assert [index for index, _ in samples(units)] == list(range(len(digits.train)))
    assert [group for _, group in samples(units)] == digits.train_groups.tolist()
    assert len(units) == math.ceil(len(digits.train) / 10)
    assert units[0].unit == "real-00-00000"


def test_a_tally_counts_by_group():
    rows = {"group": ["a", "b", "a", "a"], "kept": [True, False, False, True], "passed": [True, False, True, True]}

    tallies = tally([5, 2, 1], rows, ["a", "b", "c"])

    assert tallies == [
        Tally(missing=3, candidates=3, accepted=3),
        Tally(missing=2, candidates=1, accepted=0),
        Tally(missing=1, candidates=0, accepted=0),
    ]


def many_units(count):
    (wanted,) = [[count]]
    return first_round(wanted, PlanConfig(expected_yield=1, unit_size=1))


@pytest.mark.parametrize(
    ("units", "units_a_task", "tasks"),
    [(1, None, 1), (MOST_TASKS, None, MOST_TASKS), (MOST_TASKS + 1, None, 65), (10_000, None, 127), (10, 4, 3)],
)
def test_task_runs_share_the_units_of_a_round_and_stay_few(units, units_a_task, tasks):
    work = batches(many_units(units), units_a_task=units_a_task)

    assert len(work) == tasks
    assert [batch.first + i for batch in work for i in range(batch.count)] == list(range(units))


def test_a_task_run_is_named_by_its_units():
    one, several = (batches(many_units(10), units_a_task=size) for size in (1, 4))

    assert [batch.name for batch in one[:2]] == ["minority-00-00000", "minority-00-00001"]
    assert [batch.name for batch in several] == [
        "minority-00-00000..00003",
        "minority-00-00004..00007",
        "minority-00-00008..00009",
    ]


def test_a_plan_has_no_units_beyond_its_last():
    plan = first_round([5])

    with pytest.raises(IndexError, match=r"minority-00 has 1 units, asked for number 1"):
        plan[1]
