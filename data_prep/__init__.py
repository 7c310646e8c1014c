"""Commands that make, pack and check data sets; they share only the shard format with the trainer."""
