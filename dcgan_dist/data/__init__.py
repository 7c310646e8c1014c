"""From shards to batches: the format, the order, two decoders and the loader."""
