"""Signs that a GAN's training collapses, read off the rows of figures and the grids that are made anyway.

No torch here: figures come in, signs go out, and every rank that sees the same figures comes to the same signs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dcgan_dist.errors import RunFailed

# A sign has to hold, on average, over this part of the whole run, and over so many steps: GANs stumble and recover.
STRETCH_OF_RUN = 0.03
STRETCH_STEPS = 25

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Rule:
    """One sign of collapse: when the means over a stretch show it, and what it means."""

    kind: str
    shows: Callable[[Figures], bool]
    text: str
    """Formatted with the means."""


# The limits lie beyond what healthy runs show: on the demo's faces a generator loss of 8.8 over a stretch, scores of
# 0.990 and 0.012, a discriminator loss of 0.6. With fifty times its rate the discriminator drives the loss to 12 from
# the start on; let loose on a trained generator it falls to 1.38, which is 2 log 2, the loss of tossing a coin.
RULES = (
    Rule(
        "saturated",
        lambda means: means["score/real"] > 0.995 and means["score/fake"] < 0.005,
        "the discriminator is always right (D(x) {score/real:.4f}, D(G(z)) {score/fake:.4f}): nothing left to learn",
    ),
    Rule(
        "generator_loss",
        lambda means: means["loss/generator"] > 10,
        "the generator's loss has grown to {loss/generator:.1f}: the discriminator runs away from it",
    ),
    Rule(
        "guessing",
        lambda means: means["loss/discriminator"] > 1.3,
        "the discriminator's loss is {loss/discriminator:.2f}, no better than guessing: the generator learns nothing",
    ),
    Rule(
        "vanishing",
        lambda means: means["gradient/generator"] < 1e-4,
        "the generator's gradient has vanished (norm {gradient/generator:.1e})",
    ),
)
NARROW = "narrow"
LEAST_OF_WIDEST = 0.5  # a grid half as varied as an earlier one; healthy ones fall to 0.67
LEAST_DIVERSITY = 0.05  # of the real grid's; a healthy generator is beyond it after a twentieth of the run
GROWN_UP = 0.1  # of the run


@dataclass(frozen=True)
class Sign:
    """Something that was just seen for the first time."""

    kind: str
    text: str
    since: int
    """Images seen when it began, at the latest."""


@dataclass
class WatchRecord:
    """What the watch remembers; a checkpoint holds it, so that a resumed run comes to the same signs."""

    rollbacks: int = 0
    """How often the run went back to an earlier checkpoint."""
    shown: list[str] = field(default_factory=list)
    """Kinds of signs that have been told of and have not gone since."""
    stretch: list[dict[str, float]] = field(default_factory=list)
    """The newest rows, as many as make up a stretch."""
    last_row: int = 0
    """Images seen at the newest row."""
    widest: float = 0.0
    """Diversity of the most varied grid so far."""
    last_grid: int = 0
    """Images seen at the newest grid."""

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> WatchRecord:
        """What `as_dict` gave. Raises TypeError if a field is of another kind."""
        record = cls(**saved)
        sound = {
            "rollbacks": isinstance(record.rollbacks, int) and record.rollbacks >= 0,
            "shown": isinstance(record.shown, list) and all(isinstance(kind, str) for kind in record.shown),
            "stretch": isinstance(record.stretch, list) and all(_is_row(row) for row in record.stretch),
            "last_row": isinstance(record.last_row, int),
            "widest": isinstance(record.widest, (int, float)),
            "last_grid": isinstance(record.last_grid, int),
        }
        for name, is_sound in sound.items():
            if not is_sound:
                raise TypeError(f"the watch's {name} cannot be {str(getattr(record, name))[:40]!r}")
        return record

    @property
    def trusted_images(self) -> int:
        """No sign that is still to come can have begun before so many images were seen."""
        return min(self.last_row - int(sum(row["images"] for row in self.stretch)), self.last_grid)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)


class StabilityWatch:
    """Looks at rows and grids as they come; what it remembers of them is in a `WatchRecord`."""

    def __init__(self, total_images: int, global_batch: int) -> None:
        self._total_images = total_images
        self._stretch_images = max(STRETCH_OF_RUN * total_images, STRETCH_STEPS * global_batch)

    def row(self, record: WatchRecord, images_seen: int, figures: Figures) -> list[Sign]:
        """The signs that begin with this row of figures, means since the row before."""
        names = [name for name in figures if name.startswith(("loss/", "score/", "gradient/"))]
        span = images_seen - record.last_row
        record.stretch.append({"images": span, **{name: figures[name] for name in names}})
        record.last_row = images_seen
        while sum(row["images"] for row in record.stretch[1:]) >= self._stretch_images:
            del record.stretch[0]
        covered = sum(row["images"] for row in record.stretch)
        if covered < self._stretch_images:
            return []
        means = {name: sum(row.get(name, 1.0) * row["images"] for row in record.stretch) / covered for name in names}
        means.setdefault("gradient/generator", 1.0)  # in fp16 now and then it is not known
        since = images_seen - int(covered)
        begun = [_seen(record, rule.kind, rule.shows(means), rule.text.format(**means), since) for rule in RULES]
        return [sign for sign in begun if sign]

    def grid(self, record: WatchRecord, images_seen: int, diversity: float) -> list[Sign]:
        """The signs that begin with this grid. `diversity`: how much its images differ, over that of the real grid."""
        record.widest = max(record.widest, diversity)
        fallen = diversity < LEAST_OF_WIDEST * record.widest
        poor = diversity < LEAST_DIVERSITY and images_seen >= GROWN_UP * self._total_images
        text = (
            f"the drawn images differ by {diversity:.2f} of what real ones do, after {record.widest:.2f}: mode collapse"
        )
        sign = _seen(record, NARROW, fallen or poor, text, record.last_grid)
        record.last_grid = images_seen
        return [sign] if sign else []


def _is_row(row: Any) -> bool:
    """Whether it is one of a stretch's rows."""
    if not isinstance(row, dict) or not isinstance(row.get("images"), int):
        return False
    return all(isinstance(value, (int, float)) for value in row.values())


def _seen(record: WatchRecord, kind: str, shows: bool, text: str, since: int) -> Sign | None:
    """A sign at its onset; none while it lasts."""
    onset = shows and kind not in record.shown
    record.shown = [other for other in record.shown if other != kind] + [kind] * shows
    return Sign(kind, text, since) if onset else None


class Collapsed(RunFailed):
    """The training collapses, and is to go back to before `since` images."""

    def __init__(self, text: str, at: int, since: int, rollbacks: int) -> None:
        super().__init__(text)
        self.at = at
        self.since = since
        self.rollbacks = rollbacks
