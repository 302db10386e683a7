"""What a run is called in Prefect: flow and dataset from the start, and its recipe as soon as that is known."""

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext


def name_run(*parts: str) -> None:
    """Rename the flow run that this is called in; outside of one, nothing happens.

    Args:
        parts: What the name is made of, e.g. "augment", "digits", "aee4acf8d67d".
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    name = " ".join(parts)
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(context.flow_run.id, name)
    context.flow_run.name = name
