"""Variants of images, drawn with the exact denoiser of a known distribution."""

import numpy as np
import pytest

from minority.backbones import Backbone, load_backbone
from minority.diffusion.pixels import to_pixels
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.boost_and_skip import BoostAndSkip
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.sampling.edit import edit_images
from minority.sampling.settings import SamplerSettings

PLAIN = SamplerSettings(steps=20)


@pytest.fixture
def modes(make_mixture):
    """An unconditional backbone with a common and a rare mode, and images of either."""
    import torch

    schedule = NoiseSchedule.cosine(100)
    means = torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    exact = make_mixture(schedule, means, [0.95, 0.05], deviation=0.1)
    backbone = Backbone("exact", exact, schedule, (1, 4, 4), None, "0" * 64)
    return backbone, to_pixels(means.float()).repeat(30, axis=0)


def edit(backbone, images, fraction, settings=PLAIN, first=0):
    indices = range(first, first + len(images))
    return edit_images(backbone, images, seed=0, indices=indices, labels=None, settings=settings, fraction=fraction)


def test_a_little_noise_keeps_the_mode_and_much_noise_forgets_it(modes):
    backbone, images = modes
    rare = images.mean(axis=(1, 2, 3)) > 127

    little, _ = edit(backbone, images, 0.2)
    much, _ = edit(backbone, images, 0.95)

    assert ((little.mean(axis=(1, 2, 3)) > 127) == rare).all()
    assert (much[rare].mean(axis=(1, 2, 3)) > 127).mean() < 0.5
    assert (little != images).any(axis=(1, 2, 3)).all()


def test_a_shorter_way_costs_less(modes):
    backbone, images = modes

    assert edit(backbone, images[:2], 0.5)[1] == 11
    assert edit(backbone, images[:2], 0.25)[1] == 6


def test_a_variant_does_not_depend_on_its_batch(modes):
    backbone, images = modes

    whole, _ = edit(backbone, images, 0.5)
    small, _ = edit(backbone, images, 0.5, SamplerSettings(steps=20, batch_size=7))

    np.testing.assert_array_equal(whole, small)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SamplerSettings(steps=20, boost_and_skip=BoostAndSkip()), "start of the chain"),
        (SamplerSettings(steps=20, prune_and_branch=PruneAndBranch()), "prune_and_branch"),
    ],
)
def test_methods_that_want_another_start_are_refused(modes, settings, message):
    backbone, images = modes
    with pytest.raises(ValueError, match=message):
        edit(backbone, images, 0.5, settings)


def test_fractions_and_labels_that_do_not_fit_are_refused(modes, tiny_backbone):
    backbone, images = modes
    with pytest.raises(ValueError, match="fraction"):
        edit(backbone, images, 1.0)
    with pytest.raises(ValueError, match="labels must fit"):
        edit(load_backbone(tiny_backbone), images, 0.5)
    with pytest.raises(ValueError, match="as many indices"):
        edit_images(backbone, images, seed=0, indices=[1], labels=None, settings=PLAIN, fraction=0.5)


def test_outside_its_mask_an_image_keeps_every_pixel_and_inside_it_becomes_another(modes):
    backbone, _ = modes
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    masks = np.zeros((40, 4, 4), dtype=bool)
    masks[:, 1:, :3] = True

    made, _ = edit_images(
        backbone, images, seed=0, indices=range(40), labels=None, settings=PLAIN, fraction=0.95, masks=masks
    )

    np.testing.assert_array_equal(made[~masks], images[~masks])
    # What is redrawn is of either mode, 64 or 191, give or take the mixture's deviation.
    near = np.minimum(np.abs(made[masks].astype(int) - 64), np.abs(made[masks].astype(int) - 191))
    assert np.median(near) < 20
    with pytest.raises(ValueError, match="need masks of that shape"):
        edit_images(
            backbone, images, seed=0, indices=range(40), labels=None, settings=PLAIN, fraction=0.5, masks=masks[:, 1:]
        )
