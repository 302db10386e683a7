"""Drawing and scoring a batch of samples: what a work unit asks of the device.

Shapes: B samples, C channels, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minority.backbones import Backbone
from minority.diffusion.chain import Variance
from minority.diffusion.finite import require_finite
from minority.diffusion.noise import SampleNoise
from minority.diffusion.pixels import from_pixels, to_pixels
from minority.diffusion.score import minority_score, negative_elbo
from minority.engine.prepare import EngineSettings, prepared
from minority.features.pixel_features import pixel_features
from minority.guidance import Guidance, particle_group_of
from minority.guidance.materials import Extractor, Materials, Parts
from minority.guidance.particle_groups import root_ancestors as root_ancestors_of
from minority.guidance.particle_groups import whole_particle_groups
from minority.neighbours.reference import RealReference
from minority.runtime.device_lock import device_lock
from minority.runtime.memory import in_batches
from minority.runtime.progress import counted
from minority.sampling.diffusion_classifier import ZeroShotSettings
from minority.sampling.finite_states import finite_states
from minority.sampling.noise_prefetch import sample_noise
from minority.sampling.sampler import sample
from minority.sampling.settings import SamplerSettings
from minority.solvers import Arrival


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How finished images are scored.

    Attributes:
        perturbation: Perturbation step of the minority score as a fraction of the chain, in [0, 1).
        draws: Noises that the minority score is averaged over.
        elbo_steps: Steps of the respaced chain whose negative ELBO is computed; each costs one evaluation.
        variance: Reverse variance of that chain (minority/diffusion/chain.py). "auto" is the one that the backbone
            learned; where it learned none "fixed_large", which gives the tighter bound, above all for few steps
            ("fixed_small" is loose by up to hundreds of bits there).
        real_images: Real training images, at most, that are scored, too: a random sample; None: all of them. The scores
            of the others are not a number.
        held_out: Validation images, at most, whose scores are the scale of the scores' quantiles; 0 for no quantiles.
        zero_shot: Ask a class-conditional backbone, too, which class explains a sample best (Li et al. 2023), or None.
    """

    perturbation: float = 0.5
    draws: int = 4
    elbo_steps: int = 10
    variance: Variance = "auto"
    real_images: int | None = None
    held_out: int = 200
    zero_shot: ZeroShotSettings | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.perturbation < 1:
            raise ValueError(f"ScoreSettings.perturbation must lie in [0, 1), got {self.perturbation}.")
        if self.draws < 1 or self.elbo_steps < 1:
            raise ValueError(
                f"ScoreSettings.draws and .elbo_steps must be at least 1, got {self.draws} and {self.elbo_steps}."
            )
        if self.real_images is not None and self.real_images < 0:
            raise ValueError(f"ScoreSettings.real_images must not be negative, got {self.real_images}.")
        if self.held_out < 0:
            raise ValueError(f"ScoreSettings.held_out must not be negative, got {self.held_out}.")


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of B images.

    Attributes:
        minority_score: (B,) squared error, >= 0; larger = rarer.
        negative_elbo: (B,) bits/dim; larger = less likely under the model.
    """

    minority_score: NDArray[np.float32]
    negative_elbo: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Drawn:
    """N drawn samples.

    Attributes:
        images: (N, H, W, C) uint8.
        evaluations: Denoiser evaluations a sample (a backward pass counts as two; an upsampler's calls count too).
        root_ancestors: (N,) int64 index of the chain that each sample descends from: its own where chains were not
            branched; samples of one root ancestor are copies.
    """

    images: NDArray[np.uint8]
    evaluations: float
    root_ancestors: NDArray[np.int64]

    @property
    def copies(self) -> int:
        """Samples beyond the first one of every root ancestor."""
        return len(self.root_ancestors) - len(np.unique(self.root_ancestors))


def draw(
    backbone: Backbone,
    *,
    seed: int,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    settings: SamplerSettings,
    guidance: Sequence[Guidance] = (),
    reference: RealReference | None = None,
    extract: Extractor = pixel_features,
    parts: Mapping[str, Parts] | None = None,
    device: torch.device | str = "cpu",
) -> Drawn:
    """Draw the N samples with the given indices, (N, H, W, C) uint8.

    Where chains may replace one another, whole particle groups of indices are drawn, each with the label of the sample
    that asked for it, and only what was asked for is returned. Ask for whole particle groups of one label, or pay for
    the rest.

    Args:
        backbone: On any device.
        seed: The run's seed.
        indices: Sample indices; each decides its own noise.
        labels: One a sample for a class-conditional backbone, None for an unconditional one.
        settings: Steps, solver, guidance, precision and batch size of the chains.
        guidance: Methods beside those of the settings: ones that are no settings.
        reference: The real training images, for settings that weigh chains by features.
        extract: The features that the reference was fitted on.
        parts: What methods with trained parts have learnt, by the method's key.
        device: Where to compute.

    Raises:
        ValueError: Where labels do not go with the backbone, or methods not with one another, or where the network
            answers NaN or infinity.
    """
    _check_labels(backbone, indices, labels)
    check_backbone(backbone, settings)
    backbone = prepared(backbone, device=device, precision=settings.precision, engine=settings.engine)
    schedule = backbone.schedule.respaced(settings.steps)
    materials = Materials(reference=reference, extract=extract, parts=parts or {}, device=device)
    methods = [method.ready(backbone, materials) for method in (*settings.guidance, *guidance)]
    particle_group = particle_group_of(methods)
    members, member_labels, positions = whole_particle_groups(indices, labels, particle_group=particle_group)
    size = max(1, settings.batch_size // particle_group) * particle_group
    num_steps = len(schedule.abar)
    steps_shown = counted("drawing", unit="steps") if len(members) <= size else nullcontext(lambda done, total: None)

    def draw_batch(batch: slice) -> tuple[NDArray[np.uint8], NDArray[np.int64], float]:
        part = members[batch]
        label = _labels_of(member_labels, batch, device=device)
        parents: list[Tensor | None] = []

        def after_step(arrival: Arrival) -> None:
            parents.append(arrival.parents)
            show(num_steps - arrival.step, num_steps)

        with device_lock(device), sample_noise(seed, part, shape=backbone.state_shape, device=device) as noise:
            x, cost = sample(
                backbone.denoiser,
                schedule,
                noise,
                label=label,
                condition=backbone.condition(seed, part, label),
                guidance=methods,
                variance=settings.variance,
                solver=settings.chain_solver,
                space=backbone.space,
                on_step=after_step,
            )
            require_finite(x, "the end of a chain")
            with torch.no_grad():
                x, extra = backbone.finish(x, seed=seed, indices=part, label=label)
            require_finite(x, "a finished image")
            images = to_pixels(x)
        origins = np.array(part, dtype=np.uint64)[root_ancestors_of(parents, len(part)).numpy()]
        return images, origins.astype(np.int64), cost.evaluations() + extra

    with finite_states(backbone, precision=settings.precision), steps_shown as show:
        batches = in_batches(len(members), size=size, work=draw_batch, smallest=particle_group)
    return Drawn(
        images=np.concatenate([images for images, _, _ in batches])[positions],
        evaluations=batches[-1][2] * len(members) / len(indices),
        root_ancestors=np.concatenate([root_ancestors for _, root_ancestors, _ in batches])[positions],
    )


def draw_images(
    backbone: Backbone,
    *,
    seed: int,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    settings: SamplerSettings,
    reference: RealReference | None = None,
    extract: Extractor = pixel_features,
    parts: Mapping[str, Parts] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[NDArray[np.uint8], float]:
    """The images alone of `draw`, without methods beside the settings.

    Args:
        backbone: On any device.
        seed: The run's seed.
        indices: B sample indices; each decides its own noise.
        labels: One a sample for a class-conditional backbone, None for an unconditional one.
        settings: Steps, solver, guidance, precision and batch size of the chains.
        reference: The real training images, for settings that weigh chains by features.
        extract: The features that the reference was fitted on.
        parts: What methods with trained parts have learnt, by the method's key.
        device: Where to compute.

    Returns:
        (B, H, W, C) uint8, and denoiser evaluations a sample.

    Raises:
        ValueError: Labels or settings do not go with the backbone.
    """
    drawn = draw(
        backbone,
        seed=seed,
        indices=indices,
        labels=labels,
        settings=settings,
        reference=reference,
        extract=extract,
        parts=parts,
        device=device,
    )
    return drawn.images, drawn.evaluations


def score_images(
    backbone: Backbone,
    images: NDArray[np.uint8],
    *,
    seed: int,
    indices: Sequence[int],
    labels: Sequence[int] | None,
    settings: ScoreSettings,
    batch_size: int = 64,
    engine: EngineSettings | None = None,
    device: torch.device | str = "cpu",
) -> Scores:
    """Score finished images by the backbone.

    Where its chain is not one of images, it is the images' states that are scored: latents, whose negative ELBO is that
    of a density in bits a latent dimension, or the low-resolution images of a two-stage backbone.

    The negative ELBO of a distilled backbone is not a number (NaN): its clean estimates are ends of samples, no means,
    and bound nothing.

    Args:
        backbone: On any device.
        images: (B, H, W, C) uint8.
        seed: The run's seed.
        indices: One index an image; each decides its own noise.
        labels: One an image for a class-conditional backbone, None for an unconditional one.
        settings: Perturbation, draws, steps of the bound and variance of the scores.
        batch_size: Images a network call.
        engine: How the network is run; None: as it is.
        device: Where to compute.

    Raises:
        ValueError: Where labels do not go with the backbone, or the network's first answer is NaN or infinite.
    """
    _check_labels(backbone, indices, labels)
    backbone = prepared(backbone, device=device, engine=engine)
    chain, short = backbone.schedule, backbone.schedule.respaced(settings.elbo_steps)
    x = from_pixels(images)

    def score_batch(part: slice) -> tuple[Tensor, Tensor]:
        label = backbone.condition(seed, indices[part], _labels_of(labels, part, device=device))
        noise = SampleNoise(seed, indices[part], shape=backbone.state_shape, device=device)
        with device_lock(device):
            with torch.no_grad():
                batch = backbone.encode(x[part].to(device))
            require_finite(batch, "the encoded image")
            minority = minority_score(
                backbone.denoiser,
                chain,
                batch,
                noise,
                label=label,
                perturbations=(settings.perturbation,),
                draws=settings.draws,
            )
            if backbone.distilled is not None:
                return minority.cpu(), torch.full((len(batch),), torch.nan)
            bound = negative_elbo(
                backbone.denoiser, short, batch, noise, label=label, variance=settings.variance, space=backbone.space
            )
            return minority.cpu(), bound.total.cpu()

    with finite_states(backbone):
        minority, elbo = zip(*in_batches(len(indices), size=batch_size, work=score_batch, what="images"), strict=True)
    return Scores(minority_score=torch.cat(minority).numpy(), negative_elbo=torch.cat(elbo).numpy())


def check_backbone(backbone: Backbone, settings: SamplerSettings) -> None:
    """Refuse a backbone that a method of the settings cannot guide.

    Raises:
        ValueError: Naming the backbone and why.
    """
    if backbone.offload is not None and settings.engine != EngineSettings():
        raise ValueError(
            f"backbone {backbone.name} is offloaded, and sampler.engine takes weights to stay where they are; leave "
            "backbone.offload or sampler.engine out."
        )
    for method in settings.guidance:
        reason = method.refusal(backbone)
        if reason is not None:
            raise ValueError(reason)


def _check_labels(backbone: Backbone, indices: Sequence[int], labels: Sequence[int] | None) -> None:
    if (labels is None) != (backbone.num_classes is None):
        raise ValueError(
            f"backbone {backbone.name} knows {backbone.num_classes or 'no'} classes; "
            f"{'give a label for every sample' if labels is None else 'it takes no labels'}."
        )
    if labels is not None and len(labels) != len(indices):
        raise ValueError(f"{len(indices)} samples need as many labels, got {len(labels)}.")


def _labels_of(labels: Sequence[int] | None, part: slice, *, device: torch.device | str) -> Tensor | None:
    return None if labels is None else torch.tensor(labels[part], dtype=torch.int64, device=device)


__all__ = [
    "Drawn",
    "SamplerSettings",
    "ScoreSettings",
    "Scores",
    "check_backbone",
    "draw",
    "draw_images",
    "from_pixels",
    "score_images",
    "to_pixels",
]
