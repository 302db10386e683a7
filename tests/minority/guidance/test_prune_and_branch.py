import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minority.backbones import Backbone
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import to_pixels
from minority.features.pixel_features import pixel_features
from minority.guidance.particle_groups import root_ancestors, whole_particle_groups
from minority.guidance.prune_and_branch import PruneAndBranch, choose_parents
from minority.guidance.prune_by_features import PruneByFeatures
from minority.neighbours.reference import RealReference
from minority.sampling.draw import SamplerSettings, draw
from minority.sampling.sampler import sample
from minority.solvers.ddim import Ddim

SHAPE = (1, 4, 4)


@pytest.fixture
def backbone(mixture, trained):
    return Backbone("mixture", mixture, trained, image_shape=SHAPE, num_classes=None, sha256="0" * 64)


@pytest.fixture
def labelled(mixture, trained):
    return Backbone("mixture", mixture, trained, image_shape=SHAPE, num_classes=2, sha256="0" * 64)


@given(
    st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=6).flatmap(
        lambda row: st.tuples(st.just(row), st.integers(1, 5), st.integers(2, 6))
    )
)
@settings(max_examples=60, deadline=None)
def test_parents_stay_in_the_particle_group_survive_themselves_and_have_few_children(case):
    row, keep, max_copies = case
    particle_group = len(row) + 1
    weights = torch.tensor([*row, 0.0, *row[::-1], 1.0])
    keep = min(keep, particle_group - 1)

    parents = choose_parents(weights, particle_group=particle_group, keep=keep, max_copies=max_copies)

    place = torch.arange(len(weights))
    assert (parents // particle_group == place // particle_group).all()
    assert (parents[parents] == parents).all()  # whoever has children keeps its own place
    assert torch.bincount(parents).max() <= max_copies


def test_the_best_take_the_places_of_the_worst():
    weights = torch.tensor([0.1, 0.9, 0.5, 0.3, 3.0, 1.0, 2.0, math.nan])

    parents = choose_parents(weights, particle_group=4, keep=2, max_copies=2)

    assert parents.tolist() == [1, 1, 2, 2, 4, 6, 6, 4]
    assert choose_parents(weights, particle_group=4, keep=1, max_copies=2).tolist() == [1, 1, 2, 3, 4, 5, 6, 4]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True), st.integers(1, 5), st.booleans())
@settings(max_examples=50, deadline=None)
def test_completed_particle_groups_hold_what_was_asked_for(indices, particle_group, labelled):
    labels = [index % 3 for index in indices] if labelled else None

    members, member_labels, positions = whole_particle_groups(indices, labels, particle_group=particle_group)

    assert [members[p] for p in positions] == indices
    assert len(members) % particle_group == 0
    for start in range(0, len(members), particle_group):
        first = members[start]
        assert first % particle_group == 0
        assert members[start : start + particle_group] == list(range(first, first + particle_group))
    if labels is None:
        assert member_labels is None
    else:
        assert [member_labels[p] for p in positions] == labels


def test_root_ancestors_follow_branches_back():
    first, second = torch.tensor([1, 1, 2, 2]), torch.tensor([0, 1, 1, 3])

    assert root_ancestors([None, first, None, second], 4).tolist() == [1, 1, 1, 2]


GUIDED = SamplerSettings(steps=20, prune_and_branch=PruneAndBranch(points=(0.2, 0.5)), batch_size=10)


def test_a_sample_is_a_function_of_its_index_and_label_whatever_is_drawn_with_it(labelled):
    def images(indices, labels):
        return draw(labelled, seed=3, indices=indices, labels=labels, settings=GUIDED)

    whole = images(range(12), [0] * 4 + [1] * 8)
    alone = images([6], [1])
    mixed = images([11, 2, 6, 5], [1, 0, 1, 0])

    assert np.array_equal(alone.images[0], whole.images[6])
    assert np.array_equal(mixed.images[[0, 1, 2]], whole.images[[11, 2, 6]])
    assert mixed.root_ancestors[[0, 1, 2]].tolist() == whole.root_ancestors[[11, 2, 6]].tolist()


def test_copies_are_marked_limited_and_different(backbone):
    drawn = draw(backbone, seed=0, indices=range(40), labels=None, settings=GUIDED)

    root_ancestors, counts = np.unique(drawn.root_ancestors, return_counts=True)
    assert counts.max() > 1
    assert counts.max() <= 2 ** len(GUIDED.prune_and_branch.points)
    assert (root_ancestors // 4 == np.unique(drawn.root_ancestors // 4).repeat(np.bincount(root_ancestors // 4))).all()
    assert len(np.unique(drawn.images.reshape(40, -1), axis=0)) == 40


def test_without_pruning_every_sample_is_its_own_root_ancestor(backbone):
    drawn = draw(backbone, seed=0, indices=[5, 3], labels=None, settings=SamplerSettings(steps=5))

    assert drawn.root_ancestors.tolist() == [5, 3]
    assert drawn.evaluations == 5


def test_the_cost_counts_the_evaluating_and_the_company(backbone):
    full = draw(backbone, seed=0, indices=range(4), labels=None, settings=GUIDED)
    lone = draw(backbone, seed=0, indices=[0], labels=None, settings=GUIDED)

    assert full.evaluations == 20 + 2 * 2  # two points, two draws of the metric each
    assert lone.evaluations == 4 * full.evaluations


def test_evaluating_by_features_raises_the_rare_share_without_network_calls(mixture, trained):
    generator = torch.Generator().manual_seed(0)
    mode = (torch.arange(100) % 10 == 0).long()
    real = to_pixels(mixture.means[mode].float() + 0.15 * torch.randn((100, *SHAPE), generator=generator))
    method = PruneByFeatures(
        reference=RealReference.fit(pixel_features(real)), points=(0.3, 0.5), keep=1, max_copies=4, realism_floor=0.5
    )
    schedule = trained.respaced(40)
    noise = SampleNoise(0, range(400), shape=SHAPE)

    plain, _ = sample(mixture, schedule, noise)
    pruned, cost = sample(mixture, schedule, noise, guidance=[method])

    shares = [float((mixture.mode(x) == 1).float().mean()) for x in (plain, pruned)]
    assert shares[1] > shares[0] + 3 * 2 * math.sqrt(0.1 * 0.9 / 400)
    assert cost.forwards == 40


def test_settings_can_ask_for_features_and_draw_brings_the_real_images(backbone, mixture):
    real = to_pixels(mixture.means.float() + 0.1 * torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(0)))
    reference = RealReference.fit(pixel_features(real), k=1)
    by_features = PruneAndBranch(weight_by="features", points=(0.5,))
    settings = SamplerSettings(steps=10, prune_and_branch=by_features)

    drawn = draw(backbone, seed=0, indices=range(8), labels=None, settings=settings, reference=reference)

    direct, _ = sample(
        mixture,
        backbone.schedule.respaced(10),
        SampleNoise(0, range(8), shape=SHAPE),
        guidance=[PruneByFeatures.bind(by_features, reference)],
    )
    assert np.array_equal(drawn.images, to_pixels(direct))
    assert drawn.evaluations == 10
    with pytest.raises(ValueError, match="give the real reference"):
        draw(backbone, seed=0, indices=range(8), labels=None, settings=settings)


def test_chains_of_different_labels_do_not_compete(labelled, trained):
    noise = SampleNoise(0, range(4), shape=SHAPE)
    with pytest.raises(ValueError, match="must have one label"):
        sample(
            labelled.denoiser,
            trained,
            noise,
            label=torch.tensor([0, 0, 1, 1]),
            guidance=[PruneAndBranch(particle_group=4)],
        )


def test_a_batch_of_torn_particle_groups_is_refused(mixture, trained):
    with pytest.raises(ValueError, match="a batch of 6 does not hold whole particle groups of 4"):
        sample(mixture, trained.respaced(5), SampleNoise(0, range(6), shape=SHAPE), guidance=[PruneAndBranch()])


def test_branching_works_with_noisy_ddim(mixture, trained):
    x, _ = sample(
        mixture,
        trained.respaced(10),
        SampleNoise(0, range(8), shape=SHAPE),
        guidance=[PruneAndBranch()],
        solver=Ddim(eta=1.0),
    )

    assert torch.isfinite(x).all()
    assert len(torch.unique(x.flatten(1), dim=0)) == 8


def test_settings_refuse_a_deterministic_solver():
    with pytest.raises(ValueError, match="PruneAndBranch cannot be used here: Ddim adds no noise"):
        SamplerSettings(solver="ddim", prune_and_branch=PruneAndBranch())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"particle_group": 1}, "particle_group must be at least 2"),
        ({"keep": 4}, r"keep must lie in 1 \.\.\. 3"),
        ({"points": ()}, "points must be fractions"),
        ({"points": (1.0,)}, "points must be fractions"),
        ({"perturbation": 1.0}, "perturbation must lie"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"max_copies": 1}, "max_copies at least 2"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PruneAndBranch(**fields)
