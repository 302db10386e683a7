"""A published run as the input of a training job: an iterable for torch's DataLoader.

stream = load_balanced("runs/digits/runs/first/manifest.json", order="balanced")
for batch in DataLoader(stream, batch_size=64, num_workers=4): ...
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from datasets.streaming.stream import PublishedStream, StreamedSample, StreamSettings


def load_balanced(
    manifest: str,
    *,
    order: str = "balanced",
    synthetic_share: float | None = None,
    shuffle_buffer: int = 1000,
    open_shards: int = 4,
    seed: int = 0,
    epoch: int = 0,
    transform: Callable[[Any], Any] | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    resume: Mapping[str, Any] | None = None,
) -> Any:
    """Stream a published run into a training job. Needs torch; nothing else of this package does.

    Every sample is a mapping: "image" (uint8 tensor (C, H, W), or what `transform` makes of it), "label" (int),
    "group", "source" and "key" (text), and "stream_position" (four numbers for `EpochProgress`).

    Args:
        manifest: File name or URL of the run's manifest.
        order: "natural": every image exactly once an epoch, over all workers and nodes. "balanced": every group equally
            often, small groups repeated.
        synthetic_share: Share of synthetic images in [0, 1]; None leaves the published mixture. In natural order the
            surplus is left out, in balanced order the share holds within every group that has both.
        shuffle_buffer: Images each worker holds back to mix them; 0 reads the shards in order.
        open_shards: Shards that each worker reads at a time.
        seed: Same seed, epoch, workers and nodes, same order.
        epoch: The first epoch; call `set_epoch` before each further one.
        transform: Applied to each image, in the worker; e.g. one of torchvision's transforms v2.
        rank: This process among those that share an epoch; torch.distributed's where it is in use, else 0.
        world_size: Number of those processes; likewise.
        resume: `EpochProgress.state()` of an interrupted epoch: what was seen is passed over. Workers, nodes, seed and
            settings must be the same; the epoch is taken from it.

    Returns:
        A torch IterableDataset with `set_epoch(epoch)` and `expected_samples`.

    Raises:
        FileNotFoundError: There is no manifest.
        ValueError: A setting that is not allowed, or a damaged run.
    """
    settings = StreamSettings(
        order=order,
        synthetic_share=synthetic_share,
        shuffle_buffer=shuffle_buffer,
        open_shards=open_shards,
        seed=seed,
    )
    stream = PublishedStream(manifest, settings)
    rank, world_size = _rank_and_size(rank, world_size)
    start = _Start(stream=stream, transform=transform, rank=rank, world_size=world_size, epoch=epoch, resume=resume)
    return _torch_class()(start)


class EpochProgress:
    """How far an epoch has come: what to store in a checkpoint so that `load_balanced(resume=...)` can go on."""

    def __init__(self) -> None:
        self._epoch = 0
        self._num_consumers = 0
        self._seen: dict[int, int] = {}

    def add(self, batch: Mapping[str, Any]) -> None:
        """Note a batch as seen; call it once the training step is done.

        Args:
            batch: What the DataLoader gave, with "stream_position" (B, 4): consumer, number of consumers, serial and
                epoch.
        """
        for consumer, num_consumers, serial, epoch in batch["stream_position"].reshape(-1, 4).tolist():
            if epoch != self._epoch or num_consumers != self._num_consumers:
                self._epoch, self._num_consumers, self._seen = epoch, num_consumers, {}
            self._seen[consumer] = max(self._seen.get(consumer, 0), serial + 1)

    def state(self) -> dict[str, Any]:
        """Plain JSON values; one state a node."""
        seen = {str(consumer): count for consumer, count in sorted(self._seen.items())}
        return {"epoch": self._epoch, "num_consumers": self._num_consumers, "seen": seen}


class _Start:
    """Everything that a worker process needs, and nothing of torch."""

    def __init__(
        self,
        *,
        stream: PublishedStream,
        transform: Callable[[Any], Any] | None,
        rank: int,
        world_size: int,
        epoch: int,
        resume: Mapping[str, Any] | None,
    ) -> None:
        self.stream, self.transform, self.rank, self.world_size = stream, transform, rank, world_size
        self.epoch = epoch if resume is None else int(resume["epoch"])
        self.resume = resume

    def samples(self, *, worker: int, num_workers: int) -> Iterator[tuple[StreamedSample, tuple[int, int, int, int]]]:
        # Nodes vary fastest: a sample more or less goes to the first workers of all nodes alike.
        consumer, num_consumers = worker * self.world_size + self.rank, num_workers * self.world_size
        skip = 0
        if self.resume is not None and int(self.resume["epoch"]) == self.epoch:
            before = int(self.resume["num_consumers"])
            if before not in {0, num_consumers}:
                raise ValueError(
                    f"the epoch was begun with {before} workers in all, now there are {num_consumers}; "
                    "resume with as many workers and nodes, or begin the next epoch."
                )
            skip = int(self.resume["seen"].get(str(consumer), 0))
        samples = self.stream.samples(epoch=self.epoch, consumer=consumer, num_consumers=num_consumers, skip=skip)
        for sample in samples:
            yield sample, (consumer, num_consumers, sample.serial, self.epoch)


def _rank_and_size(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise ValueError(f"rank and world_size belong together, got {rank} and {world_size}; give both or neither.")
    if rank is None or world_size is None:
        import torch.distributed as distributed

        in_use = distributed.is_available() and distributed.is_initialized()
        return (distributed.get_rank(), distributed.get_world_size()) if in_use else (0, 1)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be in [0, world_size), got {rank} of {world_size}.")
    return rank, world_size


def _rebuild(start: _Start) -> Any:
    return _torch_class()(start)


@lru_cache(maxsize=1)
def _torch_class() -> Any:
    """The dataset's class, made when torch is there: DataLoader wants a subclass of its own."""
    import torch
    from torch.utils.data import IterableDataset, get_worker_info

    class BalancedDataset(IterableDataset):  # type: ignore[type-arg]
        def __init__(self, start: _Start) -> None:
            self._start = start

        def __reduce__(self) -> tuple[Callable[[_Start], Any], tuple[_Start]]:
            return _rebuild, (self._start,)  # the class has no name that another process could import

        @property
        def expected_samples(self) -> float:
            return self._start.stream.expected_samples

        def set_epoch(self, epoch: int) -> None:
            self._start.epoch = epoch

        def __iter__(self) -> Iterable[dict[str, Any]]:  # type: ignore[override]
            info = get_worker_info()
            worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
            for sample, position in self._start.samples(worker=worker, num_workers=num_workers):
                pixels = torch.from_numpy(sample.pixels().transpose(2, 0, 1).copy())  # (C, H, W)
                yield {
                    "image": pixels if self._start.transform is None else self._start.transform(pixels),
                    "label": sample.label,
                    "group": str(sample.record.get("group", "")),
                    "source": str(sample.record.get("source", "")),
                    "key": sample.key,
                    "stream_position": torch.tensor(position),
                }

    return BalancedDataset
