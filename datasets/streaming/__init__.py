"""Published shards out: loaders and balanced streams."""

from typing import TYPE_CHECKING

from datasets._exports import exported_from

if TYPE_CHECKING:
    from datasets.streaming.loader import EpochProgress, load_balanced
    from datasets.streaming.published import read_published
    from datasets.streaming.stream import PublishedStream, StreamSettings

__all__ = ["EpochProgress", "PublishedStream", "StreamSettings", "load_balanced", "read_published"]

__getattr__ = exported_from(__file__)
