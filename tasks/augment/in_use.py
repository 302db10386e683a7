"""What a flow does for as long as it works on a run: it renews the run's lease, and puts its id on every line."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.logging import get_run_logger

from datasets.runs.leases import LEASE_SECONDS, drop_lease, renew_lease
from datasets.storage.store import Store
from tasks.execution.log_ids import log_ids
from tasks.inputs.run_identity import RunIdentity
from tasks.inputs.run_store import open_run_store

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@contextmanager
def running(run: RunIdentity) -> Iterator[None]:
    """Mark the run as worked on, so that `minority clean` leaves it alone.

    Raises:
        StoreError: The lease cannot be written.
    """
    store = open_run_store(run)
    renew_lease(store)
    ended = threading.Event()
    with log_ids(run=run.run_id):
        logger = get_run_logger()
        renewer = threading.Thread(target=_renew, args=(store, ended, logger), name="lease", daemon=True)
        renewer.start()
        try:
            yield
        finally:
            ended.set()
            renewer.join()
            _drop(store, logger)


def _renew(store: Store, ended: threading.Event, logger: Log) -> None:
    while not ended.wait(LEASE_SECONDS / 10):
        try:
            renew_lease(store)
        except OSError as error:  # units meet the same store, and decide what becomes of the run
            logger.warning("the lease was not renewed: %s", error)


def _drop(store: Store, logger: Log) -> None:
    try:
        drop_lease(store)
    except OSError as error:  # it grows old by itself
        logger.warning("the lease was not removed: %s", error)
