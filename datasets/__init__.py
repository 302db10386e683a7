"""What is on disk: readers, splits, long tails, records, units, shards, manifests and the store they live in.

Knows numpy, pyarrow, webdataset, PIL and fsspec; nothing of Prefect or diffusion models, and of torch only where a
stream is handed to a training job.
"""

from datasets.streaming.loader import EpochProgress, load_balanced

__all__ = ["EpochProgress", "load_balanced"]
