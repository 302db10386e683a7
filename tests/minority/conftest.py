"""Exact denoisers: what a perfect network would say about a known distribution."""

import warnings

import numpy as np
import pytest
import torch

from minority.diffusion.denoiser import Prediction
from minority.diffusion.schedule import NoiseSchedule
from tests.tiny_networks import tiny_backbone


class Mixture:
    """The exact denoiser of a mixture of isotropic normals.

    Args:
        schedule: All trained noise levels.
        means: (K, C, H, W).
        weights: (K,) summing to 1.
        deviation: Of every mode in every pixel.
    """

    def __init__(self, schedule, means, weights, deviation):
        self.schedule, self.means = schedule, torch.as_tensor(means, dtype=torch.float64)
        self.weights, self.deviation = torch.as_tensor(weights, dtype=torch.float64), deviation

    def logits(self, x_t, abar):
        """(B, K) logarithm of each mode's share in x_t, but for a constant; and x_t's offsets and their variance."""
        variance = abar * self.deviation**2 + 1 - abar
        off = x_t[:, None] - abar**0.5 * self.means.to(x_t)[None]
        return self.weights.log().to(x_t) - off.square().flatten(2).sum(dim=2) / (2 * variance), off, variance

    def __call__(self, x_t, timestep, label):
        abar = float(self.schedule.abar[int(timestep[0])])
        logits, off, variance = self.logits(x_t, abar)
        share = logits.softmax(dim=1)
        if label is not None:
            # A label names a mode; one more stands for none.
            known = torch.nn.functional.one_hot(label, self.means.shape[0] + 1)[:, :-1].to(x_t)
            share = torch.where(known.sum(dim=1, keepdim=True) > 0, known, share)
        score = -(share[:, :, None, None, None] * off).sum(dim=1) / variance
        return Prediction(eps=-((1 - abar) ** 0.5) * score)

    def mode(self, images):
        """(B,) the nearest mode."""
        return (images[:, None] - self.means.to(images)[None]).square().flatten(2).sum(dim=2).argmin(dim=1)


@pytest.fixture(scope="module")
def trained():
    return NoiseSchedule.cosine(200)


@pytest.fixture(scope="module")
def mixture(trained):
    """A common mode at -0.5 (90 %) and a rare one at 0.5, 4x4 pixels."""
    means = np.stack([np.full((1, 4, 4), -0.5), np.full((1, 4, 4), 0.5)])
    return Mixture(trained, means, [0.9, 0.1], 0.15)


@pytest.fixture(scope="module")
def make_mixture():
    return Mixture


@pytest.fixture(scope="module")
def make_tiny_backbone():
    return tiny_backbone


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone()


@pytest.fixture
def plain_convolutions():
    """Torch's own convolutions, whose rounding does not depend on which of oneDNN's kernels this processor gets.

    A recording meets its tolerances on one processor by oneDNN and misses them on another; by these it is met with
    room, as it is by the same network in float64.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TF32 acceleration on top of oneDNN")
        with torch.backends.mkldnn.flags(enabled=False):
            yield
