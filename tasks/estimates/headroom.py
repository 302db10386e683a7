"""Is it worth it? What more images of each group could bring a classifier, from the real images of a preset alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from datasets.storage.store import Store
from minority.downstream.data import LabelledImages
from minority.downstream.learning_curve import GroupHeadroom, headroom, measure_curves
from minority.downstream.settings import DownstreamSettings
from minority.runtime.image_arrays import join
from tasks.config.runs import AugmentConfig
from tasks.downstream.data import labelled
from tasks.errors import InputError
from tasks.inputs.real_data import load_real_data
from tasks.inputs.stored_headroom import StoredHeadroom, keep_headroom
from tasks.inputs.workspace import prepare_device


def measure_headroom(
    config: AugmentConfig, *, seeds: int, arm: str, on_done: Callable[[int, int], None]
) -> list[GroupHeadroom]:
    """Learning curves of every group on training and validation images; the test images are not looked at.

    What is found is kept in the store of `config`, where the reports of runs on the same images find it.

    Args:
        config: The images, and the budget of a training (`downstream.budget`).
        seeds: At least 2.
        arm: A recipe without synthetic images.
        on_done: Told how many trainings of all are done.

    Raises:
        InputError: The images cannot be read, the recipe or the number of seeds is not possible, or the store cannot be
            written.
    """
    device = prepare_device(config.device)
    real = load_real_data(config.dataset)
    parts = [labelled(part, real.groups) for part in (real.train, real.validation)]
    images = LabelledImages(
        join([part.images for part in parts if len(part)]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.groups for part in parts]),
    )
    budget = DownstreamSettings() if config.downstream is None else config.downstream.budget
    try:
        accuracy, held_out = measure_curves(
            images,
            class_names=real.train.class_names,
            group_names=real.groups,
            settings=replace(budget, record_steps=False) if device == "cpu" else budget,
            arm=arm,
            seeds=seeds,
            on_done=on_done,
            device=device,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    counts = np.bincount(images.groups, minlength=len(real.groups)).tolist()
    found = headroom(accuracy, held_out, group_names=real.groups, images=counts)
    stored = StoredHeadroom(recipe=arm, seeds=seeds, groups=found)
    keep_headroom(stored, Store(config.store).child(config.name), digest=real.digest)
    return found
