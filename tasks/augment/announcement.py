"""The events that tell Prefect of a published dataset, so that automations start what comes after, or tell somebody."""

from prefect.events import emit_event

from datasets.runs.latest import Latest
from datasets.runs.manifest import Manifest

DATASET_PUBLISHED, DATASET_SHORT = "minority.dataset.published", "minority.dataset.shortfall"


def announce_dataset(manifest: Manifest, *, url: str, latest: Latest) -> None:
    """Emit the event `minority.dataset.published`, and `minority.dataset.shortfall` where quotas are not filled.

    They are sent at least once: a run that is published again, e.g. after a crash, announces itself again with the same
    payload. What they start has to bear that. Without a server that takes events nothing is sent, and no error raised.

    Args:
        manifest: What was published.
        url: The manifest's URL; an absolute file name for a local store.
        latest: What the dataset's pointer says after publishing.
    """
    resource = {
        "prefect.resource.id": f"minority.dataset.{manifest.dataset}",
        "prefect.resource.name": manifest.dataset,
        "minority.run-id": manifest.run_id,
    }
    lacking = {group: quota["shortfall"] for group, quota in manifest.quotas.items() if quota["shortfall"]}
    emit_event(
        event=DATASET_PUBLISHED,
        resource=resource,
        payload={
            "dataset": manifest.dataset,
            "run_id": manifest.run_id,
            "recipe": manifest.recipe,
            "manifest": url,
            "images": {
                source: sum(count[source] for count in manifest.counts.values()) for source in ("real", "synthetic")
            },
            "shards": len(manifest.shards),
            "shortfall": sum(lacking.values()),
            "is_latest": latest.run_id == manifest.run_id,
        },
    )
    if lacking:
        payload = {"dataset": manifest.dataset, "run_id": manifest.run_id, "manifest": url, "lacking": lacking}
        emit_event(event=DATASET_SHORT, resource=resource, payload=payload | {"shortfall": sum(lacking.values())})
