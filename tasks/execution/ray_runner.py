"""Prefect's task runner on Ray, in which a flow can still be cancelled."""

import signal
import threading
from typing import Self

from prefect_ray import RayTaskRunner


class CancellableRayTaskRunner(RayTaskRunner):  # type: ignore[misc]
    """Ray takes SIGTERM for itself when it starts; a cancelled run would then end as crashed. Prefect gets it back."""

    def __enter__(self) -> Self:
        handler = signal.getsignal(signal.SIGTERM)
        super().__enter__()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        return self
