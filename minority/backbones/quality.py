"""Judging a backbone before it is used: does it know unseen images, and did it learn or memorise?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minority.backbones.backbone import Backbone
from minority.features import pixel_features
from minority.generation import SamplerSettings, ScoreSettings, draw_images, score_images
from minority.neighbours import RealReference

#: A backbone whose samples lie nearer to the training images than this share of what held-out images do, memorised.
MEMORISED_BELOW = 0.8


@dataclass(frozen=True)
class BackboneQuality:
    """Figures of a backbone.

    Attributes:
        samples: Plain samples that were drawn, labels evenly.
        sample_distance: Their mean distance to the nearest training image.
        held_out_distance: The same of held-out images.
        valid: Share of samples inside the k-NN manifold of the training images.
        train_bits: Mean negative ELBO of training images over 250 steps, bits/dim.
        held_out_bits: The same of held-out images.
    """

    samples: int
    sample_distance: float
    held_out_distance: float
    valid: float
    train_bits: float
    held_out_bits: float

    @property
    def memorised(self) -> bool:
        """Whether samples lie much nearer to the training images than unseen real images do."""
        return self.sample_distance < MEMORISED_BELOW * self.held_out_distance

    def to_markdown(self) -> str:
        """The figures as a table."""
        return f"""| figure | value |
|---|---|
| plain samples inside the k-NN manifold of the training images | {self.valid:.1%} of {self.samples} |
| mean distance to the nearest training image: samples | {self.sample_distance:.3f} |
| the same: held-out real images | {self.held_out_distance:.3f} |
| negative ELBO (250 steps) of training images | {self.train_bits:.3f} bits/dim |
| the same: held-out real images | {self.held_out_bits:.3f} bits/dim |
| memorised (samples nearer than {MEMORISED_BELOW:g} of held-out) | {"yes" if self.memorised else "no"} |"""


def measure_quality(
    backbone: Backbone,
    *,
    train: NDArray[np.uint8],
    train_labels: NDArray[np.int64],
    held_out: NDArray[np.uint8],
    held_out_labels: NDArray[np.int64],
    samples: int = 200,
    seed: int = 1,
) -> BackboneQuality:
    """Draw plain samples and score real images.

    Args:
        backbone: Class-conditional or not.
        train: (N, H, W, C) uint8, what it was trained on.
        train_labels: (N,).
        held_out: (M, H, W, C) uint8, unseen real images.
        held_out_labels: (M,).
        samples: Plain samples to draw; their labels are even over the classes that were held out, so that both are
            compared on the same classes.
        seed: Of samples and scores.
    """
    labels = np.resize(held_out_labels, samples)
    condition = None if backbone.num_classes is None else labels.tolist()
    drawn, _ = draw_images(backbone, seed=seed, indices=range(samples), labels=condition, settings=SamplerSettings())
    reference = RealReference.fit(pixel_features(train))
    judged = reference.judge(pixel_features(drawn))

    def bits(images: NDArray[np.uint8], of: NDArray[np.int64]) -> float:
        scores = score_images(
            backbone,
            images,
            seed=seed,
            indices=range(len(images)),
            labels=None if backbone.num_classes is None else of.tolist(),
            settings=ScoreSettings(elbo_steps=250, variance="fixed_large"),
        )
        return float(scores.negative_elbo.mean())

    return BackboneQuality(
        samples=samples,
        sample_distance=float(judged.nearest_distance.mean()),
        held_out_distance=float(reference.judge(pixel_features(held_out)).nearest_distance.mean()),
        valid=float((judged.realism >= 1).mean()),
        train_bits=bits(train, train_labels),
        held_out_bits=bits(held_out, held_out_labels),
    )
