"""Where every image of a set is: in a part, or left out for a reason. The numbers add up."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from datasets.readers.imageset import DAMAGED_IMAGE, ImageSet, Problem
from datasets.readers.names.text_forms import look_alikes
from datasets.splits.identity_split import straddling_sets
from datasets.storage.escaping import for_markdown, for_terminal

BEYOND_CAP = "above dataset.max_images"
# Words for "nothing" in some tables, for a class in others.
_WORDS_FOR_NOTHING = {"na", "n/a", "nan", "none", "null", "unknown"}
_LONGEST_EXAMPLE = 160
_MOST_NAMED = 50  # of the images that cannot be read


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Images and rows that are in no part for one reason.

    Attributes:
        reason: What they are counted under.
        images: Images on disk.
        rows: Rows of the set's table; 0 for a set without one.
        others: Files that are passed over and are no images of the set.
        example: One of them, in words; "" where there is nothing to say.
    """

    reason: str
    images: int
    rows: int = 0
    others: int = 0
    example: str = ""


@dataclass(frozen=True, kw_only=True)
class Account:
    """What became of every image on disk and of every row of a set's table.

    Attributes:
        parts: Part -> images.
        left_out: The others by reason, those with most images first.
        notes: What is used and yet worth knowing, e.g. groups without value; a sentence each.
    """

    parts: Mapping[str, int]
    left_out: Sequence[LeftOut] = ()
    notes: Sequence[str] = ()

    @property
    def num_images(self) -> int:
        """Images on disk, in a part or not."""
        return sum(self.parts.values()) + sum(entry.images for entry in self.left_out)

    @property
    def num_rows(self) -> int:
        """Rows of the table, used or not; every image of a part has one."""
        return sum(self.parts.values()) + sum(entry.rows for entry in self.left_out)

    def to_text(self, *, examples: bool = True) -> str:
        """One paragraph: every number, an example of every reason that has one, and the notes.

        Args:
            examples: Whether to give one a reason; they may name places of this machine.
        """
        used = ", ".join(f"{count:,} {part}" for part, count in self.parts.items())
        without = sum(entry.images for entry in self.left_out)
        sentences = [f"{self.num_images:,} images: {used}, {without:,} in no part."]
        sentences += [
            f"{_number(entry)}: {entry.reason}{_example(entry) if examples else ''}." for entry in self.left_out
        ]
        return " ".join([*sentences, *self.notes])

    def to_markdown(self, *, examples: bool = True) -> str:
        """A table with a line a part and a reason, whose last line is the sum; the notes below it.

        Args:
            examples: Whether to give one a reason; they may name places of this machine.
        """
        with_rows = any(entry.rows for entry in self.left_out)
        lines = ["| where | images |" + " rows |" * with_rows, "|---|---|" + "---|" * with_rows]
        counted = [entry for entry in self.left_out if entry.images or entry.rows]
        entries = [
            *((part, count, count) for part, count in self.parts.items()),
            *((f"left out: {entry.reason}", entry.images, entry.rows) for entry in counted),
            ("all", self.num_images, self.num_rows),
        ]
        lines += [f"| {for_markdown(where)} | {images} |" + f" {rows} |" * with_rows for where, images, rows in entries]
        named = [
            f"- {for_markdown(entry.reason)}{'' if entry in counted else f' ({_number(entry)})'}: "
            f"{for_markdown(entry.example)}"
            for entry in self.left_out
            if entry.example and examples
        ]
        return "\n\n".join(["\n".join(lines), *filter(None, ["\n".join(named)]), *map(for_markdown, self.notes)])


def take_account(
    parts: Mapping[str, ImageSet],
    *,
    left_out: Mapping[str, Sequence[str]],
    unreadable: Sequence[Problem] = (),
    num_beyond_cap: int = 0,
    notes: Sequence[str] = (),
) -> Account:
    """Count what became of a set.

    Args:
        parts: Part -> its images, without the unreadable ones.
        left_out: Reason -> source ids of images that the reader read and that are in no part.
        unreadable: One problem for every image that was taken out of its part because it cannot be read.
        num_beyond_cap: Images that a cap of the reader's left aside.
        notes: Sentences that are told beside those that follow from labels, groups and identities.

    Returns:
        The account; what a reader left out is counted once, however many parts have it among their problems.
    """
    problems = list(dict.fromkeys(problem for part in parts.values() for problem in part.problems))
    with_rows = any(problem.is_row for problem in problems)
    entries = _entries(problems)
    for reason, source_ids in left_out.items():
        if source_ids:
            entries.append(LeftOut(reason=reason, images=len(source_ids), rows=len(source_ids) * with_rows))
    if unreadable:
        count = len(unreadable)
        named = ", ".join(for_terminal(problem.source_id, keep_lines=False) for problem in unreadable[:_MOST_NAMED])
        more = f" and {count - _MOST_NAMED:,} more" if count > _MOST_NAMED else ""
        entries.append(LeftOut(reason=DAMAGED_IMAGE, images=count, rows=count * with_rows, example=f"{named}{more}"))
    if num_beyond_cap:
        entries.append(LeftOut(reason=BEYOND_CAP, images=num_beyond_cap))
    return Account(
        parts={name: len(part) for name, part in parts.items()},
        left_out=sorted(entries, key=lambda entry: (-entry.images, -entry.rows, entry.reason)),
        notes=[*_notes(parts), *notes],
    )


def _entries(problems: Iterable[Problem]) -> list[LeftOut]:
    by_kind: dict[str, list[Problem]] = {}
    for problem in problems:
        by_kind.setdefault(problem.kind, []).append(problem)
    return [
        LeftOut(
            reason=kind,
            images=sum(problem.on_disk for problem in problems_of_kind),
            rows=sum(problem.is_row for problem in problems_of_kind),
            others=sum(not problem.on_disk and not problem.is_row for problem in problems_of_kind),
            example=for_terminal(f"{problems_of_kind[0].source_id} {problems_of_kind[0].reason}", keep_lines=False)[
                :_LONGEST_EXAMPLE
            ],
        )
        for kind, problems_of_kind in by_kind.items()
    ]


def _notes(parts: Mapping[str, ImageSet]) -> Iterator[str]:
    sets = list(parts.values())
    class_names = sets[0].class_names if sets else []
    for label, name in enumerate(class_names):
        if name.casefold() in _WORDS_FOR_NOTHING:
            count = sum(int((part.labels == label).sum()) for part in sets)
            yield f"{name!r} is taken as a class, not as a missing label: {count:,} images."
    columns = list(dict.fromkeys(name for part in sets for name in part.attributes))
    values = {name: [value for part in sets for value in part.attributes.get(name, [])] for name in columns}
    for name, terms in values.items():
        if None in terms:
            yield f"{name!r} has no value in {terms.count(None):,} images; their groups say unknown."
    words_of: dict[str, Sequence[str | None]] = {"classes": class_names}
    words_of |= {f"values of {name!r}": terms for name, terms in values.items()}
    for what, words in words_of.items():
        for alike in look_alikes(word for word in words if word is not None):
            named = " and ".join(map(repr, alike[:3]))
            yield f"The {what} {named} differ in case or spaces alone, and are counted apart."
    divided = straddling_sets([part.identities for part in sets])
    if divided:
        yield f"{len(divided):,} identities have images in two parts, e.g. {divided[0]!r:.60}."


def _number(entry: LeftOut) -> str:
    if entry.images:
        return f"{entry.images:,} images"
    if entry.rows:
        return f"{entry.rows:,} rows"
    return f"{entry.others:,} passed over"


def _example(entry: LeftOut) -> str:
    return f" ({entry.example.rstrip('.')})" if entry.example else ""
