"""What a run counts, for Prometheus: samples, yield, seconds, and the use of the devices.

The counters live in prometheus_client's default registry. Nothing listens unless PREFECT_CLIENT_METRICS_ENABLED is set
for the flow's process: Prefect then serves them, beside its own, on PREFECT_CLIENT_METRICS_PORT. Units count where the
flow runs, wherever they were made.
"""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge

from tasks.augment.units import UnitWork

SAMPLES = Counter("minority_samples", "Samples made; the yield is the share that passed.", ["dataset", "sampler"])
PASSED = Counter("minority_samples_passed", "Samples that every filter let through.", ["dataset", "sampler"])
UNITS = Counter("minority_units", "Units made or found in the store.", ["dataset", "sampler", "outcome"])
BUSY_SECONDS = Counter(
    "minority_device_busy_seconds", "Seconds units occupied devices; its rate is how many are in use.", ["device"]
)
PEAK_MEMORY = Gauge("minority_device_peak_memory_bytes", "Memory a worker has used at most.", ["device"])

_peaks: dict[str, int] = {}


def count_units(done: Iterable[UnitWork], *, dataset: str) -> None:
    """Count units that have ended well.

    Args:
        done: What was done for each.
        dataset: The run's dataset.
    """
    for work in done:
        labels = (dataset, work.sampler)
        UNITS.labels(*labels, "made" if work.made else "found").inc()
        SAMPLES.labels(*labels).inc(work.made)
        PASSED.labels(*labels).inc(work.passed)
        BUSY_SECONDS.labels(work.device).inc(work.seconds)
        _peaks[work.device] = max(work.peak_memory, _peaks.get(work.device, 0))
        PEAK_MEMORY.labels(work.device).set(_peaks[work.device])
