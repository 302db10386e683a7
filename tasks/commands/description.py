"""What the real images of a preset are: counts by group and split, missing values, duplicates, examples."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.describe import DatasetCard, describe
from datasets.readers.imageset import ImageSet
from datasets.splits.stratified import Split
from tasks.config.sections import DatasetConfig
from tasks.inputs.real_data import RealData, load_real_data

PICTURE = "examples.png"


def describe_dataset(config: DatasetConfig, out: Path | None) -> DatasetCard:
    """Read every real image of a preset once.

    Args:
        config: The dataset.
        out: Folder that receives README.md and examples.png, made where it is missing; None writes nothing.

    Returns:
        The dataset card.

    Raises:
        InputError: The images cannot be read.
        OSError: The folder cannot be written.
    """
    real = load_real_data(config)
    images, split = _whole(real)
    card = describe(images, split, account=real.account)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = card.to_markdown()
        (out / "README.md").write_text(f"{text}\n\n![examples of every group]({PICTURE})\n", encoding="utf-8")
        (out / PICTURE).write_bytes(card.picture())
    return card


def _whole(real: RealData) -> tuple[ImageSet, Split]:
    """The three parts as one set, and where each part is in it."""
    parts = [real.train, real.validation, real.test]
    ends = np.cumsum([len(part) for part in parts])

    def load(index: int) -> NDArray[np.uint8]:
        which = int(np.searchsorted(ends, index, side="right"))
        return parts[which].image(index - (int(ends[which - 1]) if which else 0))

    identities = [part.identities for part in parts if part.identities is not None]
    indices = np.split(np.arange(ends[-1], dtype=np.int64), ends[:-1])
    whole = ImageSet(
        name=real.train.name,
        labels=np.concatenate([part.labels for part in parts]),
        groups=[group for part in parts for group in part.groups],
        source_ids=[source_id for part in parts for source_id in part.source_ids],
        class_names=list(real.train.class_names),
        image_shape=real.train.image_shape,
        load=load,
        identities=[name for part in identities for name in part] if len(identities) == len(parts) else None,
        attributes={
            column: [value for part in parts for value in part.attributes[column]] for column in real.train.attributes
        },
        problems=real.problems,
    )
    return whole, Split(train=indices[0], validation=indices[1], test=indices[2])
