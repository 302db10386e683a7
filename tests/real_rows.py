"""Real images as rows and samples of a run, beside the synthetic ones or alone."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from datasets.readers.imageset import ImageSet, Problem
from datasets.runs.shards import Sample
from datasets.splits.stratified import Indices

_PREFIX = "real-"


def real_rows(image_set: ImageSet, indices: Sequence[int] | Indices | None = None) -> pa.Table:
    """One row an image, keyed by its position in the set. Decodes every image once.

    Args:
        image_set: The set.
        indices: Positions to take, each once; all where not given.

    Returns:
        Rows with some columns of METADATA_SCHEMA, in the order of `indices`. An image that cannot be decoded has
        kept = False and the reason "unreadable: ...".
    """
    chosen = np.arange(len(image_set)) if indices is None else np.asarray(indices, dtype=np.int64)
    reasons = [
        f"unreadable: {found.reason}" if isinstance(found, Problem) else "kept"
        for _, found in image_set.decoded(chosen)
    ]
    labels = image_set.labels[chosen]
    return pa.table(
        {
            "key": pa.array([_key(index) for index in chosen], pa.string()),
            "source": pa.array(["real"] * len(chosen), pa.string()),
            "sampler": pa.array(["real"] * len(chosen), pa.string()),
            "source_id": pa.array([image_set.source_ids[index] for index in chosen], pa.string()),
            "label": pa.array(labels, pa.int32()),
            "label_name": pa.array([image_set.class_names[label] for label in labels], pa.string()),
            "group": pa.array([image_set.groups[index] for index in chosen], pa.string()),
            "kept": pa.array([reason == "kept" for reason in reasons], pa.bool_()),
            "reason": pa.array(reasons, pa.string()),
        }
    )


def real_samples(
    image_set: ImageSet, rows: pa.Table, *, extension: str = "png", seed: int | None = 0
) -> Iterator[Sample]:
    """The kept real images of a table, read one at a time.

    Args:
        image_set: The set that `real_rows` was given.
        rows: Its rows, perhaps with other rows among them.
        extension: "png", "webp" or "jpg".
        seed: Mixes the images, so that every shard is a fair sample of the whole; None keeps the order of the rows.

    Yields:
        Samples whose record gives source, source id, class, group and the attributes that are known.
    """
    kept = zip(rows["key"].to_pylist(), rows["source"].to_pylist(), rows["kept"].to_pylist(), strict=True)
    indices = [int(key.removeprefix(_PREFIX)) for key, source, is_kept in kept if is_kept and source == "real"]
    order = np.arange(len(indices)) if seed is None else np.random.default_rng(seed).permutation(len(indices))
    for place in order:
        index = indices[place]
        yield Sample(
            key=_key(index),
            image=image_set.image(index),
            label=int(image_set.labels[index]),
            record=_record(image_set, index),
            extension=extension,
        )


def _key(index: int) -> str:
    return f"{_PREFIX}{index:08d}"


def _record(image_set: ImageSet, index: int) -> dict[str, object]:
    known = {name: values[index] for name, values in image_set.attributes.items() if values[index] is not None}
    return {
        "source": "real",
        "source_id": image_set.source_ids[index],
        "label_name": image_set.class_names[int(image_set.labels[index])],
        "group": image_set.groups[index],
    } | ({"attributes": known} if known else {})
