"""The command `minority review`: decisions on a published run become a new version of it."""

from dataclasses import dataclass
from pathlib import Path

from datasets.runs.manifest import MANIFEST_FILE
from datasets.runs.runs import run_path
from datasets.storage.store import Store
from tasks.augment.decisions import Decisions, read_decisions, require_candidates
from tasks.augment.versions import publish_version
from tasks.errors import InputError
from tasks.inputs.published_run import PublishedRun, latest_manifest, open_published
from tasks.report.publish import RunSummary, report_version


@dataclass(frozen=True)
class ReviewSummary:
    """What a review came to.

    Attributes:
        report: Where the version and its report lie.
        refused: Images that were published and are no longer.
        filled: Candidates that took their places.
        passed_over: Candidates that were called good, and are not published: a filter refused them, or no place was
            free.
    """

    report: RunSummary
    refused: int
    filled: int
    passed_over: int


def review_run(dataset: str, file: Path, *, store: str, decided_by: str | None = None) -> ReviewSummary:
    """Publish a new version of a run without what was refused.

    Args:
        dataset: The dataset's name in the store.
        file: What the gallery exported, or the same written otherwise.
        store: Folder or URL of all datasets.
        decided_by: Who decided, over what the file says.

    Raises:
        InputError: The file is none of decisions, is about another dataset, or decides on what is no candidate; the
            run, its units or its real images are missing.
        StoreError: The store cannot be read or written.
    """
    if not file.is_file():
        raise InputError(f"{file} does not exist; name the file that the gallery exported.")
    decisions = read_decisions(file.read_bytes(), name=str(file), decided_by=decided_by)
    if decisions.dataset != dataset:
        raise InputError(f"{file} is about {decisions.dataset}, not {dataset}; name the dataset that was looked at.")
    root = Store(store)
    run = _open(root, decisions, latest=latest_manifest(store, dataset))
    require_candidates(decisions, run.table().select(["key", "sampler"]), name=str(file))
    url = publish_version(run, decisions, store=root)
    version = open_published(url)
    before, after = (_published_keys(each) for each in (run, version))
    return ReviewSummary(
        report=report_version(url, source=run),
        refused=len(before - after),
        filled=len(after - before),
        passed_over=len(decisions.keys("good") - after),
    )


def _open(store: Store, decisions: Decisions, *, latest: str) -> PublishedRun:
    """The run that was looked at."""
    path = f"{run_path(decisions.dataset, decisions.run_id)}/{MANIFEST_FILE}"
    if not store.exists(path):
        raise InputError(f"{store.url(path)} does not exist, but was decided on; the latest published run is {latest}.")
    return open_published(store.url(path))


def _published_keys(run: PublishedRun) -> set[str]:
    rows = run.metadata
    return set(rows.loc[rows["kept"] & (rows["source"] == "synthetic"), "key"])
