"""What benchmarks/speed.py times: the published loop and our samplers, on one backbone and batch."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray

from benchmarks.network_work import NetworkWork, measure_work
from benchmarks.published_loop import FreshNoise, Noise, PublishedGuidance, PublishedLoop, as_network
from minority.backbones import PRESETS, Backbone, UNetDenoiser, UNetSettings, load_backbone
from minority.backbones.adm import layout_of
from minority.backbones.adm_layout import unet_config
from minority.backbones.backbone import Precision
from minority.diffusion.denoiser import Prediction
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import to_pixels
from minority.diffusion.schedule import NoiseSchedule
from minority.engine.prepare import EngineSettings, prepared
from minority.sampling.draw import draw
from minority.sampling.named_samplers import named_sampler
from minority.sampling.sampler import sample
from minority.sampling.settings import SamplerSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SAME, PLAIN = "sgms-published", "ancestral"


@dataclass
class Arm:
    """One row: what is drawn how, and what was measured.

    Attributes:
        sampler: Its name.
        engine: For example "bf16+compile".
        draw: Draws one batch; returns forward and backward passes.
        first: Seconds of the first batch, compilation included.
        seconds: Of every further one.
        mebibytes: Peak memory of one of them.
    """

    sampler: str
    engine: str
    draw: Callable[[], tuple[float, float]]
    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    mebibytes: float = 0.0
    passes: tuple[float, float] = (0.0, 0.0)

    @property
    def precision(self) -> Precision:
        """Of the network."""
        return parse_engine(self.engine)[0]


def parse_engine(text: str) -> tuple[Precision, EngineSettings]:
    """Read "bf16+channels_last+compile"; the precision comes first.

    Raises:
        SystemExit: An unknown word.
    """
    precision, *options = text.split("+")
    if precision not in DTYPES or not all(option in vars(EngineSettings()) for option in options):
        raise SystemExit(
            f"--engines: {text!r} is not a precision ({', '.join(DTYPES)}) with options joined by + "
            f"({', '.join(vars(EngineSettings()))})."
        )
    return precision, EngineSettings(**dict.fromkeys(options, True))  # type: ignore[return-value]


def open_network(name: str, *, width: int | None) -> Backbone:
    """A backbone folder or checkpoint, or an ADM U-Net with random weights.

    Args:
        name: A preset of ADM, or a path.
        width: Channels of the first level; None as published. A multiple of 32.
    """
    if name not in PRESETS:
        return load_backbone(name)
    flags = PRESETS[name]
    width = width or flags.num_channels or 0
    flags = replace(flags, num_channels=width, num_head_channels=min(width, flags.num_head_channels or width))
    torch.manual_seed(0)
    layout = layout_of(flags, {})
    unet = UNet2DModel.from_config(
        unet_config(layout, image_size=flags.image_size, head_channels=flags.num_head_channels or width)
    )
    schedule = getattr(NoiseSchedule, flags.noise_schedule)(flags.diffusion_steps)
    classes = layout.num_class_embeds
    denoiser = UNetDenoiser(unet, schedule, settings=UNetSettings(num_classes=classes)).eval()
    shape = (3, flags.image_size, flags.image_size)
    name = f"{name} of width {width}, random weights"
    return Backbone(name, denoiser, schedule, image_shape=shape, num_classes=classes, sha256="0" * 64)


class Bench:
    """One backbone on one device with a fixed batch."""

    def __init__(self, backbone: Backbone, *, steps: int, batch: int, device: str) -> None:
        self.backbone, self.steps, self.batch, self.device = backbone, steps, batch, device
        self.labels = None if backbone.num_classes is None else [i % backbone.num_classes for i in range(batch)]
        self.label = None if self.labels is None else torch.tensor(self.labels, device=device)
        self.noise = SampleNoise(0, range(batch), shape=backbone.image_shape, device=device)
        self._published: dict[Precision, torch.nn.Module] = {}

    def published(self, precision: Precision) -> Arm:
        """The published loop."""
        fresh = FreshNoise(0, (self.batch, *self.backbone.image_shape), device=self.device)
        return Arm("the published loop", precision, lambda: self.draw_published(fresh, precision)[1])

    def draw_published(self, noise: Noise, precision: Precision) -> tuple[torch.Tensor, tuple[float, float]]:
        """Images (B, C, H, W), and forward and backward passes."""
        denoiser = self._published_network(precision)
        loop = PublishedLoop(
            as_network(denoiser),
            trained_betas=self.backbone.schedule.beta,
            timesteps=self.backbone.schedule.respaced(self.steps).timesteps,
            guidance=PublishedGuidance(),
        )
        return loop.draw(noise, label=self.label), (loop.forwards, loop.backwards)

    def _published_network(self, precision: Precision) -> torch.nn.Module:
        if precision not in self._published:
            denoiser = copy.deepcopy(self.backbone.to(self.device).in_precision(precision).denoiser)
            assert isinstance(denoiser, torch.nn.Module)
            self._published[precision] = denoiser.requires_grad_(True)
        return self._published[precision]

    def ours(self, sampler: str, engine: str) -> Arm:
        """A sampler of this project; those of a whole number of steps take as many as the published loop."""
        precision, options = parse_engine(engine)
        settings = named_sampler(sampler)
        steps = self.steps if isinstance(settings.steps, int) else settings.steps
        settings = replace(settings, steps=steps, precision=precision, engine=options, batch_size=self.batch)
        passes = count_passes(self.backbone, settings)

        def draw_batch() -> tuple[float, float]:
            self.draw_ours(settings)
            return passes

        return Arm(sampler, engine, draw_batch)

    def draw_ours(self, settings: SamplerSettings) -> NDArray[np.uint8]:
        """Images (B, H, W, C) uint8."""
        return draw(
            self.backbone,
            seed=0,
            indices=range(self.batch),
            labels=self.labels,
            settings=settings,
            device=self.device,
        ).images

    def difference(self) -> int:
        """Largest difference of a pixel, in grey levels, between the published loop and ours with the same noise."""
        theirs = to_pixels(self.draw_published(self.noise, "fp32")[0])
        ours = self.draw_ours(replace(named_sampler(SAME), steps=self.steps, batch_size=self.batch))
        return int(np.abs(theirs.astype(int) - ours).max())

    def work(self) -> NetworkWork:
        """Of one call, in fp32."""
        denoiser = prepared(self.backbone, device=self.device).denoiser
        x, t = self.noise.start(), torch.full((self.batch,), 1, device=self.device)
        return measure_work(lambda x: denoiser(x, t, self.label).eps, x)


def count_passes(backbone: Backbone, settings: SamplerSettings) -> tuple[float, float]:
    """Forward and backward passes of one chain, counted on a toy that costs nothing."""

    def toy(x: torch.Tensor, timestep: torch.Tensor, label: torch.Tensor | None) -> Prediction:
        return Prediction(0.5 * x)

    noise = SampleNoise(0, [0], shape=(1, 2, 2))
    schedule = backbone.schedule.respaced(settings.steps)
    _, cost = sample(toy, schedule, noise, guidance=settings.guidance, solver=settings.chain_solver)
    return cost.forwards, cost.backwards
