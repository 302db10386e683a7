"""What is fitted on the real images once a recipe: the discriminator, the labeller, and the labeller's floor.

Each lies in the dataset's part of the store, `fitted/<what>-<digest>`, with a checksum. The digest is of all that
decides it: real images, labels and settings. Whoever needs one reads it from there, so that all workers evaluate by the
same; where it is missing or damaged it is fitted, and of two processes that begin at once the first to be ready wins.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datasets.storage.canonical import canonical_json, sha256_hex
from datasets.storage.checked import DamagedError, create_checked, read_checked, write_checked
from datasets.storage.store import Store
from minority.classifier import ClassifierSettings
from minority.neighbours.approximate import ApproximateIndex, connect, is_approximate
from minority.neighbours.reference import RealReference
from minority.neighbours.stored import index_arrays, read_index, read_reference, reference_arrays
from minority.runtime.image_arrays import Images, choose, content_digest
from minority.selection.filter_building import build_filter, train_discriminator
from minority.selection.filter_contract import CandidateFilter
from minority.selection.held_out_filter import Mirrored
from minority.selection.labelling import Labeller, confidence_floor
from minority.selection.stored_networks import (
    array_bytes,
    discriminator_bytes,
    labeller_bytes,
    read_discriminator,
    read_labeller,
)
from tasks.config.renamed import under_former_names
from tasks.errors import InputError
from tasks.inputs.mapped_arrays import Arrays, mapped_arrays
from tasks.inputs.real_data import RealData
from tasks.inputs.real_features import features_name

if TYPE_CHECKING:
    from tasks.inputs.workspace import Models

#: Raise it when a change of the code changes what is fitted.
_VERSION = 1


def fitted(store: Store, what: str, *, decided_by: dict[str, Any], fit: Callable[[], bytes], suffix: str) -> bytes:
    """What is fitted once: from the store, or fitted now and kept there.

    Args:
        store: The dataset's own.
        what: Its name, e.g. "discriminator".
        decided_by: Everything that decides it, as JSON has words for.
        fit: Fits it.
        suffix: Of the file's name.

    Raises:
        StoreError: The store cannot be read or written.
    """
    digest = sha256_hex(canonical_json({"version": _VERSION} | decided_by))[:16]
    path, log = f"fitted/{what}-{digest}.{suffix}", logging.getLogger(__name__)
    keep: Callable[[Store, str, bytes], object] = create_checked
    try:
        return read_checked(store, path)
    except FileNotFoundError:
        pass
    except DamagedError as error:
        log.warning("%s The %s is fitted again.", error, what)
        keep = write_checked
    started = time.monotonic()
    content = fit()
    keep(store, path, content)
    log.info("fitted the %s in %.1f s: %s", what, time.monotonic() - started, store.url(path))
    return read_checked(store, path)  # another process may have been the first


def _fitted_arrays(store: Store, what: str, *, decided_by: dict[str, Any], fit: Callable[[], bytes]) -> Arrays:
    """The same as arrays by name; where they are large, mapped from this machine's cache."""
    data = fitted(store, what, decided_by=decided_by, fit=fit, suffix="safetensors")
    return mapped_arrays(f"{what}-{sha256_hex(data)[:32]}", data)


def fitted_filter(models: "Models") -> CandidateFilter:
    """The filter of a run; what takes long of it is fitted once: the discriminator, and the neighbours in a large set.

    Args:
        models: The run's.

    Raises:
        ValueError: The images cannot be a reference, or are too few to train on.
        StoreError: The store cannot be read or written.
    """
    settings, images, labels = models.config.selection, models.train_images, models.real.train.labels
    rules, store, device = settings.held_out, models.run.dataset_store, models.device
    reference, mirrored, discriminator = None, None, None
    if is_approximate(settings.search, len(images)):
        reference = _fitted_reference(models)
    if rules is not None:
        data = fitted(
            store,
            "discriminator",
            decided_by={
                "images": digest_of(images, labels),
                "settings": under_former_names(asdict(rules.discriminator), below="selection.held_out.discriminator"),
            },
            fit=lambda: discriminator_bytes(train_discriminator(images, labels, rules=rules, device=device)),
            suffix="safetensors",
        )
        discriminator = read_discriminator(data, device=device)
        reference = reference or RealReference.fit(models.features, k=settings.neighbours, device=device)
        mirrored = _fitted_mirrored(models, reference)
    return build_filter(
        models.features,
        labels,
        settings=settings,
        images=images,
        reference=reference,
        mirrored=mirrored,
        discriminator=discriminator,
        device=device,
    )


def _fitted_reference(models: "Models") -> RealReference:
    """The training images among one another, looked up in a graph."""
    k = models.config.selection.neighbours

    def fit() -> bytes:
        index = ApproximateIndex(models.features, connect(models.features, k=k))
        return array_bytes(reference_arrays(RealReference.fit(models.features, k=k, index=index), index))

    decided_by = {"features": features_name(models.extract, models.train_images), "neighbours": k, "search": "HNSW"}
    arrays = _fitted_arrays(models.run.dataset_store, "reference", decided_by=decided_by, fit=fit)
    return read_reference(arrays, models.features)


def _fitted_mirrored(models: "Models", reference: RealReference) -> Mirrored:
    """The mirrored training images, looked up as the training images are."""
    if not isinstance(reference.index, ApproximateIndex):
        return Mirrored.fit(models.mirrored_features, reference)
    features = models.mirrored_features

    def fit() -> bytes:
        index = ApproximateIndex(features, connect(features, k=1))
        distances, neighbours = Mirrored.fit(features, reference, index=index).of_training
        return array_bytes(index_arrays(index) | {"distances": distances, "nearest": neighbours})

    decided_by = {"features": features_name(models.extract, models.train_images, mirrored=True), "search": "HNSW"}
    arrays = _fitted_arrays(models.run.dataset_store, "mirrored", decided_by=decided_by, fit=fit)
    return Mirrored(read_index(arrays, features), (arrays["distances"], arrays["nearest"]))


def fitted_labeller(
    store: Store,
    images: Images,
    groups: NDArray[np.int64],
    *,
    num_groups: int,
    settings: ClassifierSettings,
    device: str,
) -> Labeller:
    """The ensemble that recognises groups.

    Args:
        store: The dataset's own.
        images: (N, H, W, C) uint8, the training images.
        groups: (N,) their groups in [0, num_groups).
        num_groups: How many there are.
        settings: Each member's budget.
        device: Where to train.

    Raises:
        StoreError: The store cannot be read or written.
    """

    def train() -> bytes:
        labeller = Labeller.train(images, groups, num_groups=num_groups, settings=settings, device=device)
        return labeller_bytes(labeller)

    decided_by = {"images": digest_of(images, groups), "groups": num_groups, "settings": asdict(settings)}
    data = fitted(store, "labeller", decided_by=decided_by, fit=train, suffix="safetensors")
    return read_labeller(data, device=device)


def fitted_label_floor(store: Store, labeller: Labeller, real: RealData, *, precision: float) -> float:
    """Confidence from which the labeller is believed: what reaches a precision on the validation split.

    Args:
        store: The dataset's own.
        labeller: Recognises groups.
        real: The real images.
        precision: Share of believed answers that must be right, in (0, 1].

    Raises:
        InputError: There are no validation images of the groups that are drawn for.
        StoreError: The store cannot be read or written.
    """
    known = np.flatnonzero(real.validation_groups >= 0)
    if len(known) == 0:
        raise InputError(
            "selection.label_precision needs a validation split of groups that are trained on; set "
            "dataset.split.validation_fraction."
        )
    images, groups = choose(real.validation_images, known), real.validation_groups[known]

    def fit() -> bytes:
        recognised, confidence = labeller.label(images)
        floor = confidence_floor(confidence, recognised == groups, precision=precision)
        return canonical_json({"floor": floor})

    decided_by = {
        "images": digest_of(images, groups),
        "labeller": sha256_hex(labeller_bytes(labeller)),
        "precision": precision,
    }
    data = fitted(store, "label-floor", decided_by=decided_by, fit=fit, suffix="json")
    return float(json.loads(data)["floor"])


def digest_of(images: Images, labels: NDArray[np.int64]) -> str:
    """SHA-256 over images (N, H, W, C) uint8 and their (N,) labels or groups."""
    digest = hashlib.sha256(content_digest(images).encode())
    digest.update(labels.astype(np.int64).tobytes())
    return digest.hexdigest()
