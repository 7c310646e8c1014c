"""The mathematics of DCGAN: networks, losses and the step. No ranks, no files, no logging."""
