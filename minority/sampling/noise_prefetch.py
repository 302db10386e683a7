"""Prefetched noise: while a GPU computes a step, a thread draws the noise of the next one and sends it there.

The numbers are those of the source itself. What was not foreseen is drawn when it is asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType

import torch
from torch import Tensor

from minority.diffusion.noise import NoiseSource, SampleNoise

_Address = tuple[str, tuple[int, ...]]


class NoisePrefetch:
    """A source of noise that prefetches one step; a context manager that ends its thread.

    Args:
        source: Any source whose draws are addressed, not consumed.
    """

    def __init__(self, source: NoiseSource) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="noise")
        self._coming: dict[_Address, Future[Tensor]] = {}
        self._last_guided: dict[int, int] = {}

    def __enter__(self) -> "NoisePrefetch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def start(self) -> Tensor:
        """The noise that a chain starts from."""
        return self._source.start()

    def ancestral(self, step: int) -> Tensor:
        """The noise that the sampler adds when it leaves `step`; that of the step below is drawn next."""
        noise = self._take("ancestral", step)
        if step > 1:  # no noise is added when step 0 is left
            self._foresee("ancestral", step - 1)
        return noise

    def perturbation(self, step: int, draw: int) -> Tensor:
        """The noise of guidance at `step`; that of the next guided step is drawn once the interval is known."""
        noise = self._take("perturbation", step, draw)
        following = 2 * step - self._last_guided.get(draw, 2 * step + 1)
        self._last_guided[draw] = step
        if following >= 0:
            self._foresee("perturbation", following, draw)
        return noise

    def score(self, step: int, draw: int) -> Tensor:
        """The noise with which a finished image is perturbed to `step`."""
        return self._source.score(step, draw)

    def particle_weight(self, step: int, draw: int) -> Tensor:
        """The noise with which chains are weighed at `step`."""
        return self._source.particle_weight(step, draw)

    def probe(self, step: int, draw: int) -> Tensor:
        """A random direction along which an encoder is probed at `step`."""
        return self._source.probe(step, draw)

    def condition(self, step: int, draw: int, shape: tuple[int, ...]) -> Tensor:
        """Noise for what the network is told at `step`."""
        return self._source.condition(step, draw, shape)

    def _take(self, kind: str, *numbers: int) -> Tensor:
        coming = self._coming.pop((kind, numbers), None)
        return self._drawer(kind)(*numbers) if coming is None else coming.result()

    def _foresee(self, kind: str, *numbers: int) -> None:
        self._coming[kind, numbers] = self._thread.submit(self._drawer(kind), *numbers)

    def _drawer(self, kind: str) -> Callable[..., Tensor]:
        return self._source.ancestral if kind == "ancestral" else self._source.perturbation


@contextmanager
def sample_noise(
    seed: int, indices: Sequence[int], *, shape: tuple[int, int, int], device: torch.device | str
) -> Iterator[NoiseSource]:
    """The noise of a batch by sample index, prefetched where a GPU computes meanwhile; see `SampleNoise`."""
    device = torch.device(device)
    if device.type != "cuda":
        yield SampleNoise(seed, indices, shape=shape, device=device)
        return
    # Which GPU "cuda" means is a matter of the thread.
    device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    with NoisePrefetch(SampleNoise(seed, indices, shape=shape, device=device)) as noise:
        yield noise
