from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from minority.classifier import ClassifierSettings
from minority.diffusion.noise import SampleNoise
from minority.diffusion.schedule import NoiseSchedule
from minority.diffusion.score import minority_score
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.self_guidance import SelfGuidance
from minority.runtime.progress import heard_by
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw_images, from_pixels, score_images, to_pixels
from minority.sampling.sampler import sample
from minority.selection.labelling import Labeller

GUIDED = SamplerSettings(
    steps=8, self_guidance=SelfGuidance(scale=2.0, interval=2), boost_and_skip=BoostAndSkip(boost=2.0, skip=0.2)
)


def draw(backbone, indices, labels, settings=GUIDED):
    return draw_images(backbone, seed=5, indices=indices, labels=labels, settings=settings)


def test_a_sample_does_not_depend_on_its_batch(backbone):
    together, _ = draw(backbone, [0, 1, 2, 3, 4], [0, 1, 2, 0, 1])
    alone, _ = draw(backbone, [3], [0])
    in_pairs, _ = draw(
        backbone, [4, 3, 2, 1, 0], [1, 0, 2, 1, 0], settings=SamplerSettings(**{**vars(GUIDED), "batch_size": 2})
    )

    # A U-Net's last bits may differ by batch size, so that a pixel may round the other way.
    assert np.abs(together[3].astype(int) - alone[0]).max() <= 1
    assert np.abs(together[::-1].astype(int) - in_pairs).max() <= 1


def test_one_batch_is_counted_by_its_steps_and_several_by_their_samples(backbone):
    counts = []

    @contextmanager
    def listen(name, unit):
        yield lambda done, total: counts.append((unit, done, total))

    with heard_by(listen):
        draw(backbone, [0, 1], [0, 1], settings=SamplerSettings(steps=4))
        in_one, counts[:] = list(counts), []
        draw(backbone, [0, 1], [0, 1], settings=SamplerSettings(steps=4, batch_size=1))

    assert in_one == [("steps", step, 4) for step in (1, 2, 3, 4)] + [("samples", 2, 2)]
    assert counts == [("samples", 1, 2), ("samples", 2, 2)]


def test_seed_index_and_label_each_change_the_sample(backbone):
    images, _ = draw(backbone, [0, 1, 0], [0, 0, 1])
    other_seed, _ = draw_images(backbone, seed=6, indices=[0], labels=[0], settings=GUIDED)

    assert not np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], other_seed[0])


def test_cost_counts_forwards_and_backwards(backbone):
    _, plain = draw(backbone, [0], [0], settings=SamplerSettings(steps=10))
    _, guided = draw(
        backbone, [0], [0], settings=SamplerSettings(steps=10, self_guidance=SelfGuidance(scale=1.0, interval=5))
    )
    _, jacobian_free = draw(
        backbone,
        [0],
        [0],
        settings=SamplerSettings(steps=10, self_guidance=SelfGuidance(scale=1.0, interval=5, jacobian=False)),
    )
    _, skipped = draw(backbone, [0], [0], settings=SamplerSettings(steps=10, boost_and_skip=BoostAndSkip(skip=0.3)))

    # Steps 0 and 5 are guided: one forward more each, and a backward pass that counts as two.
    assert (plain, guided, jacobian_free, skipped) == (10, 10 + 2 + 4, 10 + 2, 7)


def test_no_guidance_is_left_in_plain_settings():
    assert GUIDED.plain().guidance == []
    assert GUIDED.plain().steps == GUIDED.steps


def test_plain_settings_of_text_to_image_models_keep_what_makes_prompts_obeyed():
    settings = replace(GUIDED, classifier_free=ClassifierFree(scale=3))
    assert settings.plain().guidance == []
    assert settings.plain(by_prompts=True).guidance == [ClassifierFree(scale=3)]
    assert GUIDED.plain(by_prompts=True) == GUIDED.plain()


def test_pixels_survive_the_way_there_and_back():
    images = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1)

    np.testing.assert_array_equal(to_pixels(from_pixels(images)), images)


def test_values_outside_the_range_are_clipped():
    assert to_pixels(torch.tensor([[[[-7.0, 7.0]]]])).flatten().tolist() == [0, 255]


def test_labels_must_go_with_the_backbone(backbone):
    with pytest.raises(ValueError, match="knows 3 classes; give a label for every sample"):
        draw(backbone, [0], None)
    with pytest.raises(ValueError, match="2 samples need as many labels, got 1"):
        draw(backbone, [0, 1], [0])


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (SamplerSettings, "batch_size", 0),
        (ScoreSettings, "perturbation", 1.0),
        (ScoreSettings, "draws", 0),
        (ScoreSettings, "elbo_steps", 0),
    ],
)
def test_impossible_settings_are_refused(kind, field, value):
    with pytest.raises(ValueError, match=f"{kind.__name__}.{field}|elbo_steps"):
        kind(**{field: value})


def test_scores_of_an_image_do_not_depend_on_its_batch(backbone):
    images, _ = draw(backbone, range(5), [0, 1, 2, 0, 1])
    settings = ScoreSettings(draws=2, elbo_steps=4)

    def scores(of, indices, labels, batch_size):
        return score_images(
            backbone, of, seed=5, indices=indices, labels=labels, settings=settings, batch_size=batch_size
        )

    together = scores(images, range(5), [0, 1, 2, 0, 1], 64)
    alone = scores(images[3:4], [3], [0], 64)
    in_pairs = scores(images, range(5), [0, 1, 2, 0, 1], 2)

    np.testing.assert_allclose(together.minority_score, in_pairs.minority_score, rtol=1e-4)
    np.testing.assert_allclose(together.negative_elbo, in_pairs.negative_elbo, rtol=1e-4)
    np.testing.assert_allclose(together.minority_score[3], alone.minority_score[0], rtol=1e-4)


def test_the_minority_score_of_a_gaussian_is_its_closed_form():
    """Data N(0, 1): the best denoiser gives x0_hat = sqrt(abar) x_s, so that the score is known for every image."""
    schedule = NoiseSchedule.cosine(1000)

    def denoiser(x_t, timestep, label):
        from minority.diffusion.denoiser import Prediction

        abar = torch.from_numpy(schedule.abar).float()[timestep][:, None, None, None]
        return Prediction((1 - abar).sqrt() * x_t)  # E[eps | x_t]

    images = torch.linspace(-1, 1, 5).reshape(5, 1, 1, 1).expand(5, 1, 8, 8)
    noise = SampleNoise(0, range(5), shape=(1, 8, 8))

    score = minority_score(denoiser, schedule, images, noise, perturbations=(0.5,), draws=200)

    abar = schedule.abar[500]
    expected = 64 * ((1 - abar) ** 2 * images[:, 0, 0, 0] ** 2 + abar * (1 - abar))
    # The mean of 200 x 64 squares: relative standard error below 2 %.
    torch.testing.assert_close(score, expected.float(), rtol=0.06, atol=0)
    assert score[0] > score[1] > score[2]


def test_the_labeller_names_groups_that_it_has_learnt():
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], 40)
    images = (rng.integers(0, 60, size=(80, 8, 8, 1)) + 150 * groups[:, None, None, None]).astype(np.uint8)

    labeller = Labeller.train(images, groups, num_groups=2, settings=ClassifierSettings(steps=20, width=8), members=2)
    named, confidence = labeller.label(images[::8])

    assert named.tolist() == groups[::8].tolist()
    assert (confidence > 0.5).all()
    assert (confidence <= 1).all()


def test_two_starts_cannot_be_combined(backbone):
    noise = SampleNoise(0, [0], shape=(1, 8, 8))
    with pytest.raises(ValueError, match="start"):
        sample(
            backbone.denoiser,
            backbone.schedule.respaced(4),
            noise,
            label=torch.tensor([0]),
            guidance=[BoostAndSkip(), BoostAndSkip()],
        )
