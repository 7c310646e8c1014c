"""Where the checks of this folder run: on a GPU, or on a CPU to rehearse them (GPU_TESTS_REHEARSE=1)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.distributed import world
from dcgan_dist.distributed.world import World

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")
CPU = torch.device("cpu")
ALONE = World(0, 1, 0, 1, DEVICE)
# Processes of their own see the GPU, and sum with as many threads as this one does: else a CPU gives them other bits.
VISIBLE = {"CUDA_VISIBLE_DEVICES": "0" if ON_GPU else "", "OMP_NUM_THREADS": str(torch.get_num_threads())}

needs_gpu = pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")
on_gpu_or_rehearsed = pytest.mark.skipif(
    not ON_GPU and os.environ.get("GPU_TESTS_REHEARSE") != "1", reason="needs a CUDA device, or GPU_TESTS_REHEARSE=1"
)

QUIET = ("--track.report", "false", "--track.tensorboard", "false", "--track.wandb", "off")
SMALL = (
    *("--data.image_size", "32", "--data.global_batch_size", "32", "--model.base_channels", "8"),
    *("--track.every_images", "32"),
    *QUIET,
)


def train(shards: Path, folder: Path, *settings: object) -> Path:
    """Trains in this process, which saves the seconds of a start; the run folder."""
    from dcgan_dist.training import assemble

    words = ["--data.shards", str(shards), "--run.dir", str(folder), *map(str, settings)]
    assert assemble.run(parse_arguments(words)) == 0
    return folder


def command(main: Callable[[], int], *words: object, device: torch.device = DEVICE) -> None:
    """Runs a command of the project in this process, on `device`."""
    with patch("sys.argv", ["command", *map(str, words)]), patch.object(world, "_pick_device", lambda rank: device):
        assert main() == 0
