"""The stages of `benchmarks.gpu_check`, each a module with a function `run`."""
