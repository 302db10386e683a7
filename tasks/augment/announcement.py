"""The event that tells Prefect of a published dataset, so that automations can start what comes after."""

from prefect.events import emit_event

from datasets.runs.latest import Latest
from datasets.runs.manifest import Manifest

DATASET_PUBLISHED = "minority.dataset.published"


def announce_dataset(manifest: Manifest, *, url: str, latest: Latest) -> None:
    """Emit the event `minority.dataset.published`.

    It is sent at least once: a run that is published again, e.g. after a crash, announces itself again with the same
    payload. What it starts has to bear that. Without a server that takes events nothing is sent, and no error raised.

    Args:
        manifest: What was published.
        url: The manifest's URL; an absolute file name for a local store.
        latest: What the dataset's pointer says after publishing.
    """
    emit_event(
        event=DATASET_PUBLISHED,
        resource={
            "prefect.resource.id": f"minority.dataset.{manifest.dataset}",
            "prefect.resource.name": manifest.dataset,
            "minority.run-id": manifest.run_id,
        },
        payload={
            "dataset": manifest.dataset,
            "run_id": manifest.run_id,
            "recipe": manifest.recipe,
            "manifest": url,
            "images": {
                source: sum(count[source] for count in manifest.counts.values()) for source in ("real", "synthetic")
            },
            "shards": len(manifest.shards),
            "shortfall": sum(quota["shortfall"] for quota in manifest.quotas.values()),
            "is_latest": latest.run_id == manifest.run_id,
        },
    )
