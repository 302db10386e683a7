"""Who is at work on a run: a file in the run's folder that the process at work renews, and removes when it ends.

Its age is that of the file in the store, so a machine whose clock is wrong renews it as well as any other. Two
processes on one run share the file. A process that was killed leaves it to grow old.
"""

import os
import platform
import time

from datasets.storage.canonical import canonical_json
from datasets.storage.store import Store

LEASE_FILE = "lease.json"
#: A lease that has not been renewed for so long is a dead process's. Renew it several times as often.
LEASE_SECONDS = 600.0


def renew_lease(run_store: Store) -> None:
    """Say that this process is at work on the run.

    Raises:
        StoreError: The store cannot be written.
    """
    holder = {"host": platform.node(), "process": os.getpid(), "renewed": int(time.time())}
    run_store.write(LEASE_FILE, canonical_json(holder))


def drop_lease(run_store: Store) -> None:
    """Say that the work has ended, well or badly.

    Raises:
        StoreError: The store cannot be written.
    """
    run_store.remove(LEASE_FILE)
