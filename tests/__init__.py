"""Tests, of which several run beside each other: with as many threads as cores, torch waits forty times as long."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
