"""The backbone of a run as a rival of its own samples: what it makes of the images, read once and kept in the store."""

import io
import logging
from dataclasses import replace
from typing import Literal

import numpy as np

from datasets.storage.canonical import canonical_json, sha256_hex
from datasets.storage.checked import DamagedError, read_checked, write_checked
from minority.downstream.backbone_outputs import BackboneReading
from minority.downstream.data import DownstreamData
from minority.evaluation.backbone_reading import encoder_of, read_backbone
from minority.runtime.image_arrays import content_key
from tasks.config.runs import AugmentConfig
from tasks.config.sections import ArmsConfig
from tasks.downstream.data import PLAIN, SELECTED
from tasks.errors import InputError
from tasks.inputs.published_run import PublishedRun
from tasks.inputs.real_data import RealData
from tasks.inputs.workspace import open_fitting_backbone

#: What a config says of its backbone: that it saw no more than the training images (or nothing), or that it did.
Pretrained = Literal["no", "unconditional", "conditional"]
#: Raise it when a change of the code changes what is read.
_VERSION = 1


def pretrained_kind(config: AugmentConfig, real: RealData) -> Pretrained:
    """Whether the run's backbone saw more than the training images, and whether it can be asked about classes.

    Raises:
        InputError: The backbone cannot be opened.
    """
    if config.backbone.pretrained_on is None:
        return "no"
    backbone = open_fitting_backbone(config.backbone, real)
    conditional = backbone.num_classes is not None and backbone.prompts is None and backbone.distilled is None
    return "conditional" if conditional else "unconditional"


def with_reading(run: PublishedRun, data: DownstreamData, config: ArmsConfig, *, device: str) -> DownstreamData:
    """The same images with the backbone's reading of them, from the run's store or made now and kept there.

    Raises:
        InputError: The backbone cannot be opened, or has no features that could be read.
    """
    backbone = open_fitting_backbone(run.config.backbone, run.real)
    parts = {"train": data.train, "validation": data.validation, "test": data.test} | dict(data.synthetic)
    digest = sha256_hex(
        canonical_json(
            {
                "version": _VERSION,
                "backbone": backbone.identity,
                "settings": str(config.reading),
                "jitter": str(config.budget.jitter),
                "images": {
                    name: sha256_hex(content_key(part.images) + part.labels.tobytes()) for name, part in parts.items()
                },
            }
        )
    )
    path = f"downstream/readings/{digest[:16]}.npz"
    try:
        encoder = encoder_of(backbone.to(device), config.reading, device=device)
        reading = _kept(run, path, encoder)
        if reading is None:
            reading = read_backbone(
                backbone,
                data,
                settings=config.reading,
                jitter_settings=config.budget.jitter,
                drawing_evaluations={name: _evaluations(run, name) for name in data.synthetic},
                device=device,
            )
            content = io.BytesIO()
            reading.save(content)
            write_checked(run.store, path, content.getvalue())
    except ValueError as error:
        raise InputError(f"downstream: {error} Name downstream.arms without those that use the backbone.") from error
    return replace(data, reading=reading)


def _kept(run: PublishedRun, path: str, encoder: object) -> BackboneReading | None:
    try:
        return BackboneReading.load(io.BytesIO(read_checked(run.store, path)), encoder=encoder)  # type: ignore[arg-type]
    except FileNotFoundError:
        return None
    except DamagedError as error:
        logging.getLogger(__name__).warning("%s The images are read again.", error)
        return None


def _evaluations(run: PublishedRun, source: str) -> float:
    """Network evaluations of all candidates that a source was chosen from."""
    sampler = PLAIN if source.partition("-")[0] == PLAIN else SELECTED
    rows = run.metadata[run.metadata["sampler"] == sampler]
    return float(np.nansum(rows["evaluations"].to_numpy(dtype=np.float64)))
