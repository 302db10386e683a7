"""What a search for hidden groups found: a table, a contact sheet a class, and agreement with known attributes."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from prefect import task
from prefect.artifacts import create_markdown_artifact

from datasets.contact_sheet import contact_sheet
from datasets.readers.imageset import ImageSet
from datasets.storage.canonical import canonical_json
from datasets.storage.escaping import for_markdown
from minority.discovery.agreement import Agreement, agreement_with
from minority.discovery.conflicts import TYPICAL, Conflicts, clusters_of, of_others, of_training, weights_of
from tasks.config.runs import DiscoverConfig
from tasks.discovery.search import Search, open_search, read_answers
from tasks.execution.failures import TRIED_AGAIN
from tasks.execution.showing import artifact_key, show_picture

TABLE = "discovered.parquet"
_COLUMNS = 12  # images a row of a contact sheet
#: Where more of a class conflict than this, biased models are wrong about more than a hidden minority.
MANY = 0.05
#: Contact sheets that are shown in Prefect, at most; all of them lie in the store.
_MOST_SHEETS = 10


@dataclass(frozen=True)
class DiscoverySummary:
    """What a search found.

    Attributes:
        classes: A row a class: its images, the conflicting ones, and what they are taken for.
        agreement: A row for each known attribute with precision and recall; none where the set has no attribute.
        notes: What makes the result doubtful.
        table: Where the table lies.
        sheets: Where the contact sheets lie.
    """

    classes: list[dict[str, str]]
    agreement: list[dict[str, str]]
    notes: list[str]
    table: str
    sheets: str


@task(task_run_name="result of {config.name}", **TRIED_AGAIN)
def write_discovery(config: DiscoverConfig) -> DiscoverySummary:
    """Write table, contact sheets and summary, and show them as an artifact; see `write_result`."""
    summary, store = write_result(config), open_search(config).store
    create_markdown_artifact(_markdown(summary), key="discover", description="Images that biased models get wrong")
    for label, row in enumerate(summary.classes[:_MOST_SHEETS]):
        key = artifact_key(config.name, f"sheet-{label:02d}")
        show_picture(store.read(_sheet_file(label)), key=key, description=for_markdown(row["class"]))
    return summary


def write_result(config: DiscoverConfig) -> DiscoverySummary:
    """Write discovered.parquet, sheets/class-NN.png and summary.json into the search's folder.

    Args:
        config: The search, all of its models trained.
    """
    search, answers = open_search(config), read_answers(config)
    real, store = search.real, search.store
    conflicts = of_training(answers, search.train.labels)
    others = of_others(answers, search.others.labels)
    held = len(real.validation)
    parts = {
        "train": (real.train, conflicts),
        "validation": (real.validation, _part(others, slice(None, held))),
        "test": (real.test, _part(others, slice(held, None))),
    }
    smallest = config.discovery.smallest_cluster
    table = pd.concat([_rows(part, images, said, smallest) for part, (images, said) in parts.items()])
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    clusters = list(table["cluster"][: len(real.train)])
    for label, name in enumerate(real.train.class_names):
        sheet = _sheet(search, conflicts, clusters, label=label, name=name)
        store.write(_sheet_file(label), sheet)
    agreed = _agreement(real.train, conflicts)
    summary = DiscoverySummary(
        classes=_class_rows(real.train, conflicts, clusters),
        agreement=[_agreement_row(row) for row in agreed],
        notes=_notes(real.train, conflicts),
        table=store.url(TABLE),
        sheets=store.url("sheets"),
    )
    result = {"summary": asdict(summary), "agreement": [asdict(row) for row in agreed]}
    store.write("summary.json", canonical_json(result))
    store.write(TABLE, content.getvalue())
    return summary


def _sheet_file(label: int) -> str:
    return f"sheets/class-{label:02d}.png"


def _part(conflicts: Conflicts, where: slice) -> Conflicts:
    return Conflicts(
        conflicts.taken_for[where], conflicts.conflicting[where], conflicts.loss[where], conflicts.votes[where]
    )


def _rows(part: str, images: ImageSet, conflicts: Conflicts, smallest: int) -> pd.DataFrame:
    labels = np.asarray(images.labels, dtype=np.int64)
    names = np.array(images.class_names)
    return pd.DataFrame(
        {
            "source_id": list(images.source_ids),
            "part": part,
            "label": names[labels],
            "conflicting": np.where(conflicts.conflicting, "yes", "no"),
            "taken_for": names[conflicts.taken_for],
            "cluster": clusters_of(conflicts, labels, class_names=images.class_names, smallest=smallest),
            "loss": conflicts.loss,
            "votes": conflicts.votes,
            "weight": weights_of(conflicts.conflicting, labels),
        }
    )


def _sheet(search: Search, conflicts: Conflicts, clusters: Sequence[str], *, label: int, name: str) -> bytes:
    """Typical images first, the most typical ones; then each cluster, its most conflicting images first."""
    members = np.flatnonzero(search.train.labels == label)
    rows = []
    for cluster in sorted({clusters[int(i)] for i in members}, key=lambda cluster: (cluster != TYPICAL, cluster)):
        chosen = np.array([i for i in members if clusters[int(i)] == cluster])
        order = conflicts.loss[chosen] if cluster == TYPICAL else -conflicts.loss[chosen]
        shown = chosen[np.argsort(order, kind="stable")[:_COLUMNS]]
        rows.append((f"{name}: {cluster} ({len(chosen)})", list(search.train.images[shown])))
    return contact_sheet(rows, image_shape=search.real.train.image_shape, columns=_COLUMNS)


def _class_rows(images: ImageSet, conflicts: Conflicts, clusters: Sequence[str]) -> list[dict[str, str]]:
    rows = []
    for label, name in enumerate(images.class_names):
        members = np.flatnonzero(images.labels == label)
        names, counts = np.unique([clusters[int(i)] for i in members if conflicts.conflicting[i]], return_counts=True)
        shown = ", ".join(f"{cluster} ({count})" for cluster, count in zip(names, counts, strict=True))
        count = int(conflicts.conflicting[members].sum())
        share = f"{count / len(members):.1%}"
        rows.append({"class": name, "images": str(len(members)), "conflicting": f"{count} ({share})", "as": shown})
    return rows


def _agreement(images: ImageSet, conflicts: Conflicts) -> list[Agreement]:
    labels = np.asarray(images.labels, dtype=np.int64)
    rows = [
        agreement_with(name, values, conflicting=conflicts.conflicting, labels=labels)
        for name, values in images.attributes.items()
    ]
    return [row for row in rows if row is not None]


def _agreement_row(row: Agreement) -> dict[str, str]:
    def percent(value: float) -> str:
        return "-" if np.isnan(value) else f"{value:.1%}"

    return {
        "attribute": row.attribute,
        "images with a value": str(row.images),
        "conflicting by it": percent(row.share),
        "precision": percent(row.precision),
        "recall": percent(row.recall),
    }


def _notes(images: ImageSet, conflicts: Conflicts) -> list[str]:
    notes = ["No image was made, and nothing here says that synthetic images help these groups."]
    if not conflicts.conflicting.any():
        return [*notes, "The biased models get no training image wrong: no hidden group was found."]
    share = float(conflicts.conflicting.mean())
    if share > MANY:
        notes.append(
            f"The biased models get {share:.1%} of the images wrong: classes that look alike, hard images and wrong "
            "labels are among them. Look at the sheets before a column is made of this."
        )
    return notes


def _markdown(summary: DiscoverySummary) -> str:
    lines: list[str] = []
    for rows in (summary.classes, summary.agreement):
        if rows:
            cells = [list(rows[0]), ["-"] * len(rows[0]), *(list(row.values()) for row in rows)]
            lines += ["| " + " | ".join(map(for_markdown, line)) + " |" for line in cells] + [""]
    return "\n".join([*lines, *summary.notes, "", f"Table: {summary.table}", f"Contact sheets: {summary.sheets}", ""])
