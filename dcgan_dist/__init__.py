"""Distributed training of DCGAN: correct on any number of ranks, safe to stop, plain to read."""

__version__ = "0.1.0"
