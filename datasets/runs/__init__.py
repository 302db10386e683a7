"""A run on disk: records, units, shards, manifest, and their verification."""

from typing import TYPE_CHECKING

from datasets._exports import exported_from

if TYPE_CHECKING:
    from datasets.runs.latest import Latest, read_latest
    from datasets.runs.manifest import Manifest, RunFacts
    from datasets.runs.publish import PublishConflictError, PublishedRunError
    from datasets.runs.records import METADATA_SCHEMA
    from datasets.runs.runs import open_run
    from datasets.runs.shards import Sample, read_tar
    from datasets.runs.units import read_unit

__all__ = [
    "METADATA_SCHEMA",
    "Latest",
    "Manifest",
    "PublishConflictError",
    "PublishedRunError",
    "RunFacts",
    "Sample",
    "open_run",
    "read_latest",
    "read_tar",
    "read_unit",
]

__getattr__ = exported_from(__file__)
