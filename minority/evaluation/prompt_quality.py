"""Evaluating a text-to-image backbone: are prompts obeyed, and did it learn or memorise?

Shapes: N images, H x W pixels, C channels; groups are what prompts stand for.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from minority.backbones.backbone import Backbone
from minority.classifier import ClassifierSettings
from minority.evaluation.backbone_quality_figures import MEMORISED_BELOW
from minority.features.pixel_features import pixel_features
from minority.guidance.classifier_free import ClassifierFree
from minority.neighbours.reference import RealReference
from minority.runtime.image_arrays import Images, choose_images
from minority.sampling.draw import SamplerSettings, draw_images
from minority.selection.labelling import Labeller

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PromptQualitySettings:
    """How a text-to-image backbone is evaluated. Nothing here changes it; every count costs time.

    Attributes:
        samples: Plain samples to draw, the same number for every group, at least 2.
        sampling_steps: Steps of the DDIM chain that draws them, at least 1.
        scale: Of classifier-free guidance, which plain samples of such a backbone have.
        train_images: Training images that samples are compared with, at most; at least 2.
        held_out: Held-out images, at most; at least 1.
        classifier: Of the classifier, trained on real images alone, that says whether prompts are obeyed.
        seed: Decides samples and the choice of images; at least 0.
    """

    samples: int = 600
    sampling_steps: int = 50
    scale: float = 2.0
    train_images: int = 20_000
    held_out: int = 20_000
    classifier: ClassifierSettings = field(default_factory=lambda: ClassifierSettings(steps=600, width=16))
    seed: int = 1

    def __post_init__(self) -> None:
        for name, least in {"samples": 2, "sampling_steps": 1, "train_images": 2, "held_out": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"PromptQualitySettings.{name} must be at least {least}, got {getattr(self, name)}.")

    @property
    def sampler(self) -> SamplerSettings:
        """Plain sampling with classifier-free guidance."""
        return SamplerSettings(steps=self.sampling_steps, solver="ddim").guided(ClassifierFree(scale=self.scale))


@dataclass(frozen=True, kw_only=True)
class PromptQuality:
    """Figures of a text-to-image backbone.

    Attributes:
        samples: Plain samples that were drawn.
        obeyed: Share of them in which a classifier trained on real images sees the group that the prompt asked for.
        recognised: The same of held-out real images: what the classifier can be trusted to see.
        worst: The group that is obeyed least, and its share.
        sample_distance: Mean distance of samples to the nearest training image, in pixel features.
        held_out_distance: The same of held-out real images.
        valid: Share of samples inside the k-NN manifold of the training images.
    """

    samples: int
    obeyed: float
    recognised: float
    worst: tuple[int, float]
    sample_distance: float
    held_out_distance: float
    valid: float

    @property
    def memorised(self) -> bool:
        """Whether samples lie much nearer to training images than unseen real images do."""
        return self.sample_distance < MEMORISED_BELOW * self.held_out_distance


def measure_prompts(
    backbone: Backbone,
    *,
    train: Images,
    train_groups: Int64,
    held_out: Images,
    held_out_groups: Int64,
    settings: PromptQualitySettings,
    device: str = "cpu",
) -> tuple[PromptQuality, UInt8, Int64]:
    """Draw plain samples of every group and look whether prompts were obeyed.

    Args:
        backbone: Its labels stand for the groups.
        train: (N, H, W, C) real images that it was trained on, or drawn for. The classifier learns from all of them;
            samples are compared with some of many (`settings.train_images`).
        train_groups: (N,).
        held_out: (M, H, W, C) unseen real images, M >= 1; of many some are looked at (`settings.held_out`).
        held_out_groups: (M,).
        settings: How much of it.
        device: Where to compute.

    Returns:
        The figures, the samples (S, H, W, C), and the groups (S,) that were asked for.

    Raises:
        ValueError: Where there is no held-out image, or the backbone takes no classifier-free guidance.
    """
    if len(held_out) == 0:
        raise ValueError("evaluating prompts needs held-out images; set split.validation_fraction above 0.")
    count = len(backbone.prompts.texts) if backbone.prompts is not None else 0
    asked = np.arange(settings.samples, dtype=np.int64) % max(1, count)
    drawn, _ = draw_images(
        backbone.to(torch.device(device)),
        seed=settings.seed,
        indices=range(settings.samples),
        labels=asked.tolist(),
        settings=settings.sampler,
        device=device,
    )
    labeller = Labeller.train(
        train, train_groups, num_groups=count, settings=settings.classifier, members=1, device=device
    )
    right = labeller.label(drawn)[0] == asked
    shares = [float(right[asked == group].mean()) for group in range(min(count, settings.samples))]
    seen = choose_images(len(train), most=settings.train_images, seed=settings.seed)
    chosen = choose_images(len(held_out), most=settings.held_out, seed=settings.seed)
    reference, unseen = RealReference.fit(pixel_features(train[seen]), device=device), held_out[chosen]
    evaluated = reference.locate(pixel_features(drawn))
    figures = PromptQuality(
        samples=settings.samples,
        obeyed=float(right.mean()),
        recognised=float((labeller.label(unseen)[0] == held_out_groups[chosen]).mean()),
        worst=(int(np.argmin(shares)), min(shares)),
        sample_distance=float(evaluated.nearest_distance.mean()),
        held_out_distance=float(reference.locate(pixel_features(unseen)).nearest_distance.mean()),
        valid=float((evaluated.realism >= 1).mean()),
    )
    return figures, drawn, asked
