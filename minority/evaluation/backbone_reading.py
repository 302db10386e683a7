"""Reading images with a pretrained backbone: features, answers about classes, and what each of them costs.

Everything here is computed once for a comparison, whatever arms then make of it (minority/downstream/pretrained.py).

Shapes: N images, D features, K classes, L noise levels, C channels, H x W pixels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minority.backbones import Backbone
from minority.classifier import balancing_odds
from minority.diffusion.pixels import from_pixels, to_pixels
from minority.downstream.backbone_outputs import BackboneReading, Float32
from minority.downstream.cost import image_macs, macs_of
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.mixing import JITTER_DRAWS, RANDAUGMENT_DRAWS, jitter, mixup, randaugment
from minority.downstream.settings import Jitter
from minority.features.bottleneck import Bottleneck, bottleneck_extractor
from minority.sampling.diffusion_classifier import ZeroShotSettings, class_errors

#: Images of each part have indices of their own, so that no two share their noise.
#: Augmented copies where the training images are not held in memory.
_MOST_COPIES = 20_000
_FIRST_INDEX = {"train": 0, "validation": 1 << 40, "test": 2 << 40, "augmented": 3 << 40}


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """How a backbone reads images for the arms that draw nothing.

    Attributes:
        noise_level: Noise on the images whose bottleneck is read, as a fraction of the chain, in [0, 1).
        grid: Cells a side that bottleneck maps are averaged to, >= 1; a linear probe sees grid * grid of them.
        copies: Augmented copies a training image that the zero-shot classifier is asked about for distillation, >= 1.
        randaugment: Magnitude of RandAugment on them, in (0, 30].
        zero_shot: How the classifier asks.
        seed: Decides noise and augmentation, >= 0.
    """

    noise_level: float = 0.02
    grid: int = 4
    copies: int = 8
    randaugment: float = 6.0
    zero_shot: ZeroShotSettings = field(default_factory=ZeroShotSettings)
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "noise_level": (0 <= self.noise_level < 1, "in [0, 1)"),
            "grid": (self.grid >= 1, "at least 1"),
            "copies": (self.copies >= 1, "at least 1"),
            "randaugment": (0 < self.randaugment <= 30, "in (0, 30]"),
            "seed": (self.seed >= 0, "at least 0"),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"ReadingSettings.{name} must be {rule}, got {getattr(self, name)}.")


def read_backbone(
    backbone: Backbone,
    data: DownstreamData,
    *,
    settings: ReadingSettings,
    jitter_settings: Jitter,
    drawing_evaluations: Mapping[str, float] | None = None,
    device: torch.device | str = "cpu",
) -> BackboneReading:
    """Read all images of a comparison.

    Only augmented copies of training images, validation images and test images are classified; what is fitted sees the
    training and the synthetic images, and for DFR the validation images.

    Args:
        backbone: On any device.
        data: The images.
        settings: How.
        jitter_settings: The movement that all arms' trainings use.
        drawing_evaluations: Source -> network evaluations that its images took, those included that were refused.
        device: Where to compute.

    Raises:
        ValueError: Its network has no bottleneck that could be read.
    """
    backbone = backbone.to(device)
    bottleneck = encoder_of(backbone, settings, device=device)
    parts = {"train": data.train, "validation": data.validation, "test": data.test} | dict(data.synthetic)
    features = {name: _features(bottleneck, part, grid=settings.grid, device=device) for name, part in parts.items()}
    augmented, errors = None, {}
    conditional = backbone.num_classes is not None and backbone.prompts is None and backbone.distilled is None
    if conditional:
        augmented = augmented_copies(data.train, settings=settings, jitter_settings=jitter_settings)
        for name, part in {"validation": data.validation, "test": data.test, "augmented": augmented}.items():
            errors[name] = class_errors(
                backbone,
                part.images,
                seed=settings.seed,
                indices=range(_FIRST_INDEX[name], _FIRST_INDEX[name] + len(part)),
                settings=settings.zero_shot,
                num_classes=len(data.class_names),
                device=device,
            )
    evaluation = _evaluation_macs(backbone, device=device)
    return BackboneReading(
        identity=f"{backbone.identity} {settings}",
        features=features,
        errors=errors,
        dimensions=math.prod(backbone.state_shape),
        augmented=augmented,
        encoder=bottleneck,
        encoder_features=bottleneck(torch.zeros(1, *backbone.image_shape, device=device)).shape[1],
        encoder_macs=image_macs(bottleneck, backbone.image_shape, device=device),
        evaluation_macs=evaluation,
        evaluations=len(data.class_names) * settings.zero_shot.evaluations if conditional else 0,
        drawing_macs={name: count * evaluation for name, count in (drawing_evaluations or {}).items()},
    )


def encoder_of(backbone: Backbone, settings: ReadingSettings, *, device: torch.device | str = "cpu") -> Bottleneck:
    """The contracting half of a backbone's network, as it reads images.

    Raises:
        ValueError: Its network has no bottleneck that could be read.
    """
    network = bottleneck_extractor(backbone, noise_level=settings.noise_level, device=device).network
    assert isinstance(network, Bottleneck), "as bottleneck_extractor makes it"
    return network


def features_an_image(backbone: Backbone, settings: ReadingSettings, *, device: torch.device | str = "cpu") -> int:
    """Numbers that a linear probe sees of an image.

    Raises:
        ValueError: The network has no bottleneck that could be read.
    """
    channels, height, width = backbone.image_shape
    nothing = np.zeros((0, height, width, channels), dtype=np.uint8)
    none = np.zeros(0, dtype=np.int64)
    bottleneck = encoder_of(backbone.to(device), settings, device=device)
    return int(_features(bottleneck, LabelledImages(nothing, none, none), grid=settings.grid, device=device).shape[1])


def augmented_copies(train: LabelledImages, *, settings: ReadingSettings, jitter_settings: Jitter) -> LabelledImages:
    """Training images moved, changed and blended: what a teacher is asked about where no further image is at hand.

    Every group is drawn equally often; half of the copies are blends with another one.

    Args:
        train: The training images.
        settings: How many copies, and how far they are changed.
        jitter_settings: How far they are moved.

    Returns:
        settings.copies * N images (at most 20,000 where the training images are not held in memory), each with the
        label and the group of the image that it shows most of.
    """
    count = settings.copies * len(train)
    if not isinstance(train.images, np.ndarray):
        count = min(count, _MOST_COPIES)
    rng = np.random.default_rng([settings.seed, len(train)])
    chosen = rng.choice(len(train), size=count, p=balancing_odds(train.groups))
    generator = torch.Generator().manual_seed(settings.seed)
    uniform = torch.rand((count, JITTER_DRAWS + RANDAUGMENT_DRAWS), generator=generator)
    images = jitter(from_pixels(train.images[chosen]), uniform[:, :JITTER_DRAWS], settings=jitter_settings)
    images = randaugment(images, uniform[:, JITTER_DRAWS:], magnitude=settings.randaugment)
    half = count // 2
    share = torch.as_tensor(rng.uniform(0.5, 1.0, size=(half, 1, 1, 1)), dtype=torch.float32)
    blended, _ = mixup(images[:half], torch.zeros(half, 1), share)
    pixels = to_pixels(torch.cat([blended, images[half:]]).clamp(-1, 1))
    return LabelledImages(pixels, train.labels[chosen], train.groups[chosen])


def _evaluation_macs(backbone: Backbone, *, device: torch.device | str) -> float:
    state = torch.zeros(1, *backbone.state_shape, device=device)
    label = None if backbone.num_classes is None else torch.zeros(1, dtype=torch.int64, device=device)
    step = backbone.schedule.step_at(0.5)
    timestep = backbone.schedule.timestep(step, 1, device)
    return macs_of(lambda: backbone.denoiser(state, timestep, label))


@torch.no_grad()
def _features(bottleneck: Bottleneck, part: LabelledImages, *, grid: int, device: torch.device | str) -> Float32:
    """(N, D * cells) bottleneck maps, averaged to at most grid x grid cells."""

    def read(images: Tensor) -> Tensor:
        maps = bottleneck.maps(images.to(device))
        size = (min(grid, maps.shape[2]), min(grid, maps.shape[3]))
        return F.adaptive_avg_pool2d(maps, size).flatten(1).float().cpu()

    bottleneck.eval()
    features = [read(from_pixels(part.images[start : start + 256])) for start in range(0, len(part), 256)]
    width = read(torch.zeros(1, part.images.shape[3], *part.images.shape[1:3])).shape[1]
    return torch.cat([torch.zeros(0, width), *features]).numpy()
