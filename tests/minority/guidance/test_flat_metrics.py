"""Where a metric is flat there is nothing to climb, and a guided step is the unguided one."""

import numpy as np
import pytest
import torch
from torch import nn

from minority.diffusion.noise import SampleNoise
from minority.guidance.classifier_free import ClassifierFree
from minority.guidance.distances import feature_distance
from minority.guidance.jepa_guidance import JepaGuidance
from minority.guidance.low_density import ClassGaussians, LowDensity
from minority.guidance.minority_guidance import MinorityGuidance
from minority.guidance.self_guidance import SelfGuidance
from minority.sampling.sampler import sample

SHAPE = (1, 4, 4)


def draw(denoiser, schedule, guidance, **options):
    return sample(denoiser, schedule, SampleNoise(0, range(3), shape=SHAPE), guidance=guidance, **options)[0]


def blind(x, *_):
    """Features, or logits, that are the same for every image."""
    return 0 * x.flatten(1)[:, :3]


class Blind(nn.Module):
    """A classifier and embedding that tells nothing from anything."""

    head, features = nn.Linear(3, 3), staticmethod(blind)

    def forward(self, x_t, timestep):
        return blind(x_t)


class InBlindSpace(SelfGuidance):
    """Its metric is 0 everywhere."""

    def distance_function(self, device):
        return feature_distance(blind)


FLAT_GAUSSIANS = ClassGaussians(
    timesteps=torch.tensor([0]),
    mean=torch.ones(1, 1, 3),
    precision=torch.eye(3)[None, None],
    log_determinant=torch.ones(1, 1),
)
FLAT = {
    "minority guidance": MinorityGuidance(classifier=Blind(), scale=100.0),
    "low density": LowDensity(
        embedding=Blind(), gaussians=FLAT_GAUSSIANS, discriminator=Blind(), hardness_scale=100.0, realism_scale=100.0
    ),
    "jepa, linear encoder": JepaGuidance(encoder=lambda x: x.flatten(1)[:, :3], scale=100.0),
    "jepa, linear encoder, without the Jacobian": JepaGuidance(
        encoder=lambda x: x.flatten(1)[:, :3], scale=100.0, jacobian=False
    ),
    "jepa, blind encoder": JepaGuidance(encoder=blind, scale=100.0),
    "self-guidance in a blind space": InBlindSpace(scale=100.0, interval=1),
    "self-guidance in a blind space, without the Jacobian": InBlindSpace(scale=100.0, interval=1, jacobian=False),
    "self-guidance in a blind space, not normalised": InBlindSpace(scale=100.0, interval=1, normalise=False),
}


@pytest.mark.parametrize("name", FLAT)
def test_where_a_metric_is_flat_every_step_is_the_unguided_one(name, mixture, trained):
    schedule, plain, guided = trained.respaced(20), [], []

    draw(mixture, schedule, [], on_step=lambda arrival: plain.append(arrival.x))
    draw(mixture, schedule, [FLAT[name]], on_step=lambda arrival: guided.append(arrival.x))

    assert all(torch.equal(ours, theirs) for ours, theirs in zip(guided, plain, strict=True))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("jacobian", [True, False])
def test_a_flat_metric_gives_the_unguided_step(normalise, jacobian, make_mixture, trained):
    # A distribution without spread: everything is denoised to the same image, and the metric is 0.
    point = make_mixture(trained, np.zeros((1, *SHAPE)), [1.0], 0.0)
    guidance = [SelfGuidance(scale=100.0, interval=1, normalise=normalise, jacobian=jacobian)]

    plain, guided = draw(point, trained, []), draw(point, trained, guidance)

    torch.testing.assert_close(guided, plain, atol=1e-6, rtol=0)


def test_labels_that_make_no_difference_give_the_unguided_sample(make_mixture, trained):
    one_mode, schedule = make_mixture(trained, np.zeros((1, *SHAPE)), [1.0], 0.3), trained.respaced(20)
    label = torch.zeros(3, dtype=torch.int64)

    guided = draw(one_mode, schedule, [ClassifierFree(scale=100.0)], label=label)

    assert torch.equal(guided, draw(one_mode, schedule, []))
