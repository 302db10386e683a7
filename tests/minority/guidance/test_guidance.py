"""Guidance methods on the exact denoiser of a mixture with one rare mode."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from minority.backbones import Backbone
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import to_pixels
from minority.guidance import Guidance
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.jepa_guidance import JepaGuidance
from minority.guidance.low_density import LowDensity, LowDensitySettings
from minority.guidance.materials import Lessons, Materials
from minority.guidance.minority_guidance import MinorityGuidance, MinorityGuidanceSettings, rarity_levels
from minority.guidance.noise_aware_network import NoiseAwareSettings
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.guidance.self_guidance import SelfGuidance
from minority.guidance.shaped_noise import ShapedNoise, truncated
from minority.sampling.sampler import sample
from minority.sampling.settings import SamplerSettings
from minority.solvers.ddim import Ddim

SHAPE = (1, 4, 4)
CHAINS = 400
#: Standard error of the rare share 0.1 over so many chains.
ERROR = math.sqrt(0.1 * 0.9 / CHAINS)
SMALL = NoiseAwareSettings(width=8, steps=150, batch_size=64, learning_rate=1e-2)


def draw(mixture, schedule, guidance, *, indices=range(CHAINS), seed=0, **options):
    return sample(mixture, schedule, SampleNoise(seed, indices, shape=SHAPE), guidance=guidance, **options)[0]


def rare_share(mixture, images):
    return float((mixture.mode(images) == 1).float().mean())


@pytest.fixture
def schedule(trained):
    return trained.respaced(40)


@pytest.fixture
def plain_share(mixture, schedule):
    return rare_share(mixture, draw(mixture, schedule, []))


def learnt(method, mixture, trained, images, *, labels=None, plain=None):
    """A method with what it learns from images and plain samples."""
    backbone = Backbone("mixture", mixture, trained, image_shape=SHAPE, num_classes=None, sha256="0" * 64)
    labels = np.zeros(len(images), dtype=np.int64) if labels is None else labels
    lessons = Lessons(backbone=backbone, images=images, labels=labels, draw_plain=lambda wanted: plain[: len(wanted)])
    parts = {}
    for name in method.part_names:
        parts[name] = method.train(name, lessons, parts)
    return method.ready(backbone, Materials(parts={method.key: parts}))


def real_images(mixture, count=300):
    generator = torch.Generator().manual_seed(0)
    mode = (torch.rand(count, generator=generator) < 0.1).long()
    x = mixture.means[mode].float() + mixture.deviation * torch.randn((count, *SHAPE), generator=generator)
    return to_pixels(x), mode.numpy()


@pytest.mark.parametrize(("skip", "skipped"), [(0.0, 0), (0.29, 29), (0.058, 5), (0.06, 6)])
def test_boost_and_skip_leaves_out_whole_steps(skip, skipped, mixture, trained):
    steps, noise = [], SampleNoise(0, [0], shape=SHAPE)
    method = BoostAndSkip(boost=3.0, skip=skip)

    draw(mixture, trained.respaced(100), [method], indices=[0], on_step=lambda arrival: steps.append(arrival.step))

    assert steps == list(range(99 - skipped, -1, -1))
    assert torch.equal(method.start(trained, noise)[0], 3.0 * noise.start())


def test_methods_combine(mixture, schedule, plain_share):
    both = [BoostAndSkip(boost=4.0, skip=0.1), ShapedNoise(ancestral_scale=1.5)]

    shares = [rare_share(mixture, draw(mixture, schedule, methods)) for methods in (both, both[:1], both[1:])]

    assert shares[0] > max(shares[1:]) > plain_share


def test_two_methods_may_differentiate_the_same_step(mixture, schedule):
    once = draw(mixture, schedule, [SelfGuidance(scale=2.0)], indices=range(4))
    twice = draw(mixture, schedule, [SelfGuidance(scale=1.0), SelfGuidance(scale=1.0)], indices=range(4))

    torch.testing.assert_close(once, twice, atol=1e-5, rtol=0)


@dataclass(frozen=True)
class PullTowards(Guidance):
    """A method that exists in this test only: pull the clean estimate towards a brightness."""

    brightness: float
    strength: float

    def acts_at(self, step, num_steps):
        return step < num_steps // 2

    def shift(self, estimate, chain, noise):
        return self.strength * (self.brightness - estimate.x0_hat)


def test_a_new_method_needs_no_change_elsewhere(mixture, schedule, plain_share):
    share = rare_share(mixture, draw(mixture, schedule, [PullTowards(brightness=0.5, strength=0.2)]))

    assert share > plain_share + 3 * ERROR


def _flat(x):
    return x.flatten(1)[:, :3]


def test_classifier_free_guidance_sharpens_the_label(mixture, schedule):
    label = torch.ones(100, dtype=torch.int64)

    images = draw(mixture, schedule, [ClassifierFree(scale=1.0)], indices=range(100), label=label)
    free = draw(mixture, schedule, [ClassifierFree(scale=0.0)], indices=range(100), label=label)
    strong = draw(mixture, schedule, [ClassifierFree(scale=3.0)], indices=range(100), label=label)

    assert torch.equal(free, draw(mixture, schedule, [], indices=range(100)))
    assert rare_share(mixture, images) == 1.0
    assert strong.mean() > images.mean()


def test_classifier_free_guidance_costs_twice_as_much(mixture, schedule):
    label, noise = torch.zeros(2, dtype=torch.int64), SampleNoise(0, range(2), shape=SHAPE)

    _, cost = sample(
        mixture, schedule, noise, label=label, guidance=[ClassifierFree(), SelfGuidance(scale=1.0, interval=10)]
    )

    guided = schedule.num_steps // 10
    assert (cost.forwards, cost.backwards) == (2 * (schedule.num_steps + guided), 2 * guided)


def test_a_part_of_the_steps_takes_the_labelled_prediction_alone(mixture, schedule):
    def drawn(share):
        noise = SampleNoise(0, range(4), shape=SHAPE)
        labels = torch.ones(4, dtype=torch.int64)
        return sample(mixture, schedule, noise, label=labels, guidance=[ClassifierFree(scale=3.0, share=share)])

    half, cost = drawn(0.5)

    assert cost.forwards == schedule.num_steps + schedule.num_steps // 2
    assert not torch.equal(half, drawn(1.0)[0])
    assert not torch.equal(half, drawn(0.0)[0])
    with pytest.raises(ValueError, match=r"ClassifierFree.share must lie in \[0, 1\], got 1.5"):
        ClassifierFree(share=1.5)


def test_settings_that_a_method_got_later_are_shown_where_they_are_set():
    def shown(**settings):
        return SamplerSettings(classifier_free=ClassifierFree(scale=2.0, **settings)).to_dict()["classifier_free"]

    assert shown() == {"scale": 2.0}
    assert shown(share=0.5) == {"scale": 2.0, "share": 0.5}


def test_classifier_free_guidance_without_labels_is_refused(mixture, schedule):
    with pytest.raises(ValueError, match="needs a label for every sample"):
        draw(mixture, schedule, [ClassifierFree()], indices=[0])


@pytest.mark.parametrize(
    ("methods", "solver", "reason"),
    [
        ([BoostAndSkip(), BoostAndSkip()], None, "choose the start"),
        ([ClassifierFree(), ClassifierFree()], None, "two classifier-free scales"),
        ([PruneAndBranch(), PruneAndBranch()], None, "prune and branch the chains"),
        ([PruneAndBranch()], Ddim(), "branches would stay copies"),
    ],
)
def test_combinations_that_cannot_work_are_refused(methods, solver, reason, mixture, schedule):
    options = {} if solver is None else {"solver": solver}
    with pytest.raises(ValueError, match=reason):
        draw(mixture, schedule, methods, indices=range(4), **options)


def test_truncated_noise_has_the_truncated_normal_s_quantiles():
    noise = torch.randn(20000, generator=torch.Generator().manual_seed(0))

    cut = truncated(noise, 1.5)

    assert cut.abs().max() <= 1.5
    assert torch.equal(cut.argsort(), noise.argsort())
    # Variance of a standard normal cut off at +-1.5.
    density, inside = math.exp(-1.125) / math.sqrt(2 * math.pi), math.erf(1.5 / math.sqrt(2))
    assert float(cut.var()) == pytest.approx(1 - 2 * 1.5 * density / inside, rel=0.03)
    assert truncated(noise, None) is noise


def test_minority_guidance_learns_what_is_rare(mixture, schedule, trained, plain_share):
    images, _ = real_images(mixture)
    guidance = learnt(MinorityGuidanceSettings(levels=5, scale=3.0, draws=2, training=SMALL), mixture, trained, images)

    share = rare_share(mixture, draw(mixture, schedule, [guidance]))

    assert share > plain_share + 3 * ERROR
    assert guidance.classifier.head.out_features == 5


def test_rarity_levels_are_of_equal_size_with_the_rarest_last():
    scores = np.random.default_rng(0).permutation(np.arange(100.0))

    levels = rarity_levels(scores, levels=4)

    assert np.bincount(levels).tolist() == [25, 25, 25, 25]
    assert scores[levels == 3].min() > scores[levels == 2].max()
    with pytest.raises(ValueError, match=r"levels must lie in 2 \.\.\. 100"):
        rarity_levels(scores, levels=101)


def test_low_density_guidance_leaves_the_middle(mixture, schedule, trained, plain_share):
    images, _ = real_images(mixture)
    generated = to_pixels(draw(mixture, schedule, [], indices=range(1000, 1200)))
    settings = LowDensitySettings(hardness_scale=3.0, realism_scale=0.5, plain_samples=200, training=SMALL)
    guidance = learnt(settings, mixture, trained, images, plain=generated)

    share = rare_share(mixture, draw(mixture, schedule, [guidance]))

    assert share > plain_share + 3 * ERROR


def test_low_density_hardness_is_the_gaussian_s_negative_log_likelihood(mixture, trained):
    images, mode = real_images(mixture)
    settings = LowDensitySettings(plain_samples=50, training=NoiseAwareSettings(width=8, steps=3))
    guidance = learnt(settings, mixture, trained, images, labels=mode, plain=images)
    gaussians, features = guidance.gaussians, torch.randn(6, 8, generator=torch.Generator().manual_seed(0))

    hardness = gaussians.hardness(features, int(gaussians.timesteps[2]), torch.tensor([0, 1, 0, 1, 0, 1]))

    for i, label in enumerate([0, 1, 0, 1, 0, 1]):
        normal = torch.distributions.MultivariateNormal(
            gaussians.mean[2, label].double(), precision_matrix=gaussians.precision[2, label].double()
        )
        constant = 4 * math.log(2 * math.pi)
        assert float(hardness[i]) == pytest.approx(-float(normal.log_prob(features[i].double())) - constant, rel=1e-3)


def test_without_labels_the_hardness_is_that_of_all_classes(mixture, trained):
    images, mode = real_images(mixture)
    settings = LowDensitySettings(plain_samples=50, training=NoiseAwareSettings(width=8, steps=3))
    guidance = learnt(settings, mixture, trained, images, labels=mode, plain=images)
    features, gaussians = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), guidance.gaussians

    apart = [gaussians.hardness(features, 0, torch.full((6,), label)) for label in (0, 1)]
    together = gaussians.hardness(features, 0, None)

    torch.testing.assert_close(together, -torch.logsumexp(-torch.stack(apart), dim=0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SelfGuidance(scale=1.0, interval=0), "interval must be at least 1"),
        (lambda: ShapedNoise(start_scale=0.0), "start_scale must be positive"),
        (lambda: ShapedNoise(truncate=-1.0), "truncate must be positive"),
        (lambda: ShapedNoise(ancestral_scale=-1.0), "ancestral_scale must not be negative"),
        (lambda: JepaGuidance(encoder=_flat, top=0), "top and .interval must be at least 1"),
        (lambda: JepaGuidance(encoder=_flat, below=0.0), r"below must lie in \(0, 1\]"),
        (lambda: JepaGuidance(encoder=_flat, scale=-1.0), "must not be negative"),
        (lambda: LowDensity(embedding=None, gaussians=None, discriminator=None, hardness_scale=-1), "not be negative"),
        (lambda: NoiseAwareSettings(width=12), "multiple of 8"),
        (lambda: NoiseAwareSettings(steps=0), "steps must be at least 1"),
        (lambda: NoiseAwareSettings(learning_rate=0), "learning_rate must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_level_that_does_not_exist_is_refused(mixture, trained):
    images, _ = real_images(mixture, count=20)
    settings = MinorityGuidanceSettings(levels=2, draws=1, training=NoiseAwareSettings(width=8, steps=1))
    guidance = learnt(settings, mixture, trained, images)
    with pytest.raises(ValueError, match="level must be one of 2 levels, got 5"):
        replace(settings, level=5)
    with pytest.raises(ValueError, match="level must be one of 2 levels, got 5"):
        MinorityGuidance(classifier=guidance.classifier, level=5)
