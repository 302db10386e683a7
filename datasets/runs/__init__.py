"""A run on disk: records, units, shards, manifest, and their verification."""
