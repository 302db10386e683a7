import numpy as np
import pytest
import torch

from minority.backbones import BackboneError, load_backbone
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import from_pixels, to_pixels
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.cost import expected_cost
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw_images, score_images
from minority.sampling.edit import edit_images
from minority.sampling.sampler import sample
from minority.sampling.two_stage import UpsamplerSettings, join_stages

QUICK = SamplerSettings(steps=3, self_guidance=SelfGuidance(scale=1.0, interval=2, jacobian=False))
SECOND = UpsamplerSettings(steps=4)


@pytest.fixture(scope="module")
def stages(tiny_pipelines, tmp_path_factory):
    first, upsampler, flags = tiny_pipelines.adm_files(tmp_path_factory.mktemp("adm"))
    return load_backbone(first, **flags["first"]), load_backbone(upsampler, **flags["upsampler"])


@pytest.fixture(scope="module")
def both(stages):
    return join_stages(*stages, settings=SECOND)


def draw(backbone, indices, *, seed=0, settings=QUICK):
    return draw_images(backbone, seed=seed, indices=indices, labels=[i % 7 for i in indices], settings=settings)


def test_two_stages_draw_large_images_as_one_backbone(stages, both):
    images, evaluations = draw(both, range(3))

    assert images.shape == (3, 16, 16, 3)
    assert (both.image_shape, both.state_shape, both.num_classes) == ((3, 16, 16), (3, 8, 8), 7)
    assert both.name == "first+upsampler"
    # Three steps of which one or two are guided by one more call, then four of the second stage.
    assert evaluations == draw(stages[0], range(3))[1] + 4 == expected_cost(QUICK, both)


def test_a_sample_of_two_stages_does_not_depend_on_its_batch(both):
    together, _ = draw(both, [4, 9, 2])

    alone, _ = draw(both, [9])

    assert np.abs(together[1].astype(int) - alone[0].astype(int)).max() <= 1  # another batch may round another way


def test_the_second_stage_is_the_upsampler_on_the_first_stages_files(stages, both):
    first, upsampler = stages
    indices, label = [4, 9], torch.tensor([4, 2])
    small, _ = draw(first, indices)

    large, _ = draw(both, indices)

    noise = SampleNoise(0, indices, shape=(3, 16, 16), stage=1)
    with torch.no_grad():
        denoise = upsampler.denoiser.conditioned_on(from_pixels(small))
        expected, _ = sample(denoise, upsampler.schedule.respaced(4), noise, label=label)
    np.testing.assert_array_equal(large, to_pixels(expected))


def test_stages_have_noise_of_their_own_and_the_first_keeps_its_old_one():
    shape = (1, 2, 2)
    first, second = SampleNoise(3, [5], shape=shape), SampleNoise(3, [5], shape=shape, stage=1)

    assert torch.equal(first.start(), SampleNoise(3, [5], shape=shape, stage=0).start())
    draws = [first.start(), first.ancestral(2), second.start(), second.ancestral(2)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == 4
    # Pinned: every sample that was ever drawn hangs on these numbers (numpy's Philox).
    plain = np.random.Generator(
        np.random.Philox(key=np.array([3, 5], dtype=np.uint64), counter=np.zeros(4, dtype=np.uint64))
    )
    np.testing.assert_array_equal(first.start()[0].numpy(), plain.standard_normal(shape, dtype=np.float32))


def test_the_seed_changes_the_second_stage_too(stages):
    # The first stage draws the same image whatever the noise, if it is nearly not walked at all.
    both = join_stages(*stages, settings=SECOND)
    states = torch.zeros(1, 3, 8, 8)

    one, other = (both.finish(states, seed=seed, indices=[0], label=torch.tensor([1]))[0] for seed in (0, 1))

    assert not torch.equal(one, other)


def test_a_deterministic_upsampler_is_solved_with_its_own_settings(stages):
    quick = join_stages(*stages, settings=UpsamplerSettings(steps="ddim2", solver="ddim"))

    images, evaluations = draw(quick, [0])

    assert images.shape == (1, 16, 16, 3)
    assert evaluations == draw(stages[0], [0])[1] + 2


def test_scores_and_edits_work_on_the_first_stages_images(both):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    settings = ScoreSettings(elbo_steps=2, draws=1)

    scores = score_images(both, images, seed=0, indices=[0, 1], labels=[1, 2], settings=settings)
    variants, _ = edit_images(
        both, images, seed=0, indices=[0, 1], labels=[1, 2], settings=SamplerSettings(steps=4), fraction=0.5
    )

    assert np.isfinite(scores.negative_elbo).all()
    assert variants.shape == images.shape
    small = both.encode(from_pixels(images))
    means = from_pixels(images).unflatten(2, (8, 2)).unflatten(4, (8, 2)).mean(dim=(3, 5))
    assert (small - means).abs().max() <= 1 / 255 + 1e-6  # to the nearest 8-bit level
    assert torch.equal(from_pixels(to_pixels(small)), small)


def test_either_stage_changes_the_checksum(stages):
    first, upsampler = stages

    sums = {first.sha256, upsampler.sha256, join_stages(first, upsampler).sha256}

    assert len(sums) == 3


def test_an_upsampler_alone_says_what_it_is(stages):
    with pytest.raises(ValueError, match=r"an upsampler, the second of two stages: join it to the first"):
        draw(stages[1], [0])


def test_stages_that_do_not_fit_are_refused(stages, tiny_pipelines, tmp_path):
    from diffusers import DDIMPipeline

    first, upsampler = stages
    pipeline = DDIMPipeline(tiny_pipelines.unet(sample_size=12), tiny_pipelines.ddim())
    other = load_backbone(tiny_pipelines.save(pipeline, tmp_path / "other"))
    pipeline = DDIMPipeline(tiny_pipelines.unet(), tiny_pipelines.ddim())
    unlabelled = load_backbone(tiny_pipelines.save(pipeline, tmp_path / "unlabelled"))

    with pytest.raises(BackboneError, match="first is no upsampler: it takes no low-resolution image"):
        join_stages(first, first)
    with pytest.raises(BackboneError, match="upsampler draws no small images, so it cannot be the first"):
        join_stages(upsampler, upsampler)
    with pytest.raises(BackboneError, match=r"no multiple of the \(3, 12, 12\) of other"):
        join_stages(other, upsampler)
    with pytest.raises(BackboneError, match="upsampler knows 7 classes, unlabelled none"):
        join_stages(unlabelled, upsampler)
    with pytest.raises(ValueError, match="5000"):
        join_stages(first, upsampler, settings=UpsamplerSettings(steps=5000))
    with pytest.raises(ValueError, match="must be ancestral or ddim, got 'euler'"):
        UpsamplerSettings(solver="euler")


def test_half_precision_reaches_both_stages(both):
    half = both.in_precision("bf16")

    dtypes = {parameter.dtype for parameter in half.denoiser.parameters()}
    dtypes |= {parameter.dtype for parameter in half.codec.upsampler.denoiser.parameters()}
    assert dtypes == {torch.bfloat16}
    assert next(both.codec.upsampler.denoiser.parameters()).dtype == torch.float32
