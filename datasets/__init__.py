"""What is on disk: readers, splits, long tails, records, units, shards, manifests and the store they live in.

Knows numpy, pyarrow, webdataset, PIL and fsspec; nothing of Prefect, torch or diffusion models.
"""
