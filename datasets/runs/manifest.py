"""The manifest: the commit mark of a published run, and all that its readers trust.

It names every file with size and checksum, and has a checksum of itself. It holds no times, host names or absolute
paths, so that two runs of one recipe give the same bytes.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from datasets.storage.canonical import DAMAGED, parse_json
from datasets.storage.checked import DamagedError, checked_json, parse_checked_json
from datasets.storage.names import is_name

FORMAT_VERSION = 2
#: Read too, with a note in the log: that format has no checksum of the manifest itself.
_UNCHECKED_VERSION = 1
MANIFEST_FILE = "manifest.json"
METADATA_FILE = "metadata.parquet"
CARD_FILE = "README.md"
WEIGHTS_FILE = "weights.parquet"
_PATH = re.compile(r"(shards/)?[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
Entry = TypeVar("Entry", "ShardEntry", "MetadataEntry", "CardEntry")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """A published tar: path below the run, samples in it, size in bytes, SHA-256."""

    path: str
    num_samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class MetadataEntry:
    """The table of all candidates: path below the run, rows, size in bytes, SHA-256."""

    path: str
    num_rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class CardEntry:
    """The data card: path below the run, SHA-256."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Review:
    """That people looked at a run's candidates before it was published, and what came of it.

    Attributes:
        decided_by: Who.
        decisions: SHA-256 of all decisions, 64 hex digits.
        units_of: The run whose units hold the candidates: the run itself, or the one that this is a version of.
        version_of: The run that they looked at where it was published already; None where they came before that.
        version_of_manifest: SHA-256 of that run's manifest, 64 hex digits.
    """

    decided_by: list[str]
    decisions: str
    units_of: str
    version_of: str | None = None
    version_of_manifest: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is said about a run beyond what can be counted in its files.

    Attributes:
        dataset: The data set's name.
        run_id: The run's name.
        recipe: Hash over everything that changes the images.
        config: The resolved settings as plain JSON values, without times and machine-bound paths.
        backbone: "name" and "sha256" of the diffusion model's weights.
        versions: Package name -> version.
        class_names: What each label means.
        quotas: Group -> synthetic images asked for.
        provenance: A sentence or more for the card: where the real images come from and their licence, what made the
            synthetic ones.
        real_digest: Digest of the real images that the run was made from (datasets.readers.images.image_digest), 64 hex
            digits; None where it was not taken.
        real_images: In which part every real image is, or why it is in none, as Markdown; "" leaves it out.
        review: Who looked at the candidates; None where nobody did.
    """

    dataset: str
    run_id: str
    recipe: str
    config: Mapping[str, Any]
    backbone: Mapping[str, str]
    versions: Mapping[str, str]
    class_names: list[str]
    quotas: Mapping[str, int] = field(default_factory=dict)
    provenance: str
    real_digest: str | None = None
    real_images: str = ""
    review: Review | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A published run.

    Attributes:
        dataset: The data set's name.
        run_id: The run's name.
        recipe: Hash over everything that changes the images.
        config: The resolved settings as plain JSON values, without times and machine-bound paths.
        backbone: "name" and "sha256" of the diffusion model's weights.
        versions: Package name -> version.
        class_names: What each label means.
        counts: Class name -> source ("real", "synthetic") -> published images.
        quotas: Group -> {"asked", "kept", "shortfall"} synthetic images.
        shards: The tars, in order.
        metadata: The table.
        card: The data card.
        contents: Digest of all rows as they were given, 64 hex digits; None in manifests of format version 1.
        real_digest: Digest of the real images that the run was made from, 64 hex digits; None where it was not taken.
        format_version: Of this file's layout.
        weights: The table of weights, where there is one.
        review: As in RunFacts.
    """

    dataset: str
    run_id: str
    recipe: str
    config: dict[str, Any]
    backbone: dict[str, str]
    versions: dict[str, str]
    class_names: list[str]
    counts: dict[str, dict[str, int]]
    quotas: dict[str, dict[str, int]]
    shards: list[ShardEntry]
    metadata: MetadataEntry
    card: CardEntry
    contents: str | None = None
    real_digest: str | None = None
    format_version: int = FORMAT_VERSION
    weights: MetadataEntry | None = None
    review: Review | None = None

    def to_json(self) -> bytes:
        """The manifest as canonical JSON with its checksum; equal manifests are equal bytes."""
        content = asdict(self)
        for name in _OPTIONAL:
            if content[name] is None:
                del content[name]
        return checked_json(content)

    def checksums(self) -> dict[str, str]:
        """Path -> SHA-256 of every file the manifest names."""
        named = {shard.path: shard.sha256 for shard in self.shards}
        if self.weights is not None:
            named[self.weights.path] = self.weights.sha256
        return named | {self.metadata.path: self.metadata.sha256, self.card.path: self.card.sha256}

    @staticmethod
    def from_json(data: bytes, *, name: str = MANIFEST_FILE) -> "Manifest":
        """Read a manifest.

        Args:
            data: The file's content.
            name: Its name, for errors.

        Raises:
            ValueError: It is damaged, of an unknown format version, or names a file outside the run.
        """
        try:
            content = parse_json(data, name=name)
        except ValueError as error:
            raise DamagedError(str(error)) from error
        version = content.get("format_version")
        if version == FORMAT_VERSION:
            content = parse_checked_json(data, name=name)
        elif version == _UNCHECKED_VERSION:
            _log.warning("%s is of format version 1, which has no checksum; damage to it may pass unseen.", name)
            content = {"contents": None, "real_digest": None} | content
        else:
            raise ValueError(
                f"{name} has format version {version!r}, this program reads {FORMAT_VERSION}; "
                "use the program's version that wrote it, or restore the file."
            )
        _require_fields(content, name=name)
        entries: dict[str, Any] = {
            "shards": [_entry(ShardEntry, shard, name=name) for shard in content["shards"]],
            "metadata": _entry(MetadataEntry, content["metadata"], name=name),
            "card": _entry(CardEntry, content["card"], name=name),
        }
        if "weights" in content:
            entries["weights"] = _entry(MetadataEntry, content["weights"], name=name)
        if "review" in content:
            entries["review"] = _review(content["review"], name=name)
        return Manifest(**{**content, **entries})


_FIELD_TYPES: dict[str, type] = {
    "format_version": int,
    "dataset": str,
    "run_id": str,
    "recipe": str,
    "config": dict,
    "backbone": dict,
    "versions": dict,
    "class_names": list,
    "counts": dict,
    "quotas": dict,
    "shards": list,
    "metadata": dict,
    "card": dict,
}
_DIGESTS = ("contents", "real_digest")
#: Left out where there is none.
_OPTIONAL = ("weights", "review")


def _require_fields(content: dict[str, Any], *, name: str) -> None:
    known = {*_FIELD_TYPES, *_DIGESTS}
    if set(content) - set(_OPTIONAL) != known:
        odd = sorted((set(content) - set(_OPTIONAL)) ^ known)
        raise ValueError(f"{name} lacks or does not know the field {odd[0]}; {DAMAGED}")
    for key, kind in _FIELD_TYPES.items():
        if not isinstance(content[key], kind):
            raise ValueError(f"{name} field {key} must be a {kind.__name__}, got {content[key]!r:.60}; {DAMAGED}")
    for key in _DIGESTS:
        if content[key] is not None and not (isinstance(content[key], str) and _SHA256.fullmatch(content[key])):
            raise ValueError(f"{name} field {key} must be 64 hex digits or null, got {content[key]!r:.80}; {DAMAGED}")
    for part in ("counts", "quotas"):
        for key, numbers in content[part].items():
            if not isinstance(numbers, dict) or not all(_is_count(number) for number in numbers.values()):
                raise ValueError(f"{name} field {part}.{key} must hold counts, got {numbers!r:.60}; {DAMAGED}")


def _entry(kind: type[Entry], content: Any, *, name: str) -> Entry:
    try:
        entry = kind(**content)
    except TypeError as error:
        raise ValueError(f"{name} describes a file as {content!r:.80} ({error}); {DAMAGED}") from error
    for key, value in asdict(entry).items():
        sound = _is_count(value) if key in {"num_samples", "num_rows", "bytes"} else isinstance(value, str)
        if key == "path":
            sound = sound and _PATH.fullmatch(value) is not None
        if key == "sha256":
            sound = sound and _SHA256.fullmatch(value) is not None
        if not sound:
            raise ValueError(f"{name} gives a file the {key} {value!r:.80}, which is not allowed; {DAMAGED}")
    return entry


def _review(content: Any, *, name: str) -> Review:
    try:
        review = Review(**content)
    except TypeError as error:
        raise ValueError(f"{name} describes its review as {content!r:.80} ({error}); {DAMAGED}") from error
    version = (review.version_of, review.version_of_manifest)
    sound = isinstance(review.decided_by, list) and all(isinstance(person, str) for person in review.decided_by)
    sound = sound and isinstance(review.decisions, str) and _SHA256.fullmatch(review.decisions) is not None
    sound = sound and all(run is None or is_name(run) for run in (review.units_of, review.version_of))
    sound = sound and (version == (None, None) or _SHA256.fullmatch(review.version_of_manifest or "") is not None)
    if not sound:
        raise ValueError(f"{name} describes its review as {content!r:.80}, which is not allowed; {DAMAGED}")
    return review


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
