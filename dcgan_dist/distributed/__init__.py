"""Everything that knows there is more than one rank; the only folder that imports torch.distributed."""
