"""Published shards out: loaders and balanced streams."""
