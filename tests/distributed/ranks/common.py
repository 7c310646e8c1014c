"""What the checks have in common."""

from __future__ import annotations

import torch

from dcgan_dist.distributed.world import World

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, 1, CPU)
CHANNELS = 5
