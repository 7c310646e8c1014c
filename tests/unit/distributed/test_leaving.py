"""What a rank leaves for torchrun to show."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcgan_dist.base.errors import RunFailed, UserError
from dcgan_dist.data.shard_format import ShardError
from dcgan_dist.distributed.leaving import leave_reason
from dcgan_dist.training.stability import Collapsed


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UserError("make room"), "UserError: make room"),
        (ShardError("prepare it again"), "UserError: prepare it again"),
        (RunFailed("rank 3 differs"), "RunFailed: rank 3 differs"),
        (Collapsed("no better than guessing", 64, 32, 0), "RunFailed: no better than guessing"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_an_expected_error_is_left_as_one_line(
    error: Exception, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    leave_reason(error)
    left = (tmp_path / "error.json").read_text()
    assert told in left
    assert "Traceback" not in left
