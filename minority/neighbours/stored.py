"""A fitted reference as arrays, and back: fitting one of a million images takes minutes, reading it a second.

Shapes: N reference images, D features.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minority.neighbours.approximate import ApproximateIndex, Graph
from minority.neighbours.index import Accuracy
from minority.neighbours.pairwise import Features
from minority.neighbours.reference import Neighbourhood, RealReference

Arrays = dict[str, NDArray[Any]]

_OF_TRAINING = "of_training."


def index_arrays(index: ApproximateIndex) -> Arrays:
    """An index as arrays by name; the features are not among them."""
    measured = index.accuracy
    return {
        "links": index.graph.links,
        "counts": np.array([index.graph.in_view, measured.sample]),
        "accuracy": np.array([measured.recall, measured.rare_recall, measured.overestimate, measured.worst]),
    }


def read_index(arrays: Mapping[str, NDArray[Any]], features: Features) -> ApproximateIndex:
    """What `index_arrays` was given.

    Args:
        arrays: By name.
        features: (N, D) that it was made of.

    Raises:
        KeyError: An array is missing.
        ValueError: The arrays are of features of another shape, or faiss is not installed.
    """
    in_view, sample = (int(value) for value in arrays["counts"])
    recall, rare_recall, overestimate, worst = (float(value) for value in arrays["accuracy"])
    accuracy = Accuracy(recall=recall, rare_recall=rare_recall, overestimate=overestimate, worst=worst, sample=sample)
    return ApproximateIndex(features, Graph(arrays["links"], in_view), accuracy=accuracy)


def reference_arrays(reference: RealReference, index: ApproximateIndex) -> Arrays:
    """A reference and its index as arrays by name; its features are not among them."""
    arrays: Arrays = {f"{_OF_TRAINING}{name}": values for name, values in reference.of_training._asdict().items()}
    arrays |= {"radii": reference.radii, "reachability": reference.reachability, "k": np.array([reference.k])}
    return arrays | index_arrays(index)


def read_reference(arrays: Mapping[str, NDArray[Any]], features: Features) -> RealReference:
    """What `reference_arrays` was given.

    Args:
        arrays: By name.
        features: (N, D) that it was fitted on.

    Raises:
        KeyError: An array is missing.
        ValueError: The arrays are of features of another shape, or faiss is not installed.
    """
    return RealReference(
        features=features,
        k=int(arrays["k"][0]),
        of_training=Neighbourhood(**{name: arrays[f"{_OF_TRAINING}{name}"] for name in Neighbourhood._fields}),
        radii=arrays["radii"],
        reachability=arrays["reachability"],
        index=read_index(arrays, features),
    )
