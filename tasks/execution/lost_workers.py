"""What becomes of a unit whose worker dies, and of its run (docs/production.md, "When something dies").

Ray: the unit is made by another process or machine, `LOSSES_A_UNIT` times; then it counts as failed, as any other.
Prefect, units in threads: they die with the run's process; the run is Crashed, at once or when its heartbeats are
missed (deploy/automations/crash-lost-runs.yaml), and goes on from there when somebody starts it again.
Either way nothing finished is made twice: a unit whose receipt is in the store is done (datasets/runs/units.py).
"""

#: Ray runs a unit again when its process or its machine dies, so often (`max_retries`), not where it raised an error.
LOSSES_A_UNIT = 3


def is_lost(failure: BaseException) -> bool:
    """Whether Ray itself gave a task up: its process or machine died more often than Ray tries."""
    return type(failure).__module__.startswith("ray.")
