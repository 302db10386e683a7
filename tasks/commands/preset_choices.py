"""What a preset of one's own is made of: what was seen of the images, and what was asked or left to the defaults."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets.storage.names import require_name
from datasets.survey import Survey
from tasks.errors import InputError

#: Sides in pixels that the architectures of `minority init` are made for.
SIDES = (8, 16, 32, 64, 128, 256)
#: Synthetic and real images a group, at most, for every real one of the smallest group.
_MOST_TIMES_THE_SMALLEST = 4


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the preset says.

    Attributes:
        name: The preset's and the dataset's name.
        survey: What was seen.
        label_column: Column of the label; None where folders are the classes.
        groups: Columns that divide the classes into groups; inner edges of the bins for a column of numbers.
        identity_column: Column that tells what is shown, so that it stays in one part.
        split_column: Column of the makers' parts.
        image_size: Side in pixels.
        test_fraction: Share of the images that tests, where there are no makers' parts.
        mirrored: Whether a mirrored image is as good an example of its class.
        quota: Images a group, real and synthetic.
        store: Folder or URL that receives the dataset.
        backbone: A pretrained backbone; None where one is trained.
    """

    name: str
    survey: Survey
    label_column: str | None
    groups: Mapping[str, tuple[float, ...] | None] = field(default_factory=dict)
    identity_column: str | None = None
    split_column: str | None = None
    image_size: int
    test_fraction: float
    mirrored: bool
    quota: int
    store: str
    backbone: str | None = None

    def __post_init__(self) -> None:
        try:
            require_name("the preset's name", self.name)
        except ValueError as error:
            raise InputError(str(error)) from error
        if not 0 < self.test_fraction < 1:
            raise InputError(f"the test share must be between 0 and 1, got {self.test_fraction:g}.")
        if self.quota < 1:
            raise InputError(f"the quota must be at least 1 image a group, got {self.quota}.")
        if self.backbone is None and self.image_size not in SIDES:
            raise InputError(
                f"the side must be {', '.join(map(str, SIDES[:-1]))} or {SIDES[-1]} pixels where a backbone is "
                f"trained, got {self.image_size}."
            )

    @property
    def class_counts(self) -> dict[str, int]:
        """Images of every class, the commonest first; of a table, rows, whether or not their image is there."""
        return dict(Counter(class_counts(self.survey, self.label_column)).most_common())


def class_counts(survey: Survey, label_column: str | None) -> dict[str, int]:
    """Images of every class, as folders or a column tell them.

    Raises:
        InputError: There are no classes, or no such column.
    """
    if label_column is not None:
        try:
            return dict(survey.column(label_column).counts)
        except ValueError as error:
            raise InputError(str(error)) from error
    if set(survey.folders) == {""}:
        raise InputError(
            f"{survey.images} has no folders, so no image has a label; give a table of labels (--table), or put the "
            "images into one folder a class."
        )
    counts: Counter[str] = Counter()
    for name, count in survey.folders.items():
        if name:
            counts[name.split("/")[-1]] += count  # a class may lie in train/ and in test/
    return dict(counts)


def default_side(survey: Survey, *, on_gpu: bool) -> int:
    """The side that fits images and device: no larger than most images are, 64 pixels at most without a GPU.

    Args:
        survey: What was seen.
        on_gpu: Whether a GPU will do the work.
    """
    shorter = sorted(min(size) for size in survey.sizes.elements())
    if not shorter:
        raise InputError(f"none of the {survey.opened} images that were opened can be read; look at {survey.images}.")
    typical = shorter[len(shorter) // 2]
    most = 256 if on_gpu else 64
    return max([side for side in SIDES if side <= min(typical + typical // 4, most)], default=SIDES[0])


def default_quota(counts: Mapping[str, int], *, train_share: float) -> int:
    """Images a group: as many as the commonest class has, but no more than four times what the rarest has.

    Args:
        counts: Images of every class.
        train_share: Share of them in the training part.
    """
    sizes = [max(1, int(count * train_share)) for count in counts.values()]
    return min(max(sizes), _MOST_TIMES_THE_SMALLEST * min(sizes))


def default_edges(survey: Survey, column: str) -> tuple[float, ...] | None:
    """Inner edges of three bins of about equal numbers for a column of many numbers; None for a column of words.

    Args:
        survey: What was seen.
        column: The column's name.
    """
    found = survey.column(column)
    if not found.numeric or len(found.counts) <= 5:
        return None
    values = sorted(float(value) for value in found.counts.elements())
    edges = sorted({values[len(values) // 3], values[2 * len(values) // 3]} - {values[0]})
    return tuple(edges) or None


def beside(survey: Survey) -> tuple[Path, str, str]:
    """The folder that holds images and table, and their names in it.

    Raises:
        InputError: There is no table, or neither of the two lies in or beside the other's folder.
    """
    if survey.table is None:
        raise InputError("a set without a table has none to lie beside.")
    images, table = survey.images.resolve(), survey.table.resolve()
    for root in (images.parent, *images.parent.parents):
        if table.is_relative_to(root) and root != Path(root.anchor):
            return root, images.relative_to(root).as_posix(), table.relative_to(root).as_posix()
    raise InputError(f"{images} and {table} lie in different places; put both below one folder.")
