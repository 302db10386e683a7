"""The figures of an evaluated backbone, as its model card tells them."""

from dataclasses import dataclass

#: A backbone whose samples lie nearer to the training images than this share of what held-out images do, memorised.
MEMORISED_BELOW = 0.8


@dataclass(frozen=True)
class CodeLengths:
    """Bits/dim of images: the backbone's negative ELBO, and exact code lengths of baseline density models.

    Attributes:
        images: How many.
        backbone: Mean negative ELBO.
        error: Its standard error over the images.
        histogram: Mean code length by a histogram a pixel, fitted on the training split.
        normal: The same by a normal distribution a pixel.
    """

    images: int
    backbone: float
    error: float
    histogram: float
    normal: float


@dataclass(frozen=True)
class FrechetDistances:
    """Frechet distances to the held-out images, of sets of equal size with the same classes.

    Attributes:
        features: Recipe of the features.
        dimensions: Their number.
        held_out: Held-out images.
        backbone: Of plain samples.
        class_normals: Of draws from one normal distribution a class over the pixels: a baseline model.
        training: Of training images: what a perfect model of the training split would reach.
    """

    features: str
    dimensions: int
    held_out: int
    backbone: float
    class_normals: float
    training: float


@dataclass(frozen=True)
class BackboneQuality:
    """Figures of a backbone.

    Attributes:
        samples: Plain samples that were drawn.
        sampling_steps: Steps of their chain.
        bits_steps: Steps of the chain whose bound is given.
        sample_distance: Mean distance of samples to the nearest training image, in pixels of [0, 1].
        held_out_distance: The same of held-out images.
        valid: Share of samples inside the k-NN manifold of the training images.
        levels: Grey levels, of 256, that occur in the training images.
        train_bits: Code lengths of training images.
        held_out_bits: Code lengths of held-out images.
        frechet: Distances to the held-out images.
    """

    samples: int
    sampling_steps: int
    bits_steps: int
    sample_distance: float
    held_out_distance: float
    valid: float
    levels: int
    train_bits: CodeLengths
    held_out_bits: CodeLengths
    frechet: FrechetDistances

    @property
    def memorised(self) -> bool:
        """Whether samples lie much nearer to the training images than unseen real images do."""
        return self.sample_distance < MEMORISED_BELOW * self.held_out_distance
