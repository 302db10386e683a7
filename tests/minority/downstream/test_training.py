from dataclasses import replace

import numpy as np
import pytest
import torch

from minority.classifier import balancing_odds
from minority.downstream.arms import REAL_ARMS, Arm, arms_for, synthetic_arms
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.losses import cross_entropy
from minority.downstream.mixing import RANDAUGMENT_DRAWS, jitter, mixup, randaugment
from minority.downstream.sampling import draw, odds_of
from minority.downstream.settings import DownstreamSettings, Jitter, NetworkSettings
from minority.downstream.training import one_cycle, probabilities_and_features, train
from tests.images_on_disk import OnDisk

TINY = DownstreamSettings(network=NetworkSettings(width=4), steps=8, batch_size=8)


def images_of(labels, *, seed=0, shade=0):
    labels = np.asarray(labels, dtype=np.int64)
    pixels = np.random.default_rng(seed).integers(256, size=(len(labels), 8, 8, 1)).astype(np.uint8)
    return LabelledImages(pixels // 2 + np.uint8(shade), labels, labels)


@pytest.fixture(scope="module")
def tiny():
    return DownstreamData(
        train=images_of([0] * 20 + [1] * 4),
        validation=images_of([0, 0, 1, 1], seed=1),
        test=images_of([0, 1] * 6, seed=2),
        class_names=("a", "b"),
        group_names=("a", "b"),
        synthetic={"plain": images_of([1] * 10, seed=3, shade=100)},
    )


def trained(arm, data, *, seed=0, settings=TINY, device="cpu"):
    network = train(arm, data, learning_rate=1e-3, weight_decay=0.1, settings=settings, seed=seed, device=device)
    return probabilities_and_features(network, data.test)[0]


def test_the_learning_rates_are_torchs_one_cycle():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=51, pct_start=0.1)
    theirs = []
    for _ in range(50):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()

    np.testing.assert_allclose(one_cycle(50, peak=3e-3), theirs)


@pytest.mark.parametrize("arm", arms_for(["plain"]), ids=lambda arm: arm.name)
def test_every_arm_trains_and_is_a_function_of_its_seed(arm, tiny):
    before = torch.random.get_rng_state()

    first, again, other = (trained(arm, tiny, seed=seed) for seed in (0, 0, 1))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.isfinite(first).all()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_arm_takes_the_same_number_of_optimiser_steps(tiny, monkeypatch):
    taken = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a: (taken.append(1), step(self, *a))[1])

    counts = {}
    for arm in arms_for(["plain"]):
        taken.clear()
        trained(arm, tiny)
        counts[arm.name] = len(taken)

    assert set(counts.values()) == {TINY.steps}, counts


def test_arms_that_differ_in_nothing_that_is_drawn_are_equal(tiny):
    empty = replace(tiny, synthetic={"plain": images_of([])})
    real = trained(REAL_ARMS[0], tiny)

    assert torch.equal(trained(Arm(name="other name"), tiny), real)
    # A source that has no image leaves the real arm.
    assert torch.equal(trained(synthetic_arms("plain")[0], empty), real)


def test_a_missing_source_is_named(tiny):
    with pytest.raises(ValueError, match=r"'real\+other' needs synthetic images of source 'other'; there are plain"):
        trained(synthetic_arms("other")[0], tiny)


def test_odds_follow_the_recipe():
    groups = np.array([0, 0, 0, 1])

    natural = odds_of(Arm(name="r"), groups, synthetic_groups=groups[:0])
    balanced = odds_of(Arm(name="o", draws="group_balanced"), groups, synthetic_groups=groups[:0])
    mixed = odds_of(
        Arm(name="m", source="s", synthetic_share=0.4), groups, synthetic_groups=np.zeros(8, dtype=np.int64)
    )
    later = odds_of(
        Arm(name="f", source="s", synthetic_first=0.5), groups, synthetic_groups=np.zeros(8, dtype=np.int64)
    )

    np.testing.assert_allclose(natural, 0.25)
    np.testing.assert_allclose(balanced, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    np.testing.assert_allclose(mixed, [0.15] * 4 + [0.05] * 8)
    np.testing.assert_allclose(later, [0.25] * 4 + [0] * 8)


def test_draws_follow_the_odds_and_never_take_what_has_none():
    odds = np.array([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])

    drawn = draw(odds, steps=200, batch_size=50, generator=torch.Generator().manual_seed(0))

    share = np.bincount(drawn.flatten().numpy(), minlength=6) / 10_000
    # 4 standard errors of a share over 10,000 draws.
    assert (np.abs(share - odds) <= 4 * np.sqrt(odds * (1 - odds) / 10_000)).all()


def test_balancing_odds_give_every_group_the_same():
    groups = np.array([3, 3, 3, 7, 9, 9])

    np.testing.assert_allclose(np.bincount(groups, weights=balancing_odds(groups))[[3, 7, 9]], 1 / 3)


def test_mixup_blends_an_image_and_its_target_alike():
    images, targets = torch.rand(4, 1, 8, 8), torch.eye(4)

    blended, mixed = mixup(images, targets, torch.tensor(0.75))

    torch.testing.assert_close(blended[1], 0.75 * images[1] + 0.25 * images[0])
    assert mixed[1].tolist() == [0.25, 0.75, 0, 0]
    assert float(cross_entropy(torch.zeros(4, 4), mixed, torch.zeros(4).long())) == pytest.approx(np.log(4))


def test_jitter_moves_by_what_it_is_told():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 3] = 1.0
    still = torch.full((1, 4), 0.5)
    right = torch.tensor([[0.5, 0.0, 0.5, 0.9]])

    settings = Jitter(shift=0.25, rotation=10)
    torch.testing.assert_close(jitter(image, still, settings=settings), image)
    moved = jitter(image, right, settings=settings)  # looks up a quarter of the side to the left
    assert moved[0, 0, 3, 5] == pytest.approx(1, abs=1e-5)
    flipped = jitter(image, torch.tensor([[0.5, 0.5, 0.5, 0.1]]), settings=Jitter(flip=True))
    torch.testing.assert_close(flipped, image.flip(3))


def test_randaugment_stays_in_range_changes_most_images_and_spares_those_that_drew_nothing():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((200, 3, 8, 8), generator=generator) * 2 - 1
    uniform = torch.rand((200, RANDAUGMENT_DRAWS), generator=generator)
    uniform[0, [0, 3]] = 0.0  # identity twice

    found = randaugment(images, uniform, magnitude=9)

    assert found.min() >= -1
    assert found.max() <= 1
    torch.testing.assert_close(found[0], images[0], atol=1e-5, rtol=0)
    changed = (found - images).abs().amax(dim=(1, 2, 3)) > 0.01
    assert changed.float().mean() > 0.9


@pytest.mark.parametrize("operation", range(1, 10))
def test_every_operation_of_randaugment_does_something(operation):
    images = torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(1)) * 2 - 1
    uniform = torch.zeros((4, RANDAUGMENT_DRAWS))
    uniform[:, 0] = operation / 10 + 0.05

    found = randaugment(images, uniform, magnitude=15)

    assert (found - images).abs().amax(dim=(1, 2, 3)).min() > 0.01


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["real", "mixup", "randaugment", "group-dro", "logit-adjustment", "plain first"])
def test_recorded_steps_give_what_launched_ones_give(name, tiny):
    arm = next(arm for arm in arms_for(["plain"]) if arm.name == name)
    settings = replace(TINY, steps=30)

    recorded = trained(arm, tiny, settings=settings, device="cuda")
    launched = trained(arm, tiny, settings=replace(settings, record_steps=False), device="cuda")

    # Convolutions add up in an order that may change from launch to launch; 30 steps let it grow.
    torch.testing.assert_close(recorded, launched, atol=2e-2, rtol=0)


@pytest.mark.parametrize("arm", [arm for arm in arms_for(["plain"]) if not arm.uses_backbone], ids=lambda arm: arm.name)
def test_images_that_are_read_where_a_step_needs_them_train_the_same_network(arm, tiny):
    rare = tiny.synthetic["plain"]
    read = replace(
        tiny,
        train=replace(tiny.train, images=OnDisk(tiny.train.images)),
        synthetic={"plain": replace(rare, images=OnDisk(rare.images))},
    )

    assert torch.equal(trained(arm, read), trained(arm, tiny))


def test_no_step_holds_more_images_than_its_batch():
    many = images_of([0, 1] * 2000)
    on_disk = OnDisk(many.images)
    data = DownstreamData(
        train=replace(many, images=on_disk),
        validation=images_of([0, 1]),
        test=images_of([0, 1]),
        class_names=("a", "b"),
        group_names=("a", "b"),
    )

    trained(Arm(name="real"), data)

    assert on_disk.most == TINY.batch_size
