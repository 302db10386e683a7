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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.storage.canonical import canonical_json, sha256_hex
from datasets.storage.checked import DamagedError, create_checked, read_checked, write_checked
from datasets.storage.store import Store
from minority.classifier import ClassifierSettings
from minority.features import Extractor
from minority.selection.candidate_filter import build_filter, train_discriminator
from minority.selection.labelling import Labeller, confidence_floor
from minority.selection.settings import SelectionSettings
from minority.selection.stored_networks import discriminator_bytes, labeller_bytes, read_discriminator, read_labeller
from minority.selection.verdicts import CandidateFilter
from tasks.config.renamed import under_former_names
from tasks.errors import InputError
from tasks.inputs.real_data import RealData

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


def fitted_filter(
    store: Store,
    features: NDArray[np.floating],
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    settings: SelectionSettings,
    extract: Extractor,
    device: str,
) -> CandidateFilter:
    """The filter of a run; its discriminator, where the settings ask for one, is fitted once.

    Args:
        store: The dataset's own.
        features: (N, D) of the training images.
        images: (N, H, W, C) uint8, the training images.
        labels: (N,) their labels.
        settings: What counts as rare, valid, new and of its label.
        extract: What made the features.
        device: Where the discriminator is trained, and where it evaluates.

    Raises:
        ValueError: The images cannot be a reference, or are too few to train on.
        StoreError: The store cannot be read or written.
    """
    rules, discriminator = settings.held_out, None
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
    return build_filter(
        features, labels, settings=settings, images=images, extract=extract, discriminator=discriminator, device=device
    )


def fitted_labeller(
    store: Store,
    images: NDArray[np.uint8],
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
        InputError: There are no validation images.
        StoreError: The store cannot be read or written.
    """
    validation = real.validation
    if len(validation) == 0:
        raise InputError("selection.label_precision needs a validation split; set dataset.split.validation_fraction.")
    groups = np.array([real.groups.index(group) for group in validation.groups], dtype=np.int64)
    images = validation.images(range(len(validation)))

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


def digest_of(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """SHA-256 of images (N, H, W, C) uint8 and their (N,) labels or groups."""
    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(images.tobytes())
    digest.update(labels.astype(np.int64).tobytes())
    return digest.hexdigest()
