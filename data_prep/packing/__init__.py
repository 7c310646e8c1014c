"""Images from a source into shards."""
