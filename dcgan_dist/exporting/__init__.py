"""A trained generator in files that others can use: `from dcgan_dist.exporting import load`."""

from dcgan_dist.exporting.weights import load

__all__ = ["load"]
