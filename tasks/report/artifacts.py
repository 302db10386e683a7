"""A finished run as its Prefect artifacts: the verdict, the tables, the pictures, and where the report lies.

Whoever looks at them needs nothing but the server: no access to the store, and none to the worker's disk.
"""

from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from datasets.storage.escaping import for_markdown
from tasks.execution.showing import artifact_key, show_picture, show_place, table, web_url

if TYPE_CHECKING:
    from tasks.report.publish import RunSummary

#: Groups of a shortfall that are named, at most.
_MOST_GROUPS = 50


def show_run(summary: "RunSummary", picture: bytes, *, store: str) -> None:
    """Show what a run came to.

    Args:
        summary: What it left behind.
        picture: PNG of samples.
        store: Root of the store that it lies in.
    """
    key, report = artifact_key(summary.dataset), summary.report
    create_markdown_artifact(key=f"{key}-verdict", markdown=verdict_page(summary), description="What came of the run")
    create_table_artifact(key=f"{key}-samplers", table=_as_text(summary.samplers), description="Samplers compared")
    if summary.arms:
        create_table_artifact(
            key=f"{key}-arms", table=_as_text(summary.arms), description=for_markdown(summary.verdict)
        )
    show_picture(
        picture,
        key=f"{key}-samples",
        description="The same seeds, plain and guided",
        url=web_url(f"{report.rsplit('/', 1)[0]}/samples.png", store=store),
    )
    show_place(report, key=f"{key}-report", description="The report", url=web_url(report, store=store))
    if summary.gallery is not None:
        gallery = summary.gallery
        show_place(gallery, key=f"{key}-gallery", description="Every candidate", url=web_url(gallery, store=store))


def verdict_page(summary: "RunSummary") -> str:
    """Shortfall, recommendation, verdict and tables of a run in Markdown."""
    parts = [f"# {for_markdown(summary.dataset)} {summary.run_id}"]
    if summary.shortfall:
        parts.append(f"**Shortfall: kept {summary.kept} of {summary.wanted} synthetic images.**")
        named = list(summary.shortfall.items())[:_MOST_GROUPS]
        parts.append("\n".join(f"- {for_markdown(group)} lacks {count}" for group, count in named))
        if len(named) < len(summary.shortfall):
            parts.append(f"and {len(summary.shortfall) - len(named)} groups more.")
    parts += [f"- skipped: {for_markdown(name)}, as {for_markdown(why)}" for name, why in summary.skipped.items()]
    parts += [for_markdown(text) for text in (summary.recommendation, summary.verdict) if text]
    for title, rows in (("Samplers on the same seeds", summary.samplers), ("Classifiers on test images", summary.arms)):
        if rows:
            parts += [f"## {title}", table(rows)]
    places = {"manifest": summary.manifest, "report": summary.report, "gallery": summary.gallery}
    parts.append("\n".join(f"- {name}: {for_markdown(place)}" for name, place in places.items() if place))
    return "\n\n".join(parts)


def _as_text(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows of an artifact, whose cells Prefect shows as Markdown."""
    return [{for_markdown(key): for_markdown(value) for key, value in row.items()} for row in rows]
