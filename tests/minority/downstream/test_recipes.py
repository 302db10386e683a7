"""Recipes on real data: what each of them is for, on sets small enough to know the answer.

Recipes that claim to use no attribute are given data that have none.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors

from minority.downstream.arms import Arm
from minority.downstream.combining import PARTS, arm_named
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.identification import (
    highest_of_class,
    losses_of,
    neighbour_distances,
    odds_with_share,
    odds_with_weight,
)
from minority.downstream.inferred_groups import groups_of, infer_environments
from minority.downstream.losses import (
    AttributeAdjusted,
    ClassBalanced,
    GeneralisedCrossEntropy,
    LogitAdjusted,
    class_shares,
    cross_entropy,
)
from minority.downstream.networks import build_network
from minority.downstream.objectives import Adversarial, relative_difficulty
from minority.downstream.selective_mixing import draw_partners
from minority.downstream.settings import DownstreamSettings, Jitter, NetworkSettings
from minority.downstream.statistics_mixing import FeatureMixing, mix_statistics
from minority.downstream.training import probabilities_and_features, train
from minority.downstream.trials import trials_for

STILL = DownstreamSettings(network=NetworkSettings(width=8), steps=120, jitter=Jitter(shift=0, rotation=0))
TINY = replace(STILL, network=NetworkSettings(width=4), steps=8, batch_size=8)


def conflict_accuracy(arm, data, conflicting, *, settings=STILL, seed=0):
    """Accuracy on the test images that go against the shortcut."""
    network = train(arm, data, learning_rate=3e-3, weight_decay=0.01, settings=settings, seed=seed)
    said = probabilities_and_features(network, data.test)[0].argmax(dim=1).numpy()
    return float((said == data.test.labels)[conflicting].mean())


@pytest.fixture(scope="module")
def hidden(spurious_bars):
    """The bars with their corner, which nothing in the data tells of; and which test images conflict."""

    def stripped(part):
        return LabelledImages(part.images, part.labels, part.labels)

    parts = {name: stripped(getattr(spurious_bars, name)) for name in ("train", "validation", "test")}
    names = spurious_bars.class_names
    data = DownstreamData(**parts, class_names=names, group_names=names)
    return data, np.isin(spurious_bars.test.groups, (1, 2))


@pytest.fixture(scope="module")
def known(spurious_bars, hidden):
    """The same with the corner as a known attribute."""
    parts = {
        name: replace(getattr(spurious_bars, name), attributes=getattr(spurious_bars, name).groups % 2)
        for name in ("train", "validation", "test")
    }
    return replace(spurious_bars, **parts), hidden[1]


@pytest.fixture(scope="module")
def real_alone(hidden):
    data, conflicting = hidden
    return conflict_accuracy(Arm(name="real"), data, conflicting)


def coloured_bars(labels, hues, *, seed):
    """An upright or level bar of a colour: (N, 8, 8, 3)."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(60, 10, size=(len(labels), 8, 8))
    for i, label in enumerate(labels):
        at = rng.integers(1, 7)
        pixels[i, :, at] += 60 * label
        pixels[i, at, :] += 60 * (1 - label)
    colour = np.where(hues[:, None] == 1, [1.6, 0.8, 0.4], [0.4, 0.8, 1.6])
    images = (pixels[..., None] * colour[:, None, None, :]).clip(0, 255).astype(np.uint8)
    return LabelledImages(images, labels, labels)


@pytest.fixture(scope="module")
def coloured():
    """Classes told by shape and, in training, by colour; at the test the colours are swapped."""
    rng = np.random.default_rng(0)
    labels, later = rng.integers(2, size=400), rng.integers(2, size=200)
    return DownstreamData(
        train=coloured_bars(labels, labels, seed=1),
        validation=coloured_bars(later, later, seed=2),
        test=coloured_bars(later, 1 - later, seed=3),
        class_names=("level", "upright"),
        group_names=("level", "upright"),
    )


# --- without attributes


@pytest.mark.parametrize("name", ["loss-oversampling", "jtt", "inferred-groups+group-dro", "lff"])
def test_recipes_without_attributes_learn_what_goes_against_the_shortcut(name, hidden, real_alone):
    data, conflicting = hidden

    found = conflict_accuracy(arm_named(name), data, conflicting)

    assert real_alone < 0.2
    assert found > real_alone + 0.15


def test_mixed_statistics_make_colour_worthless(coloured):
    everything = np.ones(len(coloured.test), dtype=np.bool_)
    settings = replace(STILL, steps=80)

    alone, mixed = (
        conflict_accuracy(arm, coloured, everything, settings=settings)
        for arm in (Arm(name="real"), arm_named("statistics-mixing"))
    )

    assert alone < 0.2
    assert mixed > alone + 0.3


def test_the_highest_losses_of_every_class_are_chosen():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5], [0.1, 0.9]])
    labels = np.array([0, 0, 0, 1, 1])

    losses = losses_of(probabilities, labels)

    np.testing.assert_allclose(losses, -np.log([0.9, 0.2, 0.6, 0.5, 0.9]))
    assert highest_of_class(losses, labels, share=0.34).tolist() == [False, True, False, True, False]
    assert highest_of_class(losses, labels, share=0.67).tolist() == [False, True, True, True, False]


def test_odds_are_a_share_of_the_draws_or_a_weight():
    chosen = np.array([True, False, False, False])

    np.testing.assert_allclose(odds_with_share(chosen, share=0.4), [0.4, 0.2, 0.2, 0.2])
    np.testing.assert_allclose(odds_with_share(~chosen & False, share=0.4), [0.25] * 4)
    np.testing.assert_allclose(odds_with_weight(chosen, weight=3), [0.5, 1 / 6, 1 / 6, 1 / 6])


def test_neighbour_distances_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(60, 4, 4, 3)).astype(np.uint8)
    labels = np.repeat([0, 1, 2], [40, 19, 1])

    found = neighbour_distances(images, labels, k=3)

    for label in (0, 1):
        members = labels == label
        flat = images[members].reshape(members.sum(), -1).astype(np.float64)
        theirs = NearestNeighbors(n_neighbors=4).fit(flat).kneighbors(flat)[0][:, 1:].mean(axis=1)
        np.testing.assert_allclose(found[members], theirs, rtol=1e-4)
    assert found[labels == 2].tolist() == [0.0]


def test_an_image_far_from_its_class_is_drawn_more_often():
    rng = np.random.default_rng(0)
    images = rng.integers(100, 120, size=(50, 8, 8, 1)).astype(np.uint8)
    images[7] = 255

    far = highest_of_class(neighbour_distances(images, np.zeros(50, dtype=np.int64)), np.zeros(50), share=0.02)

    assert np.flatnonzero(far).tolist() == [7]


def test_inferred_environments_part_what_a_biased_model_is_wronger_about_than_it_thinks():
    labels = np.array([0, 0, 1, 1, 0])
    probabilities = np.array([[0.95, 0.05], [0.1, 0.9], [0.05, 0.95], [0.8, 0.2], [0.5, 0.5]])

    found = infer_environments(probabilities, labels)

    assert found.tolist() == [0, 1, 0, 1, 0]
    assert groups_of(labels, found).tolist() == [0, 1, 2, 3, 0]


def test_no_other_division_has_a_larger_penalty_than_the_inferred_one():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(9, 3)) * 2, rng.integers(3, size=9)

    def penalty(environments):
        # By autograd, from the paper's definition.
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        losses = F.cross_entropy(torch.as_tensor(logits) * scale, torch.as_tensor(labels), reduction="none")
        total = 0.0
        for kind in (0, 1):
            member = torch.as_tensor(environments == kind).double()
            (slope,) = torch.autograd.grad((member * losses).sum() / 9, scale, retain_graph=True)
            total += float(slope) ** 2
        return total

    probabilities = torch.as_tensor(logits).softmax(dim=1).numpy()
    every = [penalty(np.array([(number >> i) & 1 for i in range(9)])) for number in range(2**9)]

    assert penalty(infer_environments(probabilities, labels)) == pytest.approx(max(every))


def test_an_image_takes_its_neighbours_mean_and_deviation():
    images = torch.randn((4, 3, 6, 6), generator=torch.Generator().manual_seed(0)) * 3 + 1
    shares = torch.tensor([1.0, 0.0, 0.5, 1.0])

    found = mix_statistics(images, shares)

    torch.testing.assert_close(found[0], images[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1].mean(dim=(1, 2)), images[0].mean(dim=(1, 2)), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1].std(dim=(1, 2)), images[0].std(dim=(1, 2)), atol=1e-3, rtol=0)
    half = (images[2].mean(dim=(1, 2)) + images[1].mean(dim=(1, 2))) / 2
    torch.testing.assert_close(found[2].mean(dim=(1, 2)), half, atol=1e-4, rtol=0)
    # What is left of an image is its shape: the normalised pixels do not change.
    normalised = [(x - x.mean()) / x.std() for x in (found[1, 0], images[1, 0])]
    torch.testing.assert_close(normalised[0], normalised[1], atol=1e-4, rtol=0)


def test_feature_maps_take_their_neighbours_statistics_until_the_hooks_go():
    network = build_network(NetworkSettings(width=4), image_shape=(16, 16, 3), num_classes=2, seed=0).eval()
    images = torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * torch.arange(1, 5).view(
        4, 1, 1, 1
    )
    maps = []
    pool = next(module for module in network.trunk.modules() if isinstance(module, torch.nn.MaxPool2d))
    pool.register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0]))

    before = network(images)
    mixing = FeatureMixing(network, lambda: torch.zeros(2, 4))
    network(images)
    mixing.remove()
    after = network(images)

    plain, mixed, again = (found.mean(dim=(2, 3)) for found in maps)
    torch.testing.assert_close(mixed, plain.roll(1, 0))
    torch.testing.assert_close(again, plain)
    torch.testing.assert_close(after, before)


def test_a_network_without_such_maps_is_refused_for_feature_mixing():
    network = build_network(NetworkSettings(width=4), image_shape=(4, 4, 1), num_classes=2, seed=0)

    with pytest.raises(ValueError, match="feature mixing needs a small-cnn for images of 8 pixels"):
        FeatureMixing(network, lambda: torch.zeros(2, 4))


def test_generalised_cross_entropy_weighs_an_image_by_its_probability():
    logits = torch.tensor([[2.0, 0.0], [-2.0, 0.0]], requires_grad=True)
    target = torch.eye(2)[[0, 0]]
    p = logits.detach().softmax(dim=1)[:, 0]

    (general,) = torch.autograd.grad(GeneralisedCrossEntropy(q=0.7)(logits, target, target[:, 0]), logits)
    (usual,) = torch.autograd.grad(cross_entropy(logits, target, target[:, 0]), logits)

    # Zhang & Sabuncu: the gradient of cross-entropy times p^q.
    torch.testing.assert_close(general, usual * p[:, None] ** 0.7)


def test_relative_difficulty_is_high_where_the_biased_network_fails():
    found = relative_difficulty(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 3.0, 0.0]))

    assert found.tolist() == [0.0, 0.75, 0.0]


# --- with attributes


@pytest.mark.parametrize("name", ["attribute-adjustment", "lisa"])
def test_recipes_with_attributes_learn_what_goes_against_the_shortcut(name, known, real_alone):
    data, conflicting = known

    assert conflict_accuracy(arm_named(name), data, conflicting) > real_alone + 0.3


@pytest.mark.slow
def test_the_adversary_takes_the_attribute_out_of_the_features(known):
    data, conflicting = known
    settings = replace(STILL, steps=250)

    alone, opposed = (
        conflict_accuracy(arm, data, conflicting, settings=settings)
        for arm in (Arm(name="real"), arm_named("attribute-adversary"))
    )

    assert opposed > alone + 0.1


def test_the_adversarys_gradient_is_turned_round_where_it_meets_the_features():
    network = build_network(NetworkSettings(width=4), image_shape=(8, 8, 1), num_classes=2, seed=0).eval()
    images, targets = torch.rand((6, 1, 8, 8)), torch.eye(2)[[0, 1, 0, 1, 0, 1]]
    attributes = torch.tensor([0, 0, 1, 1, 2, 2])
    weight = next(network.trunk.parameters())

    def gradient(strength):
        objective = Adversarial(network, half=False, num_attributes=3, strength=strength, seed=0)
        loss = objective(images, targets, attributes, loss=lambda logits, targets, keys: logits.sum() * 0)
        return torch.autograd.grad(loss, [weight, objective.guess.weight])

    (weak, guess), (strong, same) = gradient(1.0), gradient(2.0)
    torch.testing.assert_close(strong, 2 * weak)
    torch.testing.assert_close(guess, same)
    objective = Adversarial(network, half=False, num_attributes=3, strength=1.0, seed=0)
    guesses = objective.guess(network.trunk(images)).view(-1, 2, 3)[torch.arange(6), targets.argmax(dim=1)]
    (forward,) = torch.autograd.grad(F.cross_entropy(guesses, attributes), weight)
    torch.testing.assert_close(weak, -forward)


def test_logits_are_adjusted_by_what_the_attribute_says_of_the_class():
    labels, attributes = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 0, 0, 1])

    shares = class_shares(labels, attributes, np.full(5, 0.2), num_classes=2, smoothing=1.0)

    np.testing.assert_allclose(shares, [[3.5 / 5, 1.5 / 5], [0.5 / 2, 1.5 / 2]])
    loss = AttributeAdjusted(shares, tau=1.0, device="cpu")
    # Logits that say nothing pay the attribute's own surprise.
    paid = loss(torch.zeros((1, 2)), torch.eye(2)[[1]], torch.tensor([0]))
    assert float(paid) == pytest.approx(-np.log(0.3), abs=1e-6)


@pytest.mark.parametrize(("same_class", "kind"), [(1.0, "class"), (0.0, "attribute")])
def test_partners_share_the_class_or_the_attribute_and_never_both(same_class, kind):
    rng = np.random.default_rng(0)
    labels, attributes = rng.integers(3, size=60), rng.integers(2, size=60)
    chosen = rng.integers(60, size=(20, 8))

    partners = draw_partners(chosen, labels=labels, attributes=attributes, same_class=same_class, rng=rng)

    alike, other = (labels, attributes) if kind == "class" else (attributes, labels)
    assert (alike[partners] == alike[chosen]).all()
    assert (other[partners] != other[chosen]).all()


def test_without_a_partner_of_one_kind_there_is_one_of_the_other_or_none():
    labels, attributes = np.array([0, 1, 1]), np.array([0, 0, 1])

    partners = draw_partners(
        np.array([[0] * 30]), labels=labels, attributes=attributes, same_class=1.0, rng=np.random.default_rng(0)
    )
    alone = draw_partners(
        np.array([[0]]), labels=labels[:1], attributes=attributes[:1], same_class=1.0, rng=np.random.default_rng(0)
    )

    assert set(partners[0].tolist()) == {1}  # no image of class 0 with another attribute
    assert alone.tolist() == [[0]]


@pytest.mark.parametrize("name", ["attribute-adjustment", "attribute-adversary", "lisa"])
def test_a_recipe_that_needs_attributes_refuses_data_without(name, hidden):
    data, conflicting = hidden

    with pytest.raises(ValueError, match=f"'{name}' needs the attribute of every training image"):
        conflict_accuracy(arm_named(name), data, conflicting, settings=TINY)


# --- weights, combinations, budgets


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        ClassBalanced(np.array([0.5, 1.5]), device="cpu"),
        LogitAdjusted(np.array([0.9, 0.1]), tau=1.0, device="cpu"),
        AttributeAdjusted(np.array([[0.9, 0.1], [0.4, 0.6]]), tau=1.0, device="cpu"),
        GeneralisedCrossEntropy(q=0.7),
    ],
    ids=lambda loss: getattr(loss, "__name__", type(loss).__name__),
)
def test_a_weight_below_one_is_that_share_of_the_loss(loss):
    logits, targets = torch.tensor([[1.0, -0.5], [0.2, 0.4]]), torch.eye(2)
    keys = torch.tensor([0, 1])

    whole, weighted = (loss(logits[:1], targets[:1] * weight, keys[:1]) for weight in (1.0, 0.3))

    torch.testing.assert_close(weighted, 0.3 * whole)


def test_synthetic_images_of_little_weight_do_little(hidden):
    data, conflicting = hidden
    # Wrong labels: whoever minds them, errs.
    wrong = LabelledImages(data.train.images, 1 - data.train.labels, 1 - data.train.labels)
    data = replace(data, synthetic={"wrong": wrong})
    arm = Arm(name="a", source="wrong", synthetic_share=0.5)

    heavy, light = (
        conflict_accuracy(replace(arm, synthetic_weight=weight), data, ~conflicting, settings=replace(STILL, steps=60))
        for weight in (1.0, 0.1)
    )

    assert heavy < 0.8 < light


def test_parts_are_combined_by_name_and_underscores_are_hyphens():
    arm = arm_named("loss_oversampling+statistics_mixing+minority-clean", sources=["minority-clean"])

    assert arm.name == "loss-oversampling+statistics-mixing+minority-clean"
    assert (arm.draws, arm.statistics_mixing, arm.source) == ("loss_oversampled", 0.1, "minority-clean")
    assert (arm.tuned, arm.values) == ("top", (0.01, 0.05))
    assert arm_named("mixup").draws == "group_balanced"  # declared so
    assert arm_named("jtt+mixup").draws == "errors_upweighted"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("jtt+loss-oversampling", "jtt and loss-oversampling both decide draws"),
        ("jtt+jtt", "names jtt twice"),
        ("jtt+magic", "there is no part magic; parts are real, oversampling"),
        ("lisa+mixup", "blends each image twice"),
        ("inferred-groups+plain", "infers groups, which its synthetic images have none of"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(name, problem):
    with pytest.raises(ValueError, match=problem):
        arm_named(name, sources=["plain"])


@pytest.mark.parametrize("part", list(PARTS))
def test_every_part_has_as_many_trials_and_steps_as_any_other(part, known, monkeypatch):
    data, _ = known
    taken = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a: (taken.append(1), step(self, *a))[1])
    arm = arm_named(f"{part}+oversampling" if part == "group-dro" else part)

    network = train(arm, data, learning_rate=1e-3, weight_decay=0.1, settings=TINY, seed=0)

    assert len(taken) == TINY.steps
    assert len(trials_for(arm, TINY)) == TINY.trials
    assert torch.isfinite(probabilities_and_features(network, data.test)[0]).all()
