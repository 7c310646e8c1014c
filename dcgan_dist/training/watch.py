"""The watch on stability at work in a run: what it sees is said, noted down, and acted on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from dcgan_dist.base.errors import RunFailed
from dcgan_dist.tracking.journal import Journal
from dcgan_dist.tracking.tracker import Row
from dcgan_dist.training.samples import FEWEST_IMAGES, spread
from dcgan_dist.training.stability import Collapsed, Sign, StabilityWatch
from dcgan_dist.training.state import TrainState


@dataclass
class RunWatch:
    """All ranks call it with the same figures and grids, and so come to the same end together."""

    watch: StabilityWatch
    on_collapse: Literal["warn", "stop", "rollback"]
    journal: Journal
    real_spread: float | None
    """How much real images differ; None if that is not known."""
    _grid: tuple[int, Tensor] | None = None
    """The newest grid, if nobody has looked at it yet: images seen, and its spread, still on the device."""

    def row(self, state: TrainState, row: Row) -> None:
        """Looks at a row of figures. Raises Collapsed or RunFailed if the run is to go back or to end."""
        self._act(self.watch.row(state.watch, state.images_seen, row), state.images_seen, state)

    def grid(self, state: TrainState, pixels: Tensor) -> None:
        """Takes a grid drawn by the generator, uint8 [n, 3, size, size], for `look_at_grid`; waits for no device."""
        if self.real_spread and len(pixels) >= FEWEST_IMAGES:
            self._grid = state.images_seen, spread(pixels)

    def look_at_grid(self, state: TrainState) -> None:
        """Looks at the grid that was taken last, if it has not been looked at. Raises as `row` does.

        To be called before the next row and before a checkpoint, which holds what the watch remembers.
        """
        if self._grid is not None and self.real_spread:
            (at, now), self._grid = self._grid, None
            self._act(self.watch.grid(state.watch, at, float(now) / self.real_spread), at, state)

    def diverged(self, state: TrainState) -> RunFailed:
        """What a gradient that is not finite means for the run."""
        text = f"the training diverged before {state.images_seen} images were seen: a gradient is not finite"
        if self.on_collapse == "rollback":
            return Collapsed(text, state.images_seen, state.watch.last_row, state.watch.rollbacks)
        return RunFailed(
            f"{text}. The last checkpoint is sound; go on from it with a lower rate and --run.accept_changes true"
        )

    def _act(self, signs: list[Sign], at: int, state: TrainState) -> None:
        """Tells of signs that were seen `at` so many images, and acts on them as the configuration says."""
        for sign in signs:
            self.journal.warned(at, sign.kind, sign.text)
        if not signs or self.on_collapse == "warn":
            return
        text = f"the training collapses at {at} images: {signs[0].text}"
        if self.on_collapse == "rollback":
            raise Collapsed(text, at, min(sign.since for sign in signs), state.watch.rollbacks)
        raise RunFailed(f"{text} (train.on_collapse = stop)")


def gradient_norm(network: nn.Module) -> dict[str, float]:
    """Norm of the last step's gradient, as a figure of a row; none if it is not at hand or not finite (in fp16)."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    norm = float(get_total_norm(gradients)) if gradients else math.nan
    return {"gradient/generator": norm} if math.isfinite(norm) else {}
