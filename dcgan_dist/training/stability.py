"""Signs that a GAN's training collapses, read off the rows of figures and the grids that are made anyway.

No torch here: figures come in, signs go out, and every rank that sees the same figures comes to the same signs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dcgan_dist.base.errors import RunFailed

# A sign has to hold, on average, over this part of the whole run, and over so many steps: GANs stumble and recover.
STRETCH_OF_RUN = 0.03
STRETCH_STEPS = 25

Figures = Mapping[str, float]
# Beside a stretch's means: the median of the generator's gradient norms, and the losses over the size of the images.
TYPICAL_GRADIENT = "typical/gradient"
GENERATOR_FOR_SIZE, DISCRIMINATOR_FOR_SIZE = "size/generator", "size/discriminator"


@dataclass(frozen=True)
class Rule:
    """One sign of collapse: when the means over a stretch show it, and what it means."""

    kind: str
    shows: Callable[[Figures], bool]
    text: str
    """Formatted with the means."""
    of_bce: bool = True
    """Its limits are those of binary cross-entropy; other losses have other values."""


# The limits lie beyond what healthy runs show over a stretch. In the demo (32 pixels) that is a generator loss of 8.8,
# D(x) of 0.990 and D(G(z)) of 0.012, a discriminator loss of 0.6 (1.0 while the generator's is 4). A discriminator that
# can only guess has a loss of 1.38: 2 log 2, the loss of tossing a coin.
#
# With more pixels a discriminator is more certain, right or wrong. In the first 300 steps at 64 pixels the losses reach
# 29 (generator) and 0.9 (discriminator), in the first 150 at 128 pixels 46 and 2.4, and both runs learn faces. So two
# rules divide the losses by the size in units of 32 pixels, and a high loss of the discriminator means guessing only
# while the generator's is low. With 50 times the discriminator's rate, the first 50 steps show 10 to 16 and 1.1 to 1.5
# at 32 pixels, 43 and 5.3 at 64; with 50 times both rates 7 and 1.8, 22 and 2.5.
#
# The norm of a healthy gradient is 13 to 121 at every size, and up to 311 with 50 times the discriminator's rate. With
# batch norm that does not subtract the mean it is 5 million after 10 steps of the demo and falls to 13,000 by its end;
# at 64 and 128 pixels it is 35 to 145 million in the first 30 steps.
RULES = (
    Rule(
        "saturated",
        lambda means: means["score/real"] > 0.995 and means["score/fake"] < 0.005,
        "the discriminator is always right (D(x) {score/real:.4f}, D(G(z)) {score/fake:.4f}): nothing left to learn",
    ),
    Rule(
        "generator_loss",
        lambda means: means[GENERATOR_FOR_SIZE] > 20,
        "the generator's loss has grown to {loss/generator:.1f}: the discriminator runs away from it",
    ),
    Rule(
        "overshooting",
        lambda means: means[DISCRIMINATOR_FOR_SIZE] > 0.8 and means[GENERATOR_FOR_SIZE] > 8,
        "both losses are high (D {loss/discriminator:.2f}, G {loss/generator:.1f}): a learning rate is too high",
    ),
    Rule(
        "guessing",
        lambda means: means["loss/discriminator"] > 1.3 and means["loss/generator"] < 10,
        "the discriminator's loss is {loss/discriminator:.2f}, no better than guessing: the generator learns nothing",
    ),
    Rule(
        "vanishing",
        lambda means: means["gradient/generator"] < 1e-4,
        "the generator's gradient has vanished (norm {gradient/generator:.1e})",
        of_bce=False,
    ),
    Rule(
        "exploding",
        lambda means: means[TYPICAL_GRADIENT] > 2000,
        f"the generator's gradient has exploded (norm {{{TYPICAL_GRADIENT}:,.0f}}; healthy runs stay below 200)",
        of_bce=False,
    ),
)
NARROW = "narrow"
LEAST_OF_WIDEST = 0.5  # a grid half as varied as an earlier one; healthy ones fall to 0.67
LEAST_DIVERSITY = 0.05  # of the real grid's; a healthy generator is beyond it after a twentieth of the run
GROWN_UP, GROWN_UP_STEPS = 0.1, 200  # of the run, and in steps: no generator varies after 100 of them


@dataclass(frozen=True)
class Sign:
    """A sign of collapse at its onset."""

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
    texts: dict[str, str] = field(default_factory=dict)
    """What the newest row or grid says of each of them; checkpoints older than this field have none."""
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
            "texts": isinstance(record.texts, dict) and all(isinstance(text, str) for text in record.texts.values()),
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
    def lasting(self) -> dict[str, str]:
        """The signs that have not gone, kind and text. At the end of a run they say that it collapsed."""
        return {kind: self.texts.get(kind, kind) for kind in self.shown}

    @property
    def trusted_images(self) -> int:
        """Images seen before which no future sign can have begun."""
        return min(self.last_row - int(sum(row["images"] for row in self.stretch)), self.last_grid)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)


class StabilityWatch:
    """Looks at rows and grids as they come; what it remembers of them is in a `WatchRecord`."""

    def __init__(self, total_images: int, global_batch: int, image_size: int, loss: str = "bce") -> None:
        self._rules = [rule for rule in RULES if loss == "bce" or not rule.of_bce]
        self._size = image_size / 32
        self._grown_up_images = max(GROWN_UP * total_images, GROWN_UP_STEPS * global_batch)
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
        means[TYPICAL_GRADIENT] = _typical_gradient(record.stretch)
        means[GENERATOR_FOR_SIZE] = means["loss/generator"] / self._size
        means[DISCRIMINATOR_FOR_SIZE] = means["loss/discriminator"] / self._size
        since = images_seen - int(covered)
        begun = [_seen(record, rule.kind, rule.shows(means), rule.text.format(**means), since) for rule in self._rules]
        return [sign for sign in begun if sign]

    def grid(self, record: WatchRecord, images_seen: int, diversity: float) -> list[Sign]:
        """The signs that begin with this grid. `diversity`: how much its images differ, over that of the real grid."""
        record.widest = max(record.widest, diversity)
        fallen = diversity < LEAST_OF_WIDEST * record.widest
        poor = diversity < LEAST_DIVERSITY and images_seen >= self._grown_up_images
        text = (
            f"the drawn images vary {diversity:.2f} times as much as real ones (at most {record.widest:.2f} so far): "
            "mode collapse"
        )
        sign = _seen(record, NARROW, fallen or poor, text, record.last_grid)
        record.last_grid = images_seen
        return [sign] if sign else []


def lasting_signs(record: dict[str, Any] | None) -> dict[str, str]:
    """The signs that had not gone when a checkpoint kept this `record`, kind and text; none if it cannot tell."""
    try:
        return WatchRecord.from_dict(record or {}).lasting
    except (AttributeError, TypeError):
        return {}


def _is_row(row: Any) -> bool:
    """Whether it is one of a stretch's rows."""
    if not isinstance(row, dict) or not isinstance(row.get("images"), int):
        return False
    return all(isinstance(value, (int, float)) for value in row.values())


def _typical_gradient(rows: Sequence[Figures]) -> float:
    """The median of the rows' gradient norms; 0 if no row has one.

    A norm is that of a single step: the huge ones of a few steps, as at the start of a run, would rule a mean.
    """
    norms = [row["gradient/generator"] for row in rows if "gradient/generator" in row]
    return statistics.median_low(norms) if norms else 0.0


def _seen(record: WatchRecord, kind: str, shows: bool, text: str, since: int) -> Sign | None:
    """Returns a sign at its onset and None while it lasts."""
    onset = shows and kind not in record.shown
    record.shown = [other for other in record.shown if other != kind] + [kind] * shows
    record.texts.pop(kind, None)
    if shows:
        record.texts[kind] = text
    return Sign(kind, text, since) if onset else None


class Collapsed(RunFailed):
    """The training collapses, and is to go back to before `since` images."""

    def __init__(self, text: str, at: int, since: int, rollbacks: int) -> None:
        super().__init__(text)
        self.at = at
        self.since = since
        self.rollbacks = rollbacks
