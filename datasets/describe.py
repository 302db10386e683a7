"""What is in a set of real images before anything is made of it: counts, gaps, damage, duplicates, examples."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.contact_sheet import contact_sheet
from datasets.readers.imageset import DAMAGED_IMAGE, PARTS, ImageSet, Problem
from datasets.splits.account import Account, take_account
from datasets.splits.identity_split import IN_NO_PART, straddling
from datasets.splits.stratified import Split
from datasets.storage.escaping import for_markdown

_MOST_LISTED = 20
_EXAMPLES_A_GROUP = 8


@dataclass(frozen=True)
class Duplicate:
    """Images with the same pixels: their source ids, the parts they are in, and whether their labels differ."""

    source_ids: list[str]
    parts: list[str]
    labels_differ: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class DatasetCard:
    """What `describe` found.

    Attributes:
        name: The set's name.
        image_shape: (H, W, C).
        num_images: Images in the set.
        num_identities: Different things shown, or None where the set does not say.
        counts: Group -> part -> images; "unused" are those that no part of the split holds.
        class_counts: Class name -> part -> images.
        missing: Attribute -> images whose value is missing.
        problems: Annotations that the reader left out and images that cannot be decoded.
        duplicates: Sets of images with equal pixels, those that lie in two parts first.
        straddling: Identities with images in two parts.
        account: In which part every image on disk is, or why it is in none.
        examples: Group -> up to eight images, uint8 (H, W, C).
    """

    name: str
    image_shape: tuple[int, int, int]
    num_images: int
    num_identities: int | None
    counts: dict[str, dict[str, int]]
    class_counts: dict[str, dict[str, int]]
    missing: dict[str, int]
    problems: list[Problem]
    duplicates: list[Duplicate]
    straddling: list[str]
    account: Account
    examples: dict[str, list[NDArray[np.uint8]]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the examples, as plain JSON values."""
        named = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "examples"}
        return named | {
            "image_shape": list(self.image_shape),
            "problems": [asdict(problem) for problem in self.problems],
            "duplicates": [asdict(duplicate) for duplicate in self.duplicates],
            "account": asdict(self.account),
        }

    def to_markdown(self) -> str:
        """The card as Markdown."""
        height, width, channels = self.image_shape
        shown = "" if self.num_identities is None else f" of {self.num_identities} identities"
        leaking = sum(len(set(duplicate.parts)) > 1 for duplicate in self.duplicates)
        sections = [
            f"# {self.name}",
            f"{self.num_images} images{shown}, {width} x {height} pixels, {'grey' if channels == 1 else 'RGB'}.",
            "## Where every image is\n\n" + self.account.to_markdown(),
            "## Images by class and part\n\n" + _table("class", self.class_counts),
            "## Images by group and part\n\n" + _table("group", self.counts),
            "## Missing values\n\n" + _lines([f"{name}: {count} images" for name, count in self.missing.items()]),
            "## Problems\n\n" + _problem_lines(self.problems),
            f"## Duplicates\n\n{len(self.duplicates)} sets of images with equal pixels, {leaking} of them in two "
            f"parts, {sum(duplicate.labels_differ for duplicate in self.duplicates)} with different labels.\n\n"
            + _lines([_duplicate_line(duplicate) for duplicate in self.duplicates]),
            "## Identities in two parts\n\n" + _lines(self.straddling),
        ]
        return "\n\n".join(sections) + "\n"

    def picture(self) -> bytes:
        """Examples of every group as PNG bytes: one row a group with its name and number of images."""
        rows = [
            (f"{group} ({sum(self.counts[group].values())})", images) for group, images in sorted(self.examples.items())
        ]
        return contact_sheet(rows, image_shape=self.image_shape, columns=_EXAMPLES_A_GROUP)


def describe(image_set: ImageSet, split: Split | None = None, *, account: Account | None = None) -> DatasetCard:
    """Read every image once and say what the set holds.

    Args:
        image_set: The set.
        split: Its division; None takes the makers' parts where there are some.
        account: What became of images and rows that are not in the set; None where it is whole.

    Returns:
        The card. Images that cannot be decoded are among its problems.
    """
    part_of = _part_of(image_set, split)
    hashes: dict[bytes, list[int]] = {}
    damaged: dict[int, Problem] = {}
    examples: dict[str, list[NDArray[np.uint8]]] = {}
    for index, image in image_set.decoded():
        if isinstance(image, Problem):
            damaged[index] = image
            continue
        hashes.setdefault(hashlib.sha256(image.tobytes()).digest()[:16], []).append(index)
        shown = examples.setdefault(image_set.groups[index], [])
        if len(shown) < _EXAMPLES_A_GROUP:
            shown.append(image)
    duplicates = [_duplicate(image_set, same, part_of) for same in hashes.values() if len(same) > 1]
    label_names = [image_set.class_names[label] for label in image_set.labels]
    return DatasetCard(
        name=image_set.name,
        image_shape=image_set.image_shape,
        num_images=len(image_set),
        num_identities=None if image_set.identities is None else len(set(image_set.identities)),
        counts=_counts(image_set.groups, part_of, names=sorted(set(image_set.groups))),
        class_counts=_counts(label_names, part_of, names=image_set.class_names),
        missing={name: values.count(None) for name, values in image_set.attributes.items()},
        problems=[*image_set.problems, *damaged.values()],
        duplicates=sorted(duplicates, key=lambda duplicate: (len(set(duplicate.parts)) == 1, duplicate.source_ids)),
        straddling=_straddling(image_set, split),
        account=account or _account(image_set, part_of, damaged, split),
        examples=examples,
    )


def _part_of(image_set: ImageSet, split: Split | None) -> list[str]:
    if split is None:
        return [part or "unused" for part in image_set.parts or [""] * len(image_set)]
    part_of = ["unused"] * len(image_set)
    for name, indices in zip(PARTS, (split.train, split.validation, split.test), strict=True):
        for index in indices:
            part_of[index] = name
    return part_of


def _account(image_set: ImageSet, part_of: list[str], damaged: Mapping[int, Problem], split: Split | None) -> Account:
    indices_of = {
        name: [i for i, part in enumerate(part_of) if part == name and i not in damaged] for name in (*PARTS, "unused")
    }
    known = {} if split is None else split.left_out
    reasons = {int(index): reason for reason, indices in known.items() for index in indices}
    left_out: dict[str, list[str]] = {}
    for index in indices_of.pop("unused"):
        left_out.setdefault(reasons.get(index, IN_NO_PART), []).append(image_set.source_ids[index])
    return take_account(
        {name: image_set.subset(indices) for name, indices in indices_of.items()},
        left_out=left_out,
        unreadable=list(damaged.values()),
        num_beyond_cap=image_set.num_beyond_cap,
    )


def _counts(values: list[str], part_of: list[str], *, names: list[str]) -> dict[str, dict[str, int]]:
    counted = Counter(zip(values, part_of, strict=True))
    return {name: {part: counted[name, part] for part in (*PARTS, "unused")} for name in names}


def _duplicate(image_set: ImageSet, same: list[int], part_of: list[str]) -> Duplicate:
    return Duplicate(
        source_ids=[image_set.source_ids[index] for index in same],
        parts=[part_of[index] for index in same],
        labels_differ=len({int(image_set.labels[index]) for index in same}) > 1,
    )


def _straddling(image_set: ImageSet, split: Split | None) -> list[str]:
    if image_set.identities is None:
        return []
    if split is None:
        parts = np.array(image_set.parts or [""] * len(image_set))
        train, validation, test = (np.flatnonzero(parts == name).astype(np.int64) for name in PARTS)
        split = Split(train=train, validation=validation, test=test)
    return straddling(image_set.identities, split)


def _table(head: str, counts: dict[str, dict[str, int]]) -> str:
    parts = [part for part in (*PARTS, "unused") if any(row[part] for row in counts.values())]
    lines = [f"| {head} | {' | '.join(parts)} | all |", "|---" * (len(parts) + 2) + "|"]
    for name, row in counts.items():
        cells = [str(row[part]) for part in parts]
        lines.append(f"| {for_markdown(' '.join(name.split()))} | {' | '.join(cells)} | {sum(row.values())} |")
    return "\n".join(lines)


def _problem_lines(problems: list[Problem]) -> str:
    """Reason by reason: how many, and some of them; images that cannot be read are named all."""
    by_kind: dict[str, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    paragraphs = [
        f"{len(problems_of_kind)} times, {kind}:\n\n"
        + _lines(
            [f"{problem.source_id}: {problem.reason}" for problem in problems_of_kind],
            most=len(problems_of_kind) if kind == DAMAGED_IMAGE else _MOST_LISTED,
        )
        for kind, problems_of_kind in by_kind.items()
    ]
    return "\n\n".join(paragraphs) or "None."


def _lines(entries: list[str], *, most: int = _MOST_LISTED) -> str:
    if not entries:
        return "None."
    more = [f"and {len(entries) - most} more"] if len(entries) > most else []
    return "\n".join(f"- {for_markdown(' '.join(entry.split()))}" for entry in entries[:most] + more)


def _duplicate_line(duplicate: Duplicate) -> str:
    named = [f"{name} ({part})" for name, part in zip(duplicate.source_ids, duplicate.parts, strict=True)]
    return ", ".join(named[:5]) + (", ..." if len(named) > 5 else "") + (": labels differ" * duplicate.labels_differ)
