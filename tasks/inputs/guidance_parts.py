"""What guidance methods learn from the real training images: learnt once, and kept beside the dataset by recipe.

A part is a file of tensors and a receipt with its checksum, which comes last. A part is stored as soon as it is there,
so that a killed training goes on with the next part; a damaged one is named and learnt again.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from datasets.storage.canonical import canonical_json, parse_json, sha256_hex
from datasets.storage.store import Store
from minority.guidance.materials import Lessons, Parts, Tensors
from minority.guidance.method import Method, TrainedMethod
from minority.guidance.parts import pack, unpack
from minority.runtime.image_arrays import choose_images
from minority.sampling.draw import draw
from minority.sampling.settings import SamplerSettings
from tasks.errors import InputError
from tasks.inputs.fitted import digest_of
from tasks.inputs.workspace import Workspace

#: Raise it when a change of the code changes what is learnt.
PARTS_VERSION = 1
#: Real images that a method learns from; of a larger set a random sample is taken, since they are held in memory.
MOST_LESSONS = 50_000
#: Plain samples that methods learn from have indices that no run draws.
_APART = 2**42

_learning = threading.RLock()
_log = logging.getLogger(__name__)


def methods_to_learn(samplers: Iterable[SamplerSettings]) -> list[TrainedMethod]:
    """The methods of some samplers that learn anything, those that learn the same only once."""
    methods: dict[str, TrainedMethod] = {}
    for sampler in samplers:
        for method in sampler.guidance:
            if isinstance(method, TrainedMethod) and method.part_names:
                methods.setdefault(_learnt_by(method), method)
    return list(methods.values())


def open_parts(workspace: Workspace, methods: Sequence[Method]) -> Mapping[str, Parts]:
    """What methods have learnt, by key: from this process's memory, else from the store, else learnt now.

    Args:
        workspace: Backbone, real images and store.
        methods: Of one sampler; those that learn nothing are left out.

    Raises:
        InputError: The real images do not allow the training.
        OSError: The store cannot be read or written.
    """
    trained = [method for method in methods if isinstance(method, TrainedMethod) and method.part_names]
    with _learning:
        return {method.key: _parts(workspace, method) for method in trained}


@lru_cache(maxsize=8)
def _parts(workspace: Workspace, method: TrainedMethod) -> Parts:
    store = Store(workspace.config.store).child(workspace.config.name)
    folder = f"guidance/{method.key}-{parts_recipe(workspace, method)}"
    lessons = _lessons(workspace)
    parts: dict[str, Tensors] = {}
    for name in method.part_names:
        stored = _read(store, f"{folder}/{name}")
        if stored is None:
            _log.info("%s learns its %s", method.key, name)
            stored = _learn(method, name, lessons, parts)
            _write(store, f"{folder}/{name}", stored)
        parts[name] = stored
    return parts


def parts_recipe(workspace: Workspace, method: TrainedMethod) -> str:
    """12 hex digits over everything that decides what a method learns."""
    decisive = {
        "version": PARTS_VERSION,
        "method": _learnt_by(method),
        "backbone": [workspace.backbone.identity, workspace.config.backbone.decisive],
        "images": digest_of(workspace.train_images, workspace.real.train.labels),
        "learnt_from": MOST_LESSONS,
        "plain": _plain_sampler(workspace).to_dict() if method.uses_plain_samples else None,
    }
    return sha256_hex(canonical_json(decisive))[:12]


def _learnt_by(method: TrainedMethod) -> str:
    return method.key + canonical_json(method.training_settings).decode()


def _learn(method: TrainedMethod, name: str, lessons: Lessons, done: Parts) -> Tensors:
    try:
        return method.train(name, lessons, done)
    except ValueError as error:
        raise InputError(f"sampler.{method.key}: {error}") from error


def _read(store: Store, path: str) -> Tensors | None:
    """A part of the store; None where it is not there, or not as it was written."""
    if not store.exists(f"{path}.json") or not store.exists(f"{path}.safetensors"):
        return None
    content, name = store.read(f"{path}.safetensors"), store.url(f"{path}.safetensors")
    try:
        if sha256_hex(content) == parse_json(store.read(f"{path}.json"), name=store.url(f"{path}.json"))["sha256"]:
            return unpack(content, name=name)
    except (ValueError, KeyError):
        pass  # a receipt that says nothing is as good as none
    _log.warning("%s is not what its receipt says; it is learnt again.", name)
    return None


def _write(store: Store, path: str, part: Tensors) -> None:
    content = pack(part)
    store.write(f"{path}.safetensors", content)
    store.write(f"{path}.json", canonical_json({"sha256": sha256_hex(content)}))


def _lessons(workspace: Workspace) -> Lessons:
    sampler, real = _plain_sampler(workspace), workspace.real
    sample = choose_images(len(real.train), most=MOST_LESSONS, seed=len(real.train))

    def draw_plain(labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        return draw(
            workspace.backbone,
            seed=0,
            indices=range(_APART, _APART + len(labels)),
            labels=None if workspace.backbone.num_classes is None else labels.tolist(),
            settings=sampler,
            device=workspace.device,
        ).images

    return Lessons(
        backbone=workspace.backbone,
        images=workspace.train_images[sample],
        labels=np.asarray(real.train.labels, dtype=np.int64)[sample],
        draw_plain=draw_plain,
        device=workspace.device,
        batch_size=sampler.batch_size,
    )


def _plain_sampler(workspace: Workspace) -> SamplerSettings:
    return workspace.config.sampler.plain(by_prompts=workspace.backbone.prompts is not None)
