"""A class-conditional diffusion model as a classifier that needs no training image (Li et al., ICCV 2023).

An image is noised, and the network predicts the noise once under every class. The class under which it predicts best
is the one that the image is likeliest to belong to:

    k_hat = argmin_k  E_{t, eps} || eps - eps_hat(sqrt(abar_t) x + sqrt(1 - abar_t) eps, t, k) ||^2

All classes of an image meet the same noise at the same levels, so that what the noise adds to their errors cancels in
the comparison (the paper's section 3.2).

Li, Prabhudesai, Duggal, Brown & Pathak, "Your Diffusion Model is Secretly a Zero-Shot Classifier", arXiv 2303.16203.

Shapes: B images, K classes, L noise levels, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from minority.backbones import Backbone
from minority.diffusion.chain import Chain
from minority.diffusion.finite import require_finite
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import from_pixels
from minority.engine.prepare import prepared
from minority.runtime.device_lock import device_lock
from minority.runtime.image_arrays import Images
from minority.runtime.memory import in_batches


@dataclass(frozen=True, kw_only=True)
class ZeroShotSettings:
    """How many questions the network is asked about an image.

    Attributes:
        levels: Noise levels, evenly spaced over the trained chain, >= 1.
        draws: Noises a level, >= 1. An image costs levels * draws evaluations a class.
        lowest: The cleanest level as a fraction of the chain, in [0, 1).
        highest: The noisiest, in (lowest, 1), or equal to it where there is one level.
    """

    levels: int = 10
    draws: int = 1
    lowest: float = 0.05
    highest: float = 0.95

    def __post_init__(self) -> None:
        if self.levels < 1 or self.draws < 1:
            raise ValueError(
                f"ZeroShotSettings.levels and .draws must be at least 1, got {self.levels} and {self.draws}."
            )
        if not 0 <= self.lowest <= self.highest < 1:
            raise ValueError(
                f"ZeroShotSettings.lowest and .highest must rise inside [0, 1), got {self.lowest} and {self.highest}."
            )

    @property
    def fractions(self) -> tuple[float, ...]:
        """L noise levels as fractions of the chain, cleanest first."""
        return tuple(np.linspace(self.lowest, self.highest, self.levels).tolist())

    @property
    def evaluations(self) -> int:
        """Network evaluations an image and class."""
        return self.levels * self.draws


def require_classes(backbone: Backbone) -> int:
    """K, the number of classes that a backbone tells apart.

    Raises:
        ValueError: It is not class-conditional, or its estimates bound no likelihood.
    """
    if backbone.num_classes is None or backbone.prompts is not None:
        raise ValueError(
            f"backbone {backbone.name} takes no class labels, so it cannot say which class an image is likeliest of; "
            "choose a class-conditional one, or leave the zero-shot classifier out."
        )
    if backbone.distilled is not None:
        raise ValueError(
            f"backbone {backbone.name} is distilled ({backbone.distilled}): its errors say nothing about classes; "
            "choose the model that it was distilled from."
        )
    return backbone.num_classes


def class_errors(
    backbone: Backbone,
    images: Images,
    *,
    seed: int,
    indices: Sequence[int],
    settings: ZeroShotSettings,
    num_classes: int | None = None,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """How badly the network predicts the noise of every image under every class.

    Args:
        backbone: Class-conditional, on any device.
        images: (B, H, W, C) uint8.
        seed: The run's seed.
        indices: One index an image; each decides its own noise.
        settings: Levels and draws.
        num_classes: K, where only the first of the backbone's classes are asked about; None: all of them.
        batch_size: Images a network call, each under all classes.
        device: Where to compute.

    Returns:
        (B, K, L) mean squared errors of the velocity, sqrt(abar) eps - sqrt(1 - abar) x: those of the noise, divided
        by abar, so that the noisy levels, which tell classes apart, are not drowned by the clean ones.

    Raises:
        ValueError: The backbone is not class-conditional, or answers NaN or infinity.
    """
    known = require_classes(backbone)
    classes = known if num_classes is None else num_classes
    if not 1 <= classes <= known:
        raise ValueError(f"backbone {backbone.name} knows {known} classes, asked about {classes}.")
    backbone = prepared(backbone, device=device)
    schedule = backbone.schedule
    steps = [schedule.step_at(fraction) for fraction in settings.fractions]

    @torch.no_grad()
    def errors_of(part: slice) -> NDArray[np.float32]:
        noise = SampleNoise(seed, indices[part], shape=backbone.state_shape, device=device)
        with device_lock(device):
            clean = backbone.encode(from_pixels(images[part]).to(device))
            count = len(clean)
            label = torch.arange(classes, device=device).repeat(count)  # (B * K,), the classes of an image in a row
            chain = Chain(backbone.denoiser, schedule, label)
            errors = torch.zeros((count, classes, len(steps)))
            for level, step in enumerate(steps):
                for draw in range(settings.draws):
                    eps = noise.score(step, draw).to(clean)
                    x_t = schedule.noised(clean, step, eps).repeat_interleave(classes, dim=0)
                    predicted = chain.estimate(x_t, step).eps
                    require_finite(predicted, "the noise that is predicted under a class")
                    off = (predicted - eps.repeat_interleave(classes, dim=0)).square().mean(dim=(1, 2, 3))
                    errors[:, :, level] += off.view(count, classes).cpu() / settings.draws
        return (errors / torch.tensor([schedule.abar[step] for step in steps])).float().numpy()

    return np.concatenate(in_batches(len(indices), size=batch_size, work=errors_of, what="images"))


def class_probabilities(errors: NDArray[np.float32], *, dimensions: int) -> NDArray[np.float64]:
    """What the errors say of the classes, as far as they are a bound on likelihoods.

    Args:
        errors: (B, K, L) of `class_errors`.
        dimensions: C * H * W of a state, over which the errors are means.

    Returns:
        (B, K), rows sum to 1: softmax of half the summed errors, sharpest where classes differ; the argmax is Li et
        al.'s answer.
    """
    logits = -0.5 * dimensions * errors.astype(np.float64).mean(axis=2)
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))
