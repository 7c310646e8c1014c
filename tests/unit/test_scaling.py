"""The model of how a step scales."""

from __future__ import annotations

import pytest

from benchmarks.scaling import Model


@pytest.mark.parametrize("ranks", [8, 64])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_it_says_from_which_batch_on_a_rank_keeps_a_share_of_its_speed(share: float, ranks: int) -> None:
    model = Model(overhead=0.0005, seconds_per_image=1e-5, latency=2e-5, bandwidth=1e11, gradient_bytes=25_000_000)
    images = model.batch_for(share, ranks)
    assert images is not None
    kept = [model.step(batch, 1) / model.step(batch, ranks) for batch in (images - 1, images)]
    assert kept[0] < share <= kept[1] or images == 1
