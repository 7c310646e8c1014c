"""Checkpoints with little in them."""

from __future__ import annotations

from typing import Any

import torch

from dcgan_dist.run.saved import Saved

PATTERN = 1234.5678


def saved_at(images_seen: int, size: int = 1000, **parts: Any) -> Saved:
    """Everything that must be in a checkpoint; `parts` are its fields in place of these."""
    weights = {"layer.weight": torch.full((size,), PATTERN), "layer.num_batches_tracked": torch.tensor(images_seen)}
    moments = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"betas": (0.5, 0.9)}]}
    given: dict[str, Any] = {
        "generator": weights,
        "discriminator": {},
        "ema": None,
        "optimizers": {"generator": moments, "discriminator": {}},
        "scalers": {"generator": {}, "discriminator": {}},
        "metric_sums": torch.zeros(1),
        "seed": 0,
        "config": {"run": {"name": "x"}},
        "dataset_fingerprint": "abc",
        "global_batch": 128,
        "tracker_ids": {},
    }
    return Saved(images_seen, **(given | parts))
