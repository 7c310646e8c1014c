"""What a state refuses to become."""

from __future__ import annotations

import pytest
import torch

from dcgan_dist.config import DataConfig, ModelConfig, TrainConfig
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision
from dcgan_dist.training.state import initial_state
from tests.saved_checkpoints import saved_at

ALONE = World(0, 1, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rollbacks", torch.ones(2)),
        ("rollbacks", -1),
        ("shown", "text"),
        ("texts", []),
        ("texts", {"narrow": 3}),
        ("stretch", [{"loss/generator": 1.0}]),
        ("stretch", {"a": {}}),
        ("last_row", None),
        ("widest", []),
        ("last_grid", 2.5),
        ("youngest", 1),
    ],
)
def test_a_record_of_the_watch_that_is_none_is_refused(field: str, value: object) -> None:
    config = TrainConfig(data=DataConfig(image_size=32), model=ModelConfig(base_channels=4))
    state = initial_state(config, ALONE, Precision("fp32", ALONE.device))
    saved = saved_at(**state.parts())
    state.load(saved, ALONE)
    assert saved.watch
    saved.watch[field] = value
    with pytest.raises(TypeError, match=field):
        state.load(saved, ALONE)
