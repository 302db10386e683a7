"""Evaluating a backbone before it is used: does it know unseen images, and did it learn or memorise?

Every figure stands beside what a model that knows next to nothing reaches (minority/evaluation/baseline_models.py), and
the Frechet distance beside what real training images reach.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from minority.backbones.backbone import Backbone
from minority.evaluation.backbone_quality_figures import BackboneQuality, CodeLengths, FrechetDistances
from minority.evaluation.baseline_models import PixelHistogram, PixelNormal, draw_class_normals, pick_of_classes
from minority.evaluation.metrics import frechet_distance
from minority.features import Extractor, ExtractorKind, ExtractorSettings, build_extractor
from minority.features.pixel_features import pixel_features
from minority.neighbours.reference import RealReference
from minority.runtime.image_arrays import Images, choose_images
from minority.runtime.progress import called
from minority.sampling.draw import SamplerSettings, ScoreSettings, draw_images, score_images

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EvaluationFeatures(ExtractorSettings):
    """Where a backbone is evaluated: as `ExtractorSettings`, but a classifier unless told otherwise."""

    kind: ExtractorKind = "classifier"


@dataclass(frozen=True, kw_only=True)
class QualitySettings:
    """How a trained backbone is evaluated. Nothing here changes the backbone; every count costs time.

    Attributes:
        samples: Plain samples to draw, at least 2.
        sampling_steps: Steps of the chain that draws them, at least 1.
        train_images: Training images that it is compared with and evaluated in the features of, at most; at least 2.
        held_out: Held-out images that samples are compared with, at most; at least 2.
        bits_images: Images of either split whose bits/dim are computed, at most; at least 1.
        bits_steps: Steps of the chain whose bound is computed, at least 1. Each costs a network call an image; fewer
            make the bound looser.
        features: Where the Frechet distance is measured. The default needs labels of two classes or more and nothing
            else; "inception" gives the standard FID where its weights are at hand.
        seed: Decides samples, the choice of images, and noise; at least 0.
    """

    samples: int = 1000
    sampling_steps: int = 50
    train_images: int = 20_000
    held_out: int = 1000
    bits_images: int = 200
    bits_steps: int = 250
    features: EvaluationFeatures = field(default_factory=EvaluationFeatures)
    seed: int = 1

    def __post_init__(self) -> None:
        least = {
            "samples": 2,
            "train_images": 2,
            "held_out": 2,
            "sampling_steps": 1,
            "bits_images": 1,
            "bits_steps": 1,
            "seed": 0,
        }
        for name, rule in least.items():
            if getattr(self, name) < rule:
                raise ValueError(f"QualitySettings.{name} must be at least {rule}, got {getattr(self, name)}.")


def measure_quality(
    backbone: Backbone,
    *,
    train: Images,
    train_labels: Int64,
    held_out: Images,
    held_out_labels: Int64,
    settings: QualitySettings,
    device: torch.device | str = "cpu",
) -> BackboneQuality:
    """Draw plain samples and score real images.

    Samples take the classes of the held-out images, so that both are compared on the same classes; an unconditional
    backbone draws as it likes, and its baselines take the classes of the training split.

    Args:
        backbone: Class-conditional or not.
        train: (N, H, W, C) uint8, what it was trained on; of a large set some are looked at (`settings.train_images`).
        train_labels: (N,).
        held_out: (M, H, W, C) uint8, unseen real images; some of many are looked at (`settings.held_out`).
        held_out_labels: (M,).
        settings: How much of it.
        device: Where to compute.

    Raises:
        ValueError: Where there are too few held-out images, or the features cannot be had.
    """
    check_quality(settings, held_out=len(held_out), classes=len(np.unique(train_labels)))
    seen = choose_images(len(train), most=settings.train_images, seed=settings.seed)
    train, train_labels = train[seen], train_labels[seen]
    chosen = choose_images(len(held_out), most=settings.held_out, seed=settings.seed)
    labels = np.resize(held_out_labels[chosen], settings.samples)
    if backbone.num_classes is None:
        labels = np.random.default_rng(settings.seed).choice(train_labels, size=settings.samples)
    with called("plain samples"):
        drawn = plain_samples(
            backbone,
            labels,
            count=settings.samples,
            steps=settings.sampling_steps,
            seed=settings.seed,
            device=device,
        )
    extract = build_extractor(
        settings.features, backbone=backbone, train_images=train, train_labels=train_labels, device=device
    )
    reference = RealReference.fit(pixel_features(train), device=device)
    evaluated = reference.locate(pixel_features(drawn))
    baselines = PixelHistogram(train), PixelNormal(train)

    def bits(images: Images, of: Int64, *, what: str) -> CodeLengths:
        part = choose_images(len(images), most=settings.bits_images, seed=settings.seed)
        with called(f"bits/dim of {what} images"):
            return _code_lengths(
                backbone, images[part], of[part], baselines=baselines, settings=settings, device=device
            )

    return BackboneQuality(
        samples=settings.samples,
        sampling_steps=settings.sampling_steps,
        bits_steps=settings.bits_steps,
        sample_distance=float(evaluated.nearest_distance.mean()),
        held_out_distance=float(reference.locate(pixel_features(held_out[chosen])).nearest_distance.mean()),
        valid=float((evaluated.realism >= 1).mean()),
        levels=len(np.unique(train)),
        train_bits=bits(train, train_labels, what="training"),
        held_out_bits=bits(held_out, held_out_labels, what="held-out"),
        frechet=_frechet(
            extract,
            held_out[chosen],
            drawn,
            draw_class_normals(train, train_labels, wanted=labels, seed=settings.seed),
            train[pick_of_classes(train_labels, wanted=labels, seed=settings.seed)],
        ),
    )


def check_quality(settings: QualitySettings, *, held_out: int, classes: int) -> None:
    """Refuse data that a backbone cannot be evaluated on, before it is trained.

    Args:
        settings: How it will be evaluated.
        held_out: Held-out images at hand.
        classes: Classes of the training split.

    Raises:
        ValueError: Naming the way out.
    """
    if held_out < 2:
        raise ValueError(
            f"a backbone is evaluated on held-out images, there are {held_out}; set dataset.split.validation_fraction."
        )
    if settings.features.kind == "classifier" and classes < 2:
        raise ValueError(
            f"features of kind classifier need at least 2 classes, the training split has {classes}; set "
            "quality.features.kind=backbone, or pixels for tiny aligned images."
        )


def plain_samples(
    backbone: Backbone,
    labels: Int64 | None,
    *,
    count: int,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> UInt8:
    """Samples (N, H, W, C) of plain ancestral sampling.

    Args:
        backbone: Class-conditional or not.
        labels: (N,); an unconditional backbone does not look at them.
        count: N.
        steps: Of the respaced chain.
        seed: Decides all noise.
        device: Where to compute.
    """
    asked = None if backbone.num_classes is None or labels is None else labels.tolist()
    settings = SamplerSettings(steps=steps)
    images, _ = draw_images(backbone, seed=seed, indices=range(count), labels=asked, settings=settings, device=device)
    return images


def bound_of(
    backbone: Backbone,
    images: UInt8,
    labels: Int64,
    *,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Negative ELBO (N,) of images in bits/dim, under the variance that the backbone learnt, else under beta.

    Args:
        backbone: Class-conditional or not.
        images: (N, H, W, C) uint8.
        labels: (N,); an unconditional backbone does not look at them.
        steps: Of the respaced chain.
        seed: Decides all noise.
        device: Where to compute.
    """
    backbone = backbone.to(device)
    scores = score_images(
        backbone,
        images,
        seed=seed,
        indices=range(len(images)),
        labels=None if backbone.num_classes is None else labels.tolist(),
        settings=ScoreSettings(draws=1, elbo_steps=steps),
        device=device,
    )
    return scores.negative_elbo


def _code_lengths(
    backbone: Backbone,
    images: UInt8,
    labels: Int64,
    *,
    baselines: tuple[PixelHistogram, PixelNormal],
    settings: QualitySettings,
    device: torch.device | str,
) -> CodeLengths:
    bound = bound_of(backbone, images, labels, steps=settings.bits_steps, seed=settings.seed, device=device)
    return CodeLengths(
        images=len(images),
        backbone=float(bound.mean()),
        error=float(bound.std() / len(images) ** 0.5),
        histogram=float(baselines[0].bits_per_dim(images).mean()),
        normal=float(baselines[1].bits_per_dim(images).mean()),
    )


def _frechet(extract: Extractor, held_out: UInt8, drawn: UInt8, normals: UInt8, training: UInt8) -> FrechetDistances:
    real = extract(held_out)
    return FrechetDistances(
        features=extract.recipe,
        dimensions=real.shape[1],
        held_out=len(real),
        backbone=frechet_distance(real, extract(drawn)),
        class_normals=frechet_distance(real, extract(normals)),
        training=frechet_distance(real, extract(training)),
    )
