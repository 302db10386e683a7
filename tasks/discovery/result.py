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
    found = of_training(answers, search.train.labels)
    others = of_others(answers, search.others.labels)
    held = len(real.validation)
    parts = {
        "train": (real.train, found),
        "validation": (real.validation, _part(others, slice(None, held))),
        "test": (real.test, _part(others, slice(held, None))),
    }
    smallest = config.discovery.smallest_cluster
    table = pd.concat([_rows(part, images, said, smallest) for part, (images, said) in parts.items()])
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    clusters = list(table["cluster"][: len(real.train)])
    for label, name in enumerate(real.train.class_names):
        sheet = _sheet(search, found, clusters, label=label, name=name)
        store.write(_sheet_file(label), sheet)
    agreed = _agreement(real.train, found)
    summary = DiscoverySummary(
        classes=_class_rows(real.train, found, clusters),
        agreement=[_agreement_row(row) for row in agreed],
        notes=_notes(real.train, found),
        table=store.url(TABLE),
        sheets=store.url("sheets"),
    )
    result = {"summary": asdict(summary), "agreement": [asdict(row) for row in agreed]}
    store.write("summary.json", canonical_json(result))
    store.write(TABLE, content.getvalue())
    return summary


def _sheet_file(label: int) -> str:
    return f"sheets/class-{label:02d}.png"


def _part(found: Conflicts, where: slice) -> Conflicts:
    return Conflicts(found.taken_for[where], found.conflicting[where], found.loss[where], found.votes[where])


def _rows(part: str, images: ImageSet, found: Conflicts, smallest: int) -> pd.DataFrame:
    labels = np.asarray(images.labels, dtype=np.int64)
    names = np.array(images.class_names)
    return pd.DataFrame(
        {
            "source_id": list(images.source_ids),
            "part": part,
            "label": names[labels],
            "conflicting": np.where(found.conflicting, "yes", "no"),
            "taken_for": names[found.taken_for],
            "cluster": clusters_of(found, labels, class_names=images.class_names, smallest=smallest),
            "loss": found.loss,
            "votes": found.votes,
            "weight": weights_of(found.conflicting, labels),
        }
    )


def _sheet(search: Search, found: Conflicts, clusters: Sequence[str], *, label: int, name: str) -> bytes:
    """Typical images first, the most typical ones; then each cluster, its most conflicting images first."""
    members = np.flatnonzero(search.train.labels == label)
    rows = []
    for cluster in sorted({clusters[int(i)] for i in members}, key=lambda cluster: (cluster != TYPICAL, cluster)):
        chosen = np.array([i for i in members if clusters[int(i)] == cluster])
        order = found.loss[chosen] if cluster == TYPICAL else -found.loss[chosen]
        shown = chosen[np.argsort(order, kind="stable")[:_COLUMNS]]
        rows.append((f"{name}: {cluster} ({len(chosen)})", [search.train.images[i] for i in shown]))
    return contact_sheet(rows, image_shape=search.real.train.image_shape, columns=_COLUMNS)


def _class_rows(images: ImageSet, found: Conflicts, clusters: Sequence[str]) -> list[dict[str, str]]:
    rows = []
    for label, name in enumerate(images.class_names):
        members = np.flatnonzero(images.labels == label)
        names, counts = np.unique([clusters[int(i)] for i in members if found.conflicting[i]], return_counts=True)
        shown = ", ".join(f"{cluster} ({count})" for cluster, count in zip(names, counts, strict=True))
        count = int(found.conflicting[members].sum())
        share = f"{count / len(members):.1%}"
        rows.append({"class": name, "images": str(len(members)), "conflicting": f"{count} ({share})", "as": shown})
    return rows


def _agreement(images: ImageSet, found: Conflicts) -> list[Agreement]:
    labels = np.asarray(images.labels, dtype=np.int64)
    rows = [
        agreement_with(name, values, conflicting=found.conflicting, labels=labels)
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


def _notes(images: ImageSet, found: Conflicts) -> list[str]:
    notes = ["No image was made, and nothing here says that synthetic images help these groups."]
    if not found.conflicting.any():
        return [*notes, "The biased models get no training image wrong: no hidden group was found."]
    share = float(found.conflicting.mean())
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
