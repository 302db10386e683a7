"""The pull step of every deployment: a run's process goes to the checkout that its own Python runs from."""

from pathlib import Path


def enter_checkout() -> dict[str, str]:
    """Tell Prefect where the project lies on this machine; Prefect goes there before it loads the flow.

    A worker's environment is an editable install of a checkout (`make setup`) or an image that holds one, so the place
    is known where the run is, and may differ from machine to machine.
    """
    return {"directory": str(Path(__file__).resolve().parent.parent)}
