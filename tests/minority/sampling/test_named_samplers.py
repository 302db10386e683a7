import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from minority.backbones import Backbone
from minority.diffusion.noise import SampleNoise
from minority.features.pixel_features import pixel_features
from minority.guidance.materials import Lessons
from minority.guidance.method import TrainedMethod
from minority.guidance.noise_aware_network import NoiseAwareSettings
from minority.guidance.registry import METHODS
from minority.neighbours.reference import RealReference
from minority.sampling.draw import draw, draw_images
from minority.sampling.named_samplers import NAMED_SAMPLERS, SAMPLERS, compare, contact_sheet, named_sampler
from minority.sampling.sampler import sample
from minority.sampling.settings import SamplerSettings


@pytest.fixture
def backbone(mixture, trained):
    return Backbone("mixture", mixture, trained, image_shape=(1, 4, 4), num_classes=2, sha256="0" * 64)


#: Those that draw by labels or by nothing.
OF_CLASSES = {
    name: settings
    for name, settings in NAMED_SAMPLERS.items()
    if not any(method.needs_prompts for method in settings.guidance)
}


def needs_images(name):
    return any(method.needs_real_images for method in NAMED_SAMPLERS[name].guidance)


def learnt_parts(backbone, pictures, labels, settings):
    """What the methods of a sampler learn, in a moment."""
    lessons = Lessons(
        backbone=backbone,
        images=pictures,
        labels=labels,
        draw_plain=lambda wanted: draw_images(
            backbone, seed=9, indices=range(len(wanted)), labels=wanted.tolist(), settings=SamplerSettings(steps=4)
        )[0],
    )
    found = {}
    for method in settings.guidance:
        if isinstance(method, TrainedMethod):
            short = replace(method, training=NoiseAwareSettings(width=8, steps=2, batch_size=8))
            parts = found.setdefault(method.key, {})
            for name in method.part_names:
                parts[name] = short.train(name, lessons, parts)
    return found


def test_every_named_sampler_draws_images(backbone):
    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 256, (24, 4, 4, 1), dtype=np.uint8), np.arange(24) % 2
    every = {"seed": 0, "indices": range(4), "labels": [1] * 4}
    given = {"reference": RealReference.fit(pixel_features(pictures), k=5)}
    drawn = {}
    for name, settings in OF_CLASSES.items():
        parts = learnt_parts(backbone, pictures, labels, settings)
        drawn |= compare(backbone, [name], parts=parts, **every, **given)

    assert list(drawn) == list(OF_CLASSES)
    for result in drawn.values():
        assert result.images.shape == (4, 4, 4, 1)
        assert result.evaluations > 0
    assert not np.array_equal(drawn["ancestral"].images, drawn["sgms"].images)
    for name in ("low-density", "minority-guidance", "jepa"):
        assert not np.array_equal(drawn["ancestral"].images, drawn[name].images)
        with pytest.raises(ValueError, match=r"learns from real images before it guides.*\(minority sample --preset\)"):
            compare(backbone, [name], **every)


def test_every_named_sampler_says_its_paper_and_what_it_does():
    assert all(sampler.paper and sampler.line and "\n" not in sampler.line for sampler in SAMPLERS.values())
    assert {name for kind in METHODS.values() for name in kind.samplers()} <= SAMPLERS.keys()


def test_a_comparison_shows_what_each_sampler_draws_alone(backbone):
    both = compare(backbone, ["ddim", "ancestral"], seed=3, indices=[7, 2], labels=[0, 1])

    alone, cost = draw_images(backbone, seed=3, indices=[7, 2], labels=[0, 1], settings=named_sampler("ancestral"))
    assert np.array_equal(both["ancestral"].images, alone)
    assert both["ancestral"].evaluations == cost


@pytest.mark.parametrize("name", [name for name in OF_CLASSES if not needs_images(name)])
def test_a_sample_does_not_depend_on_its_batch(name, backbone):
    settings = replace(named_sampler(name), batch_size=64)

    def drawn(indices, settings=settings):
        return draw(backbone, seed=3, indices=indices, labels=[index // 4 % 2 for index in indices], settings=settings)

    together = drawn(range(12))
    # Alone, in another order, beside strangers, and in batches of four.
    others = [[6], [11, 2, 6, 5], [97, 3, 50, 7, 0]]
    for indices, result in [(i, drawn(i)) for i in others] + [
        (range(12), drawn(range(12), replace(settings, batch_size=4)))
    ]:
        for i, index in enumerate(indices):
            if index < 12:
                assert np.array_equal(result.images[i], together.images[index])
                assert result.root_ancestors[i] == together.root_ancestors[index]


def states(denoiser, trained, settings, *, count, shape, label=None):
    noise = SampleNoise(0, range(count), shape=shape)
    label = None if label is None else torch.full((count,), label)
    return sample(
        denoiser,
        trained.respaced(settings.steps),
        noise,
        label=label,
        guidance=settings.guidance,
        variance=settings.variance,
        solver=settings.chain_solver,
    )[0]


def test_the_fast_solver_draws_from_the_distribution_in_twenty_steps(make_mixture, trained):
    pixel = make_mixture(trained, np.array([-0.5, 0.5]).reshape(2, 1, 1, 1), [0.9, 0.1], 0.15)

    x = states(pixel, trained, named_sampler("dpm-solver"), count=1000, shape=(1, 1, 1)).flatten().numpy()

    quantile = 0.9 * stats.norm.cdf((x + 0.5) / 0.15) + 0.1 * stats.norm.cdf((x - 0.5) / 0.15)
    assert stats.chisquare(np.histogram(quantile, bins=10, range=(0, 1))[0]).pvalue > 0.01


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, settings in OF_CLASSES.items()
        if settings.guidance and name != "truncated" and not needs_images(name)
    ],
)
def test_guided_samplers_raise_the_rare_share(name, mixture, trained):
    settings, label = named_sampler(name), 1 if name in ("classifier-free", "cfg-plus-plus") else None
    if name == "prune-and-branch":
        # The mixture's modes are so far apart that noise to 0.3 of the chain seldom leads from one to the other.
        settings = replace(settings, prune_and_branch=replace(settings.prune_and_branch, perturbation=0.6))
    count = 800 if name in ("temperature", "boosted-solver") else 320

    def rare(settings, label):
        return (
            mixture.mode(states(mixture, trained, settings, count=count, shape=(1, 4, 4), label=label)) == 1
        ).double()

    # The same seeds with and without; chains of one particle group may be copies, particle groups of four are
    # independent.
    gain = (rare(settings, label) - rare(settings.plain(), None)).view(-1, 4).mean(dim=1)
    error = float(gain.std()) / math.sqrt(len(gain))
    assert 0 < error < 0.05
    assert float(gain.mean()) > 3 * error


def test_an_unknown_sampler_is_refused(backbone):
    with pytest.raises(ValueError, match=r"no sampler 'euler'; take one of ancestral, ddim"):
        compare(backbone, ["ancestral", "euler"], seed=0, indices=[0], labels=[0])


def test_a_contact_sheet_shows_one_row_a_sampler():
    rows = [np.full((3, 2, 2, 1), value, dtype=np.uint8) for value in (10, 20)]

    sheet = contact_sheet(rows, enlarge=2, gap=1)

    assert sheet.shape == (2 * 5 + 1, 3 * 5 + 1, 1)
    assert (sheet[1:5, 1:5], sheet[6:10, 11:15]) == (pytest.approx(10), pytest.approx(20))
    assert sheet[0].min() == sheet[-1].min() == 255
    with pytest.raises(ValueError, match="rows of one shape"):
        contact_sheet([])
