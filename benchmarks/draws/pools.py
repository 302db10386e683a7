"""A backbone that saw a pool which its user does not hold: the pretrained premise, on one set cut in two.

A pool of labelled images trains the backbone and is then out of reach; the user has a long-tailed training set of other
images, some validation images of every class, and test images. Which class is common is decided draw by draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray

from benchmarks.draws.construction import BACKBONE, DRAWN, REAL, Say
from benchmarks.draws.kept_files import load_images, save_images
from datasets.readers.imageset import ImageSet
from datasets.splits.pool import PoolSettings, pool_and_user
from datasets.splits.stratified import SplitSettings, make_split
from minority.backbones import Backbone, UNetSettings, load_backbone, save_folder
from minority.diffusion.schedule import NoiseSchedule
from minority.downstream.arms import BACKBONE_ARMS, CONDITIONAL_BACKBONE_ARMS, REAL_ARMS, Arm, backbone_arms
from minority.downstream.backbone_outputs import BackboneReading
from minority.downstream.data import DownstreamData, LabelledImages
from minority.downstream.settings import DownstreamSettings
from minority.evaluation.backbone_reading import ReadingSettings, encoder_of, read_backbone
from minority.sampling.draw import draw as draw_samples
from minority.sampling.settings import SamplerSettings
from minority.training import TrainingSettings, train_denoiser

SOURCE = "plain"


@dataclass(frozen=True, eq=False, kw_only=True)
class PoolConstruction:
    """The premise on one set.

    Attributes:
        name: As it is asked for.
        says: What is compared.
        images: The whole set.
        pool: Share of every class that the backbone sees; each draw has a seed of its own.
        split: How the rest is cut; likewise.
        architecture: Arguments of the U-Net.
        training: How the backbone is trained; likewise.
        sampler: How samples are drawn.
        samples: Drawn images a class.
        settings: The budget of every training.
        reading: How the backbone reads images.
        seeds: Tested trainings an arm.
        largest: Training images of the commonest class, at most; None keeps what the split gives.
        smallest: Those of the rarest; only with `largest`.
        test_each: Test images a class, at most.
        real_arms: The recipes on real images; None: all that the library has.
        published: No paper reports on this cut.
    """

    name: str
    says: str
    images: ImageSet
    pool: float
    split: SplitSettings
    architecture: Mapping[str, object]
    training: TrainingSettings
    sampler: SamplerSettings
    samples: int
    settings: DownstreamSettings
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    seeds: int = 5
    largest: int | None = None
    test_each: int | None = None
    real_arms: tuple[str, ...] | None = None
    published: Mapping[str, str] = field(default_factory=dict)

    def missing(self) -> str | None:
        """Nothing: the images are there."""
        return None

    def arms(self) -> Sequence[Arm]:
        """Recipes on real images, on the backbone without drawing, and with its samples."""
        real = [arm for arm in REAL_ARMS if self.real_arms is None or arm.name in self.real_arms]
        return (*real, *backbone_arms([SOURCE], conditional=True))

    def families(self) -> Mapping[str, Sequence[str]]:
        """The three families, and the small networks among those that draw nothing."""
        without = (*BACKBONE_ARMS, *CONDITIONAL_BACKBONE_ARMS)
        return {
            REAL: [arm.name for arm in self.arms() if not arm.uses_backbone and not arm.is_generative],
            BACKBONE: [arm.name for arm in without],
            "the zero-shot classifier": ["zero-shot"],
            "the backbone distilled without drawing": ["zero-shot distilled"],
            DRAWN: [arm.name for arm in self.arms() if arm.is_generative],
        }

    def make(self, draw: int, folder: Path, *, say: Say) -> DownstreamData:
        """Cut, train, draw and read; see `Construction.make`."""
        folder.mkdir(parents=True, exist_ok=True)
        pool, data = self.cut(draw)
        backbone = self._backbone(draw, pool, folder / "backbone", say=say)
        drawn, evaluations = self._drawn(draw, backbone, folder, say=say)
        data = replace(data, synthetic={SOURCE: drawn})
        return replace(data, reading=self._reading(draw, backbone, data, evaluations, folder, say=say))

    def cut(self, draw: int) -> tuple[LabelledImages, DownstreamData]:
        """The pool's images, and the user's; no image is in both, which is checked.

        Labels are renumbered, the commonest class first.
        """
        order = np.random.default_rng([draw, 1]).permutation(len(self.images.class_names))
        labels = np.argsort(order)[self.images.labels]  # class order[i] becomes i
        pool, user = pool_and_user(self.images, PoolSettings(fraction=self.pool, seed=draw))
        split = make_split(labels[user], replace(self.split, seed=draw))
        parts = {"train": split.train, "validation": split.validation, "test": split.test}
        if self.largest is not None:
            parts["train"] = _scaled(labels[user], split.train, largest=self.largest)
        if self.test_each is not None:
            parts["test"] = _first_of_each(labels[user], split.test, each=self.test_each, seed=draw)
        positions = {name: user[part] for name, part in parts.items()} | {"pool": pool}
        for name, chosen in positions.items():
            for other, others in positions.items():
                shared = set(chosen.tolist()) & set(others.tolist())
                if name != other and shared:
                    raise ValueError(f"{len(shared)} images are both in {name} and in {other}.")
        names = tuple(self.images.class_names[i] for i in order)
        images = {
            name: LabelledImages(self.images.images(chosen), labels[chosen], labels[chosen])
            for name, chosen in positions.items()
        }
        pool_images = images.pop("pool")
        return pool_images, DownstreamData(**images, class_names=names, group_names=names)

    def _backbone(self, draw: int, pool: LabelledImages, folder: Path, *, say: Say) -> Backbone:
        if not folder.is_dir():
            say(f"training a backbone on a pool of {len(pool)} images")
            classes = len(self.images.class_names)
            settings = replace(self.training, seed=draw)
            no_label = 1 if settings.label_dropout > 0 else 0
            with torch.random.fork_rng():
                torch.manual_seed(draw)
                unet = UNet2DModel(
                    sample_size=pool.images.shape[1],
                    in_channels=pool.images.shape[3],
                    out_channels=pool.images.shape[3],
                    num_class_embeds=classes + no_label,
                    **self.architecture,  # type: ignore[arg-type]
                )
            schedule = NoiseSchedule.cosine(1000)
            train_denoiser(
                unet,
                pool.images,
                pool.labels,
                schedule=schedule,
                settings=settings,
                checkpoint=folder.with_name("backbone.checkpoint.pt"),
            )
            told = UNetSettings(num_classes=classes, prediction_type=settings.prediction)
            save_folder(folder, unet, schedule=schedule, settings=told)
            folder.with_name("backbone.checkpoint.pt").unlink(missing_ok=True)
        return load_backbone(folder)

    def _drawn(self, draw: int, backbone: Backbone, folder: Path, *, say: Say) -> tuple[LabelledImages, float]:
        """The samples, as many of every class, and the evaluations that one took."""
        path, labels = folder / "drawn.zip", np.repeat(np.arange(len(self.images.class_names)), self.samples)
        evaluations = float(self.sampler.steps) if isinstance(self.sampler.steps, int) else float("nan")
        if not path.is_file():
            say(f"drawing {len(labels)} samples")
            found = draw_samples(
                backbone, seed=draw, indices=range(len(labels)), labels=labels.tolist(), settings=self.sampler
            )
            evaluations = found.evaluations
            save_images(path, LabelledImages(found.images, labels, labels))
        return load_images(path), evaluations

    def _reading(
        self,
        draw: int,
        backbone: Backbone,
        data: DownstreamData,
        evaluations: float,
        folder: Path,
        *,
        say: Say,
    ) -> BackboneReading:
        path = folder / "reading.npz"
        settings = replace(self.reading, seed=draw)
        if not path.is_file():
            say("reading the images with the backbone")
            found = read_backbone(
                backbone,
                data,
                settings=settings,
                jitter_settings=self.settings.jitter,
                drawing_evaluations={SOURCE: evaluations * len(data.synthetic[SOURCE])},
            )
            part = path.with_suffix(".part")
            with part.open("wb") as file:
                found.save(file)
            part.replace(path)
        return BackboneReading.load(path, encoder=encoder_of(backbone, settings))


def _scaled(labels: NDArray[np.int64], train: NDArray[np.int64], *, largest: int) -> NDArray[np.int64]:
    """The same profile with at most `largest` images of the commonest class; the first of each class stay."""
    sizes = np.bincount(labels[train])
    share = min(1.0, largest / sizes.max())
    kept = [train[labels[train] == label][: max(1, round(share * size))] for label, size in enumerate(sizes) if size]
    return np.sort(np.concatenate(kept))


def _first_of_each(labels: NDArray[np.int64], chosen: NDArray[np.int64], *, each: int, seed: int) -> NDArray[np.int64]:
    """At most so many images of every class, by chance."""
    order = np.random.default_rng([seed, 2]).permutation(chosen)
    return np.sort(np.concatenate([order[labels[order] == label][:each] for label in np.unique(labels[chosen])]))
