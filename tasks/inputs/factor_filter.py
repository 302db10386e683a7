"""Classifiers of label and attributes for a run whose groups are combinations: fitted once, kept in the store."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.storage.store import Store
from minority.classifier import ClassifierSettings
from minority.runtime.image_arrays import Images
from minority.selection.factor_classifiers import FactorClassifiers
from minority.selection.labelling import Labeller
from minority.selection.stored_networks import labeller_bytes, read_labeller
from minority.selection.without_neighbours import SharedReference
from tasks.errors import InputError
from tasks.inputs.fitted import digest_of, fitted
from tasks.inputs.planned_groups import GroupValues, sparse_groups
from tasks.inputs.real_data import RealData


@dataclass(frozen=True, eq=False)
class FactorFilter:
    """What evaluates whether samples show the values of their groups.

    Attributes:
        classifiers: Of the label and of every attribute with two values or more, in the order of `names`.
        names: What each tells.
        values: (G, F) of every group of the run.
        shared: The training images that share a value with a group.
        sparse: (G,) which groups have fewer real images than neighbours are counted.
    """

    classifiers: FactorClassifiers
    names: tuple[str, ...]
    values: NDArray[np.int64]
    shared: SharedReference
    sparse: NDArray[np.bool_]

    @property
    def tells_label(self) -> bool:
        """Whether the first of them tells the label, as it does where there are two classes or more."""
        return self.names[0] == "label"


def fitted_factor_filter(
    store: Store,
    real: RealData,
    images: Images,
    features: NDArray[np.floating],
    *,
    settings: ClassifierSettings,
    neighbours: int,
    device: str,
) -> FactorFilter:
    """Fit the classifiers on the training images, or read them.

    Args:
        store: The dataset's own.
        real: The real images, with the groups of the run.
        images: (N, H, W, C) uint8, the training images.
        features: (N, D) theirs.
        settings: Each classifier's budget.
        neighbours: k of the filter.
        device: Where to train.

    Raises:
        InputError: Groups are no combinations, or nothing has two values.
        StoreError: The store cannot be read or written.
    """
    groups = GroupValues(real)
    if not groups.columns:
        raise InputError(f"the groups of {real.train.name} are its classes alone; there are no attributes to tell.")
    names = ("label", *groups.attributes)
    sizes = (len(real.train.class_names), *(len(known) for known in groups.attributes.values()))
    varying = [factor for factor, size in enumerate(sizes) if size > 1]
    if not varying:
        raise InputError(f"label and attributes of {real.train.name} have one value each; nothing can be told apart.")
    train = groups.numbers(real.train.groups)[:, varying]
    labellers = _classifiers(
        store, images, train, sizes=[sizes[factor] for factor in varying], settings=settings, device=device
    )
    return FactorFilter(
        classifiers=labellers,
        names=tuple(names[factor] for factor in varying),
        values=groups.numbers(real.groups)[:, varying],
        shared=SharedReference(features, train, neighbours=neighbours, device=device),
        sparse=np.array(sparse_groups(real, neighbours=neighbours)),
    )


def _classifiers(
    store: Store,
    images: Images,
    values: NDArray[np.int64],
    *,
    sizes: Sequence[int],
    settings: ClassifierSettings,
    device: str,
) -> FactorClassifiers:
    digest = digest_of(images, values)

    def one(factor_index: int) -> Labeller:
        def train() -> bytes:
            classifiers = FactorClassifiers.train(
                images, values, sizes=sizes, only=[factor_index], settings=settings, device=device
            ).labellers
            return labeller_bytes(classifiers[0])

        decided_by = {"images": digest, "place": factor_index, "sizes": list(sizes), "settings": asdict(settings)}
        return read_labeller(
            fitted(store, "factor", decided_by=decided_by, fit=train, suffix="safetensors"), device=device
        )

    try:
        return FactorClassifiers(tuple(one(place) for place in range(len(sizes))))
    except ValueError as error:
        raise InputError(f"labeller: {error}") from error
