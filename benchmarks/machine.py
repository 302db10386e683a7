"""What a benchmark's machine is, how fast it can be at best, and what a piece of work takes of it."""

import ctypes
import gc
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch

_GEMM_SIZE = {"cpu": 512, "cuda": 8192}
_COPIED_BYTES = {"cpu": 2**27, "cuda": 2**30}


def describe_machine(device: str) -> dict[str, object]:
    """Device, threads and the versions that decide its speed."""
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {"device": name, "threads": torch.get_num_threads(), "python": platform.python_version()} | {
        package: _version(package) for package in ("torch", "diffusers", "numpy")
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def clock(device: str) -> float:
    """Seconds: of the processor on a CPU, so that other processes do not count; of the wall on a GPU, all work done."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """The best that a product of large square matrices reaches here, in FLOP/s."""
    size = _GEMM_SIZE[device]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: a @ b, device)


def memory_rate(device: str) -> float:
    """Bytes read and written a second by a large copy."""
    source = torch.zeros(_COPIED_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], object], device: str) -> float:
    work()
    times = []
    for _ in range(7):
        start = clock(device)
        work()
        times.append(clock(device) - start)
    return median(times)


def _return_freed_memory() -> None:
    """Give what the process freed back to the system, so that using it again counts; where glibc is."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class PeakMemory:
    """Peak memory from now on, beyond what is held now; of the GPU, or of the process where Linux tells."""

    def __init__(self, device: str) -> None:
        self._device = device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._start = float(torch.cuda.memory_allocated())
        else:
            _return_freed_memory()
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:
                self._device = "none"
            self._start = self._status("VmRSS")

    def mebibytes(self) -> float:
        """The peak beyond the start."""
        if self._device == "cuda":
            return (torch.cuda.max_memory_allocated() - self._start) / 2**20
        return (self._status("VmHWM") - self._start) / 2**20

    def _status(self, field: str) -> float:
        status = Path("/proc/self/status")
        if self._device == "none" or not status.is_file():
            return float("nan")
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return 1024 * float(line.split()[1])
