"""The search for sampler settings, on candidates whose yields are known."""

import math
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minority.calibration.grids import GRIDS
from minority.calibration.outcome import (
    Measured,
    best,
    floors_probability,
    ranking,
    ratio_interval,
    reaches_floors,
)
from minority.calibration.search import (
    CalibrationSettings,
    Draw,
    least_budget,
    narrow,
    next_rung,
    plan_rung,
    rung_sizes,
)
from minority.calibration.space import BASELINES, PRESENT, CalibrationSpace, SolverSteps, common_particle_group
from minority.evaluation.intervals import bootstrap_interval, wilson
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.low_density import LowDensitySettings
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.guidance.shaped_noise import ShapedNoise
from minority.neighbours.reference import RealReference
from minority.sampling.cost import expected_cost
from minority.sampling.settings import SamplerSettings


def grid(key, **axes):
    """One grid of a method, as a space takes it."""
    return (GRIDS[key](**axes),)


def nobody(parent):
    return []


def search(config, yields, validity, costs, *, seed=0, start=None, neighbours=nobody):
    """Run the rungs on Bernoulli candidates. Returns the measurements."""
    rng = np.random.default_rng(seed)
    measured = [Measured() for _ in yields]
    participants, first = list(start or range(len(yields))), 0
    sizes = rung_sizes(config, candidates=len(participants))

    def untried(parent):
        return [i for i in neighbours(parent) if measured[i].samples == 0]

    for rung, size in enumerate(sizes):
        if rung:
            most = max(m.samples for m in measured)
            survivors = [i for i, m in enumerate(measured) if m.samples == most]
            participants = next_rung(config, measured, survivors, to=size, untried=untried)
        draws = plan_rung(config, costs, measured, participants, rungs=len(sizes), first=first)
        for draw in draws:
            valid = rng.binomial(draw.count, validity[draw.candidate])
            measured[draw.candidate] += Measured(
                samples=draw.count,
                passed=rng.binomial(valid, min(1.0, yields[draw.candidate] / validity[draw.candidate])),
                valid=valid,
                evaluations=draw.count * costs[draw.candidate],
                diversity=1.0,
            )
        first = max(draw.first + draw.count for draw in draws)
    return measured


def test_a_far_better_candidate_is_found():
    config = CalibrationSettings(budget=200_000)
    yields = [0.02] * 29 + [0.2]

    measured = search(config, yields, validity=[0.9] * 30, costs=[50.0] * 30)

    assert best(config.floors, measured, objective="per_evaluation") == 29
    assert best(config.floors, measured, objective="yield") == 29


def test_both_objectives_are_searched_whichever_the_preset_is_made_of():
    # The last one keeps most of its samples, but at five times the cost of the one before.
    yields, costs = [0.02] * 28 + [0.15, 0.35], [50.0] * 28 + [20.0, 100.0]
    for objective in ("per_evaluation", "yield"):
        config = CalibrationSettings(budget=400_000, objective=objective)

        measured = search(config, yields, validity=[0.9] * 30, costs=costs)

        assert best(config.floors, measured, objective="per_evaluation") == 28
        assert best(config.floors, measured, objective="yield") == 29
        first = narrow(config, measured, [28, 29], to=1)
        assert first == [28 if objective == "per_evaluation" else 29]


def test_the_best_of_many_reaches_the_floor_on_fresh_samples():
    """Half of the candidates lie just below the floor, and keep the more for it: luck must not carry them over."""
    config = CalibrationSettings(budget=200_000)
    yields, validity = [0.30, 0.40] * 10, [0.86, 0.78] * 10

    chosen = [
        best(
            config.floors,
            search(config, yields, validity, costs=[50.0] * 20, seed=seed),
            objective="yield",
        )
        for seed in range(40)
    ]

    # 5 % of single candidates may be carried over, and some tens of them have a chance.
    assert sum(i is not None and validity[i] < 0.8 for i in chosen) <= 4
    assert sum(i is not None and validity[i] > 0.8 for i in chosen) >= 34


def test_the_search_climbs_to_settings_that_it_did_not_start_with():
    # The search starts at the foot of a ridge, whose top is two steps beyond what it starts with.
    yields = [0.02] * 31 + [0.2, 0.3, 0.4]
    config = CalibrationSettings(budget=400_000)

    measured = search(
        config,
        yields,
        validity=[0.9] * 34,
        costs=[50.0] * 34,
        start=range(32),
        neighbours=lambda i: [j for j in (i - 1, i + 1) if 0 <= j < 34],
    )

    assert best(config.floors, measured, objective="yield") == 33


def test_newcomers_draw_what_the_others_drew_before_them():
    config = CalibrationSettings(budget=100_000)
    measured = [Measured(samples=40, passed=4, valid=36, evaluations=400.0)] * 2 + [Measured()] * 2

    draws = plan_rung(config, [10.0] * 4, measured, [0, 1, 2], rungs=5, first=40)

    assert draws[0] == Draw(2, 0, 40)
    assert [(draw.candidate, draw.first) for draw in draws[1:]] == [(0, 40), (1, 40), (2, 40)]
    assert len({draw.count for draw in draws[1:]}) == 1
    spent = sum(10 * draw.count for draw in draws)
    assert 15_000 - 30 < spent <= 15_000


def test_newcomers_whose_catching_up_would_eat_the_budget_stay_out():
    config = CalibrationSettings(budget=10_000)
    measured = [Measured(samples=60, passed=4, valid=36, evaluations=400.0)] + [Measured()] * 3

    draws = plan_rung(config, [10.0] * 4, measured, [0, 1, 2, 3], rungs=5, first=60)

    # A share of 1500 allows 750 for one newcomer's 600.
    assert {draw.candidate for draw in draws} == {0, 1}
    assert sum(10 * draw.count for draw in draws) <= 1500


def test_places_are_shared_between_the_best_and_their_neighbours():
    config = CalibrationSettings(explore=0.5, finalists=2)
    measured = [Measured(samples=100, passed=10 * i, valid=90, evaluations=100.0) for i in range(8)] + [Measured()] * 9

    entered = next_rung(config, measured, range(8), to=6, untried=lambda parent: [8 + parent, 9 + parent])

    assert entered == [7, 6, 5, 15, 14, 16]
    assert next_rung(config, measured, range(8), to=2, untried=lambda parent: [8 + parent]) == [7, 6]
    assert next_rung(config, measured, range(8), to=6, untried=nobody) == [7, 6, 5, 4, 3, 2]


def test_the_best_needs_enough_samples():
    config = CalibrationSettings()
    measured = [
        Measured(samples=400, valid=380, passed=100, evaluations=8000),
        Measured(samples=120, valid=110, passed=40, evaluations=6000),
        Measured(samples=20, valid=20, passed=19, evaluations=1000),
        Measured(samples=400, valid=200, passed=190, evaluations=8000),
    ]

    assert best(config.floors, measured, objective="per_evaluation") == 0
    assert best(config.floors, measured, objective="yield") == 1
    assert best(config.floors, measured[3:], objective="yield") is None


def test_a_candidate_below_the_floor_of_validity_never_wins():
    config = CalibrationSettings(budget=200_000)

    measured = search(config, [0.05] * 9 + [0.5], validity=[0.9] * 9 + [0.6], costs=[50.0] * 10)

    for objective in ("per_evaluation", "yield"):
        found = best(config.floors, measured, objective=objective)
        assert found is not None
        assert found < 9


def test_there_is_no_winner_where_nothing_is_valid():
    config = CalibrationSettings(budget=50_000)
    measured = search(config, [0.1] * 6, validity=[0.2] * 6, costs=[50.0] * 6)

    assert best(config.floors, measured, objective="per_evaluation") is None


def test_the_probability_of_the_floor_is_that_of_the_beta_posterior():
    floors = CalibrationSettings(validity_floor=0.8).floors
    rng = np.random.default_rng(0)
    posterior = rng.beta(85.5, 15.5, size=200_000)

    # 3 standard errors of a share of 200,000 draws.
    expected = (posterior >= 0.8).mean()
    assert floors_probability(floors, Measured(samples=100, valid=85)) == pytest.approx(expected, abs=0.004)
    assert floors_probability(floors, Measured()) == 0
    assert floors_probability(floors, Measured(samples=100, valid=100, diversity=0.4)) == 0
    assert floors_probability(CalibrationSettings(validity_floor=0.0).floors, Measured(samples=3)) == 1


def test_few_samples_below_the_floor_do_not_yet_drop_a_candidate():
    floors = CalibrationSettings().floors
    measured = [
        Measured(samples=20, valid=15, passed=10, evaluations=100),
        Measured(samples=20, valid=20, passed=1, evaluations=100),
        Measured(samples=20, valid=5, passed=5, evaluations=100),
    ]

    assert ranking(floors, measured, [0, 1, 2], objective="yield") == [0, 1, 2]


def test_repeating_oneself_misses_the_floor_of_diversity():
    floors = CalibrationSettings(diversity_floor=0.5).floors
    good = Measured(samples=10, valid=10, passed=5, evaluations=10, diversity=0.8)

    assert reaches_floors(floors, good)
    assert not reaches_floors(floors, Measured(samples=10, valid=10, passed=5, evaluations=10, diversity=0.2))
    assert not reaches_floors(floors, Measured())


@settings(max_examples=50, deadline=None)
@given(
    budget=st.integers(10_000, 10**6),
    candidates=st.integers(4, 60),
    keep=st.floats(0.1, 0.9),
    explore=st.floats(0.0, 0.9),
    cost=st.floats(1, 60),
    seed=st.integers(0, 100),
)
def test_the_budget_holds_and_everybody_draws_the_same_samples(budget, candidates, keep, explore, cost, seed):
    config = CalibrationSettings(budget=budget, keep=keep, explore=explore)
    sizes = rung_sizes(config, candidates=candidates)
    everybody = candidates + 40

    measured = search(
        config,
        [0.1] * everybody,
        [0.9] * everybody,
        [cost] * everybody,
        seed=seed,
        start=range(candidates),
        neighbours=lambda parent: range(candidates, everybody),
    )

    assert sizes[0] == candidates
    assert all(a > b for a, b in pairwise(sizes))
    spent = sum(m.evaluations for m in measured)
    # One sample each is the least that a rung can draw, half of a rung's share the most that catching up may take.
    share = budget * (1 - config.verification) / len(sizes)
    assert spent <= sum(max(share, share / 2 + size * cost) for size in sizes) + 1e-6
    assert sum(m.samples == max(x.samples for x in measured) for m in measured) == sizes[-1]


def test_the_search_starts_with_the_baselines_and_with_every_value_about_equally_often():
    space, base = CalibrationSpace(), SamplerSettings(steps=30)
    candidates = space.candidates(base)

    start = space.start(base, limit=48, seed=1)

    assert tuple(candidate.name for candidate in candidates[:3]) == BASELINES
    assert candidates[0].sampler.guidance == []
    assert len({candidate.name for candidate in candidates}) == len(candidates)
    assert start[:3] == [0, 1, 2]
    assert len(set(start)) == 48
    assert start == space.start(base, limit=48, seed=1) != space.start(base, limit=48, seed=2)
    chosen = [candidates[i].sampler for i in start[3:]]
    for share, holds in (
        (1 / 4, lambda s: s.solver == "dpm_solver"),
        (1 / 4, lambda s: s.boost_and_skip is None),
        (1 / 4, lambda s: s.self_guidance is not None and s.self_guidance.perturbation == 0.5),
        (1 / 12, lambda s: s.self_guidance is not None and s.self_guidance.scale == 6),
    ):
        # Three of 45 to either side, for combinations without guidance or drawn twice.
        assert sum(map(holds, chosen)) == pytest.approx(45 * share, abs=3)
    # Two of three where the solver is one of the two that add noise; which of them is chance, with a deviation of 1.7.
    assert sum(s.prune_and_branch is not None for s in chosen) == pytest.approx(45 / 3, abs=5)


def test_settings_in_use_are_compared_with_what_is_found_and_may_win():
    space, guide = CalibrationSpace(), SelfGuidance(scale=6.0, interval=5, perturbation=0.5, above=0.3, jacobian=False)
    undeclared = SamplerSettings(steps=30, self_guidance=guide)
    declared = SamplerSettings(steps=50, self_guidance=guide)

    for base in (undeclared, declared):
        candidates = space.candidates(base)
        samplers = [candidate.sampler for candidate in candidates]
        start = space.start(base, limit=48, seed=1)

        assert [candidate.name for candidate in candidates[:4]] == [*BASELINES, PRESENT]
        assert samplers[3] == base
        assert samplers[0] == base.plain()
        assert start[:4] == [0, 1, 2, 3]
        assert samplers.count(base) == samplers.count(base.plain()) == 1
    assert 3 not in space.neighbours(declared, 4, seed=0)


def test_the_baselines_of_a_text_to_image_backbone_keep_classifier_free_guidance():
    space, guide, free = CalibrationSpace(), SelfGuidance(scale=6.0), ClassifierFree(scale=2.0)
    base = SamplerSettings(steps="leading25", solver="ddim", classifier_free=free, self_guidance=guide)

    by_prompts = space.candidates(base, by_prompts=True)
    by_labels = space.candidates(base)

    assert [candidate.name for candidate in by_prompts[:4]] == [*BASELINES, PRESENT]
    assert by_prompts[0].sampler.guidance == [free]
    assert all(candidate.sampler.classifier_free == free for candidate in by_prompts)
    assert by_labels[0].sampler.guidance == []
    plain = replace(base, self_guidance=None)
    # Plain sampling is in use: nothing is compared twice.
    assert [c.sampler for c in space.candidates(plain, by_prompts=True)].count(plain) == 1
    start = space.start(plain, limit=12, seed=0, by_prompts=True)
    assert start[:3] == [0, 1, 2]
    assert not {0, 1, 2} & set(space.neighbours(plain, start[5], seed=0, by_prompts=True))


def test_a_space_smaller_than_the_limit_is_searched_whole():
    boost = grid("boost_and_skip", boost=(2.0,), skip=(0.1,))
    space = CalibrationSpace(solvers=(SolverSteps(),), boost_and_skip=boost, self_guidance=(), prune_and_branch=())

    assert space.start(SamplerSettings(), limit=48, seed=0) == [0, 1, 2, 3]
    assert len(space.candidates(SamplerSettings())) == 4


def test_neighbours_differ_in_a_single_respect():
    space, base = CalibrationSpace(), SamplerSettings()
    candidates = space.candidates(base)
    names = {candidate.name: i for i, candidate in enumerate(candidates)}
    place = names["ancestral 50, boost 3 skip 0.06, w 2 s 0.5 n 5 above 0.3, no Jacobian"]

    near = space.neighbours(base, place, seed=0)

    assert {candidates[i].name for i in near} == {
        "ancestral 20, boost 3 skip 0.06, w 2 s 0.5 n 5 above 0.3, no Jacobian",
        "ancestral 50, boost 3 skip 0.06, w 2 s 0.5 n 5 above 0.3, no Jacobian, prune by features at 0.5",
        "ancestral 50, boost 3 skip 0.06, w 2 s 0.5 n 5 above 0.3, no Jacobian, prune by features at 0.5 0.7",
        "ddim 25, boost 3 skip 0.06, w 2 s 0.5 n 5 above 0.3, no Jacobian",
        "dpm_solver logsnr20, boost 3 skip 0.06, w 2 s 0.5 n 5 above 0.3, no Jacobian",
        "ancestral 50, boost 2 skip 0.06, w 2 s 0.5 n 5 above 0.3, no Jacobian",
        "ancestral 50, boost 4 skip 0.06, w 2 s 0.5 n 5 above 0.3, no Jacobian",
        "ancestral 50, boost 3 skip 0.12, w 2 s 0.5 n 5 above 0.3, no Jacobian",
        "ancestral 50, boost 3 skip 0.06, w 1 s 0.5 n 5 above 0.3, no Jacobian",
        "ancestral 50, boost 3 skip 0.06, w 3 s 0.5 n 5 above 0.3, no Jacobian",
        "ancestral 50, boost 3 skip 0.06, w 2 s 0.35 n 5 above 0.3, no Jacobian",
        "ancestral 50, boost 3 skip 0.06, w 2 s 0.65 n 5 above 0.3, no Jacobian",
        "ancestral 50, boost 3 skip 0.06, w 2 s 0.5 n 2 above 0.3, no Jacobian",
        "ancestral 50, boost 3 skip 0.06, w 2 s 0.5 n 5, no Jacobian",
        "ancestral 50, boost 3 skip 0.06",
        "ancestral 50, w 2 s 0.5 n 5 above 0.3, no Jacobian",
    }
    assert near == space.neighbours(base, place, seed=0) != space.neighbours(base, place, seed=1)
    assert all(place in space.neighbours(base, i, seed=0) for i in near)


def test_values_that_do_not_ascend_are_refused():
    with pytest.raises(ValueError, match=r"CalibrationSpace\.self_guidance\.scale must ascend .* got \(2\.0, 1\.0\)"):
        CalibrationSpace(self_guidance=grid("self_guidance", scale=(2.0, 1.0)))
    with pytest.raises(ValueError, match=r"CalibrationSpace\.classifier_free lists no values"):
        CalibrationSpace(classifier_free=grid("classifier_free"))


def test_what_is_not_searched_is_kept_as_the_preset_has_it():
    guide = SelfGuidance(scale=6.0, distance="squared", draws=3)
    base = SamplerSettings(steps=30, variance="fixed_large").guided(
        ClassifierFree(scale=1.7), ShapedNoise(truncate=2.0), LowDensitySettings(hardness_scale=2.0), guide
    )

    candidates = CalibrationSpace().candidates(base)

    searched = [candidate.sampler for candidate in candidates if candidate.name not in BASELINES]
    assert len(searched) > 1000
    for sampler in searched:
        for key in ("classifier_free", "shaped_noise", "low_density"):
            assert sampler.method(key) == base.method(key)
        assert sampler.variance == "fixed_large"
        found = sampler.self_guidance
        assert found is None or (found.distance, found.draws) == ("squared", 3)
    names = [candidate.name for candidate in candidates]
    assert "ancestral 20, low density hardness_scale 2, classifier free scale 1.7, shaped noise truncate 2" in names
    # Plain sampling and the published settings stay what they are.
    assert [candidate.sampler.guidance for candidate in candidates[:1]] == [[]]
    assert all(len(candidate.sampler.guidance) == 1 for candidate in candidates[1:3])


def test_any_setting_of_any_method_can_be_searched():
    grids = {
        "classifier_free": grid("classifier_free", scale=(1.0, 1.5, 2.0)),
        "low_density": grid("low_density", hardness_scale=(1.0, 2.0), realism_scale=(0.0, 0.5)),
    }
    nothing = {"self_guidance": (), "boost_and_skip": (), "prune_and_branch": ()}
    space = CalibrationSpace(solvers=(SolverSteps(steps=20), SolverSteps()), **nothing, **grids)

    candidates = space.candidates(SamplerSettings())

    # With two solvers, without or with one of three scales, and without or with one of four pairs; plain is a baseline.
    assert len(candidates) == 3 + 2 * 4 * 5 - 1
    names = {candidate.name: i for i, candidate in enumerate(candidates)}
    place = names["ancestral 20, low density hardness_scale 2, classifier free scale 2"]
    assert {candidates[i].name for i in space.neighbours(SamplerSettings(), place, seed=0)} == {
        "ancestral 50, low density hardness_scale 2, classifier free scale 2",
        "ancestral 20, low density, classifier free scale 2",
        "ancestral 20, low density hardness_scale 2 realism_scale 0, classifier free scale 2",
        "ancestral 20, low density hardness_scale 2, classifier free",
        "ancestral 20, low density hardness_scale 2",
        "ancestral 20, classifier free scale 2",
    }


def test_the_space_of_a_preset_without_one_has_the_combinations_of_the_papers_settings():
    candidates = CalibrationSpace().candidates(SamplerSettings())

    solvers = [("ancestral", 20), ("ancestral", 50), ("ddim", 25), ("dpm_solver", "logsnr20")]
    starts = [None, *((b, s) for b in (2.0, 3.0, 4.0) for s in (0.06, 0.12))]
    free = product((0.5, 1, 2, 3, 4, 6, 8, 12), (0.35, 0.5, 0.65, 0.8), (2, 5), (-1, 0.3), [False])
    through = product((0.4, 1, 4), (0.35, 0.5, 0.65, 0.8), (2,), (-1,), [True])
    wanted = {
        (solver, start, guide, points)
        for solver, start, guide in product(solvers, starts, [None, *free, *through])
        for points in (None, *(((0.5,), (0.5, 0.7)) if solver[0] == "ancestral" else ()))
    }

    def found(sampler):
        start, guide, prune = sampler.boost_and_skip, sampler.self_guidance, sampler.prune_and_branch
        names = ("scale", "perturbation", "interval", "above", "jacobian")
        return (
            (sampler.solver, sampler.steps),
            start and (start.boost, start.skip),
            guide and tuple(getattr(guide, name) for name in names),
            prune and prune.points,
        )

    searched = [candidate.sampler for candidate in candidates if candidate.name not in BASELINES[1:]]
    assert len(searched) == len(wanted)
    assert {found(sampler) for sampler in searched} == wanted


def test_solvers_without_noise_are_never_pruned():
    for candidate in CalibrationSpace().candidates(SamplerSettings()):
        assert candidate.sampler.prune_and_branch is None or candidate.sampler.solver == "ancestral"


def test_pruning_has_the_particle_groups_of_the_settings_in_use():
    space = CalibrationSpace(solvers=(SolverSteps(),), self_guidance=grid("self_guidance", scale=(1.0,)))
    for base, particle_group in (
        (SamplerSettings(), 4),
        (SamplerSettings(prune_and_branch=PruneAndBranch(particle_group=6)), 6),
    ):
        candidates = space.candidates(base)

        assert common_particle_group(candidates) == particle_group
        assert {candidate.sampler.particle_group for candidate in candidates} == {1, particle_group}


def test_counts_are_whole_rounds_through_the_groups_where_the_share_allows_one():
    config = CalibrationSettings(budget=100_000)  # a share of 15,000

    def counts(cost, **sizes):
        draws = plan_rung(config, [cost] * 4, [Measured()] * 4, range(4), rungs=5, first=0, **sizes)
        assert len({draw.count for draw in draws}) == 1
        return draws[0].count

    assert counts(10.0) == 375
    assert counts(10.0, particle_group=4) == 372
    assert counts(10.0, particle_group=4, round_size=40) == 360
    assert counts(100.0, particle_group=4, round_size=40) == 36
    assert counts(10_000.0, particle_group=4, round_size=40) == 4


def test_the_least_budget_has_one_particle_group_for_everybody_who_starts():
    costs = [50.0] * 30 + [20.0] * 18
    least = least_budget(CalibrationSettings(), costs, particle_group=4)

    def spent(budget):
        config = CalibrationSettings(budget=budget)
        rungs = len(rung_sizes(config, candidates=48))
        draws = plan_rung(config, costs, [Measured()] * 48, range(48), rungs=rungs, first=0, particle_group=4)
        return sum(draw.count * costs[draw.candidate] for draw in draws), budget * 0.75 / rungs

    assert spent(least)[0] <= spent(least)[1]
    assert spent(least - 1)[0] > spent(least - 1)[1]


def test_points_of_pruning_that_are_none_are_refused():
    for points in ((1.5,), ()):
        with pytest.raises(ValueError, match=r"PruneAndBranch\.points"):
            CalibrationSpace(prune_and_branch=grid("prune_and_branch", weight_by=("features",), points=(points,)))


def test_the_expected_cost_is_what_drawing_takes(tiny_backbone):
    from minority.backbones import load_backbone
    from minority.features.pixel_features import pixel_features
    from minority.sampling.draw import draw

    backbone = load_backbone(tiny_backbone)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, size=(20, *backbone.state_shape[1:], backbone.state_shape[0]), dtype=np.uint8)
    reference = RealReference.fit(pixel_features(pictures), k=5)
    space = CalibrationSpace(solvers=(SolverSteps(steps=10), SolverSteps(solver="dpm_solver", steps="logsnr9")))
    base = SamplerSettings(steps=10, prune_and_branch=PruneAndBranch())
    drawn = []
    for candidate in (space.candidates(base)[i] for i in space.start(base, limit=16, seed=0)):
        drawn.append(
            draw(
                backbone,
                seed=0,
                indices=range(4),
                labels=[0] * 4,
                settings=candidate.sampler,
                reference=reference,
            )
        )
        assert expected_cost(candidate.sampler, backbone) == drawn[-1].evaluations
    assert any(len(set(found.root_ancestors)) < 4 for found in drawn)


def test_measurements_add_up():
    both = Measured(samples=10, passed=2, valid=8, evaluations=500.0, diversity=1.0) + Measured(
        samples=30, passed=4, valid=30, evaluations=1500.0, diversity=0.6
    )

    assert (both.samples, both.passed, both.valid) == (40, 6, 38)
    assert both.diversity == pytest.approx(0.7)
    assert both.per_1000_evaluations == pytest.approx(3.0)
    low, high = both.per_1000_evaluations_interval()
    assert low < 3 < high
    assert (Measured() + Measured(samples=1)).diversity is None


def test_copies_count_once_in_what_is_uncertain():
    apart = Measured(samples=25, passed=10, valid=20, evaluations=1000.0)
    particle_group = Measured(samples=100, passed=40, valid=80, evaluations=4000.0, copies=75)
    floors = CalibrationSettings(validity_floor=0.7).floors

    assert particle_group.kept_share == apart.kept_share
    assert particle_group.interval(40) == pytest.approx(apart.interval(10))
    assert particle_group.per_1000_evaluations_interval() == pytest.approx(apart.per_1000_evaluations_interval())
    assert floors_probability(floors, particle_group) == pytest.approx(floors_probability(floors, apart))
    _, low_high = ratio_interval(particle_group, apart)
    _, expected = ratio_interval(apart, apart)
    assert low_high == pytest.approx(expected)
    assert (apart + particle_group).copies == 75


def test_the_ratio_of_two_yields_has_an_interval_that_holds_it():
    ours = Measured(samples=500, passed=100, evaluations=25_000.0)
    theirs = Measured(samples=500, passed=20, evaluations=25_000.0)

    point, (low, high) = ratio_interval(ours, theirs)

    assert point == pytest.approx(5)
    assert 3 < low < 5 < high < 9
    # Twice the cost: half as many times more an evaluation, as many times more a sample.
    dear = Measured(samples=500, passed=100, evaluations=50_000.0)
    assert ratio_interval(dear, theirs)[0] == pytest.approx(2.5)
    assert ratio_interval(dear, theirs)[1].tolist() == pytest.approx([low / 2, high / 2])
    assert ratio_interval(dear, theirs, objective="yield")[1].tolist() == pytest.approx([low, high])
    assert ratio_interval(ours, Measured(samples=500, evaluations=25_000.0))[0] == math.inf


def test_wilson_intervals_hold_the_share_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for successes in rng.binomial(60, 0.1, size=1000):
        low, high = wilson(int(successes), 60)
        inside += low <= 0.1 <= high

    # 3 standard errors of a 95 % share over 1000 draws, and the interval's own error at 60 trials.
    assert 0.92 < inside / 1000 < 0.99
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_bootstrap_of_a_mean_is_that_of_the_normal():
    values = np.random.default_rng(0).normal(size=400)

    low, high = bootstrap_interval(
        lambda real, generated: float(values[generated].mean()), num_real=1, num_generated=400, draws=1000
    )

    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.15)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("budget", 0),
        ("candidates", 3),
        ("keep", 1.0),
        ("explore", 1.0),
        ("finalists", 0),
        ("verification", 1.0),
        ("objective", "most"),
        ("validity_floor", 1.0),
        ("confidence", 1.0),
    ],
)
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=f"CalibrationSettings.{field}"):
        CalibrationSettings(**{field: value})
