"""What people said of candidates: the file that the gallery writes, and the columns that it becomes.

{"format": "minority-decisions-1", "dataset": "digits", "run_id": "811a1fa753a8", "decided_by": "Ada",
 "decisions": {"s00000012": {"decision": "bad", "reason": "two digits"}, "s00000040": {"decision": "good"}}}
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

import pyarrow as pa

from datasets.runs.records import REVIEW_COLUMNS
from datasets.runs.tables import replace_column
from datasets.storage.canonical import canonical_json, parse_json, sha256_hex
from tasks.errors import InputError

FORMAT = "minority-decisions-1"
Word = Literal["good", "bad"]
_LONGEST = 2000  # characters of a reason or a name
_FIELDS = {"format", "dataset", "run_id", "decided_by", "decisions"}
_ENTRY_FIELDS = {"decision", "reason", "decided_by"}


@dataclass(frozen=True)
class Decision:
    """What somebody said of one candidate.

    Attributes:
        decision: "good", or "bad": not to be published.
        reason: Why, in the person's words; "" where none was given.
        decided_by: Who.
    """

    decision: Word
    reason: str
    decided_by: str


@dataclass(frozen=True)
class Decisions:
    """What was said of the candidates of one run.

    Attributes:
        dataset: The dataset's name.
        run_id: The run whose candidates were looked at.
        by_key: Candidate's key -> what was said of it.
        approved_by: Who let the rest be published as it is; "" where nobody was asked.
    """

    dataset: str
    run_id: str
    by_key: Mapping[str, Decision]
    approved_by: str = ""

    @property
    def people(self) -> list[str]:
        """Everybody who decided something, by name."""
        approving = {self.approved_by} if self.approved_by else set()
        return sorted({decision.decided_by for decision in self.by_key.values()} | approving)

    @property
    def sha256(self) -> str:
        """Digest of all that was said; the order and the spelling of the file do not matter."""
        said = {key: [each.decision, each.reason, each.decided_by] for key, each in self.by_key.items()}
        about = {"dataset": self.dataset, "run_id": self.run_id, "approved_by": self.approved_by}
        return sha256_hex(canonical_json(about | {"decisions": said}))

    def keys(self, decision: Word) -> set[str]:
        """The candidates of which this was said."""
        return {key for key, each in self.by_key.items() if each.decision == decision}

    def over(self, rows: pa.Table) -> Self:
        """These, and of all other candidates what their rows tell of an earlier review.

        Args:
            rows: A table with the columns of a review, or without.
        """
        if not set(REVIEW_COLUMNS) <= set(rows.column_names):
            return self
        said = rows.select(["key", *REVIEW_COLUMNS]).filter(rows["decision"].is_valid()).to_pylist()
        earlier = {row["key"]: Decision(row["decision"], row["decision_reason"], row["decided_by"]) for row in said}
        return replace(self, by_key=earlier | dict(self.by_key))

    def add_columns(self, rows: pa.Table) -> pa.Table:
        """The rows with what was said of each; null where nothing was."""
        said = [self.by_key.get(key) for key in rows["key"].to_pylist()]
        for column, attribute in zip(REVIEW_COLUMNS, ("decision", "reason", "decided_by"), strict=True):
            rows = replace_column(rows, column, values=[each and getattr(each, attribute) for each in said])
        return rows


def read_decisions(
    content: bytes, *, name: str, decided_by: str | None = None, otherwise: str | None = None
) -> Decisions:
    """Read what the gallery exported.

    Args:
        content: The file's content.
        name: What it is called in errors.
        decided_by: Who decided, over what the file says; None: as it says.
        otherwise: Who decided where the file does not say.

    Raises:
        InputError: It is no such file, says something else than good or bad, or nobody decided.
    """
    try:
        tree = parse_json(content, name=name)
    except ValueError as error:
        raise InputError(f"{name} is no file of decisions ({error}); export it from the gallery.") from error
    _require_fields(tree, name=name)
    person = decided_by or tree.get("decided_by") or otherwise
    entries = {key: _entry(key, entry, person, decided_by, name=name) for key, entry in tree["decisions"].items()}
    return Decisions(dataset=tree["dataset"], run_id=tree["run_id"], by_key=entries)


def require_candidates(decisions: Decisions, rows: pa.Table, *, name: str) -> None:
    """Refuse decisions on images that are no candidates of the run.

    Args:
        decisions: What was said.
        rows: The columns "key" and "sampler" of all candidates and real images.
        name: What the decisions are called in errors.

    Raises:
        InputError: Naming the first.
    """
    sampler_of = dict(zip(rows["key"].to_pylist(), rows["sampler"].to_pylist(), strict=True))
    for key in decisions.by_key:
        if key not in sampler_of:
            raise InputError(f"{name} decides on {key!r}, which run {decisions.run_id} does not have; mark that run's.")
        if sampler_of[key] != "minority":
            raise InputError(f"{name} decides on {key}, which is no candidate; only candidates can be refused.")


def _require_fields(tree: Mapping[str, Any], *, name: str) -> None:
    if tree.get("format") != FORMAT:
        raise InputError(f"{name} has the format {tree.get('format')!r}, not {FORMAT!r}; export it from the gallery.")
    unknown = sorted(set(tree) - _FIELDS)
    if unknown:
        raise InputError(f"{name} has the unknown field {unknown[0]!r}; the fields are {', '.join(sorted(_FIELDS))}.")
    for field in ("dataset", "run_id"):
        if not isinstance(tree.get(field), str):
            raise InputError(f"{name} names no {field}, so whose candidates it is about is not known; export it again.")
    if not isinstance(tree.get("decisions"), dict):
        raise InputError(f"{name} has no decisions by key; export it from the gallery.")


def _entry(key: str, entry: Any, person: Any, decided_by: str | None, *, name: str) -> Decision:
    if not isinstance(entry, dict) or entry.get("decision") not in get_args(Word):
        raise InputError(f"{name} says {entry!r:.80} of {key}; say good or bad as its decision.")
    unknown = sorted(set(entry) - _ENTRY_FIELDS)
    if unknown:
        raise InputError(f"{name} has the unknown field {unknown[0]!r} at {key}; use decision, reason and decided_by.")
    reason, who = entry.get("reason", ""), person if decided_by else entry.get("decided_by", person)
    if not isinstance(who, str) or not who.strip():
        raise InputError(f"{name} does not tell who decided on {key}; add decided_by to it, or give --by NAME.")
    if not isinstance(reason, str) or max(len(reason), len(who)) > _LONGEST or not _is_text(reason + who):
        raise InputError(
            f"{name} gives {key} a reason or name that is no text of up to {_LONGEST} characters; shorten it."
        )
    return Decision(entry["decision"], reason, who.strip())


def _is_text(text: str) -> bool:
    """Whether it can be stored: JSON may hold halves of characters, which no table takes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
