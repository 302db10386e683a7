from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from minority.backbones import Backbone
from minority.diffusion.denoiser import Prediction
from minority.diffusion.schedule import NoiseSchedule
from minority.guidance.prune_and_branch import PruneAndBranch
from minority.runtime.memory import in_batches
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw_images, score_images


class OfLimitedMemory(nn.Module):
    """A denoiser of a device that holds so many images; each image's answer depends on that image alone."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.sizes = []

    def forward(self, x_t, timestep, label):
        self.sizes.append(len(x_t))
        if len(x_t) > self.limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory: {len(x_t)} images, {self.limit} fit.")
        return Prediction(0.3 * x_t + 0.01 * label.view(-1, 1, 1, 1))


def backbone(limit):
    return Backbone(
        name="limited",
        denoiser=OfLimitedMemory(limit),
        schedule=NoiseSchedule.cosine(100),
        image_shape=(1, 4, 4),
        num_classes=3,
        sha256="0" * 64,
    )


SETTINGS = SamplerSettings(steps=4, batch_size=16)
INDICES, LABELS = list(range(21)), [i % 3 for i in range(21)]


def draw(limit, settings=SETTINGS):
    model = backbone(limit)
    images, evaluations = draw_images(model, seed=3, indices=INDICES, labels=LABELS, settings=settings)
    return model, images, evaluations


def test_out_of_memory_halves_the_batch_and_every_sample_stays_the_same():
    roomy, images, evaluations = draw(16)
    tight, same, cost = draw(5)

    np.testing.assert_array_equal(same, images)
    assert cost == evaluations
    assert max(roomy.denoiser.sizes) == 16
    # 16 and 8 do not fit, 4 does and is kept to.
    assert tight.denoiser.sizes == [16, 8] + [4] * 4 * 5 + [1] * 4


def test_scores_survive_a_full_memory_too():
    images = np.random.default_rng(0).integers(0, 255, (21, 4, 4, 1), dtype=np.uint8)

    def score(limit):
        return score_images(
            backbone(limit), images, seed=1, indices=INDICES, labels=LABELS, settings=ScoreSettings(elbo_steps=2)
        )

    roomy, tight = score(64), score(3)
    np.testing.assert_array_equal(tight.minority_score, roomy.minority_score)
    np.testing.assert_array_equal(tight.negative_elbo, roomy.negative_elbo)


def test_particle_groups_that_are_evaluated_together_are_never_parted():
    settings = replace(SETTINGS, prune_and_branch=PruneAndBranch(particle_group=4))

    _, images, _ = draw(16, settings)
    tight, same, _ = draw(6, settings)

    np.testing.assert_array_equal(same, images)
    assert max(size for size in tight.denoiser.sizes if size <= 6) == 4
    with pytest.raises(torch.OutOfMemoryError, match="3 fit"):
        draw(3, settings)


def test_where_not_one_sample_fits_the_error_is_the_devices_own():
    with pytest.raises(torch.OutOfMemoryError, match="1 images, 0 fit"):
        draw(0)


def test_another_failure_is_not_taken_for_a_full_memory():
    def fails(part):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        in_batches(4, size=2, work=fails)


def test_every_item_is_done_once_and_in_order():
    done = in_batches(10, size=4, work=lambda part: list(range(part.start, part.stop)))

    assert done == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
