"""Which rows and grids are taken for signs of collapse, and which are not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dcgan_dist.stability import Sign, StabilityWatch, WatchRecord

TOTAL, BATCH, EVERY = 76_800, 64, 3200  # as in the demo

HEALTHY = {
    "loss/discriminator": 0.3,
    "loss/generator": 4.5,
    "score/real": 0.9,
    "score/fake": 0.1,
    "gradient/generator": 5.0,
    "speed/images_per_second": 200.0,
}

# Every 3,200 images: discriminator's and generator's loss and the two scores of a demo run that learned to draw faces.
DEMO = (
    *((0.2712, 4.158, 0.9142, 0.1408), (0.0661, 6.264, 0.9704, 0.0329), (0.0315, 7.006, 0.9863, 0.0166)),
    *((0.3806, 7.815, 0.9221, 0.0784), (0.0961, 6.498, 0.9620, 0.0493), (0.0733, 6.372, 0.9672, 0.0332)),
    *((0.1125, 7.986, 0.9524, 0.0450), (0.3880, 6.918, 0.8988, 0.0964), (0.3142, 5.263, 0.8965, 0.1161)),
    *((0.5957, 3.780, 0.8406, 0.1515), (0.2130, 3.770, 0.9080, 0.0937), (0.6007, 3.758, 0.8446, 0.1462)),
)
DEMO_GRIDS = (0.008, 0.238, 0.476, 0.692, 0.762, 0.798, 0.808, 0.777)
"""How much its grids differed, over what real images do, every 12,800 images."""

# The same with fifty times the discriminator's rate, from the first step on, every 320 images.
OVERPOWERED = (15.01, 22.51, 9.55, 11.74, 8.55, 8.85, 9.88, 9.94, 10.30, 11.84)


def row(**changes: float) -> dict[str, float]:
    return HEALTHY | {name.replace("__", "/"): value for name, value in changes.items()}


def signs_of(rows: list[dict[str, float]], every: int = EVERY, record: WatchRecord | None = None) -> list[Sign]:
    watch, record = StabilityWatch(TOTAL, BATCH), record or WatchRecord()
    found = []
    for figures in rows:
        found += watch.row(record, record.last_row + every, figures)
    return found


def test_a_run_that_learns_shows_no_sign() -> None:
    names = ("loss/discriminator", "loss/generator", "score/real", "score/fake")
    assert signs_of([HEALTHY | dict(zip(names, figures, strict=True)) for figures in DEMO]) == []
    watch, record = StabilityWatch(TOTAL, BATCH), WatchRecord()
    grids = [watch.grid(record, 12_800 * number, diversity) for number, diversity in enumerate(DEMO_GRIDS)]
    assert grids == [[]] * len(DEMO_GRIDS)


def test_an_overpowering_discriminator_is_seen_within_a_twentieth_of_the_run() -> None:
    rows = [row(loss__generator=loss) for loss in OVERPOWERED]
    watch, record = StabilityWatch(TOTAL, BATCH), WatchRecord()
    first = next(
        images_seen
        for images_seen, figures in zip(range(320, 3201, 320), rows, strict=True)
        if watch.row(record, images_seen, figures)
    )
    assert first <= TOTAL / 20


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("saturated", {"score__real": 0.999, "score__fake": 0.001}),
        ("generator_loss", {"loss__generator": 14.0}),
        ("guessing", {"loss__discriminator": 1.38}),
        ("vanishing", {"gradient__generator": 1e-6}),
    ],
)
def test_each_sign_is_told_of_once_while_it_lasts_and_again_when_it_comes_back(
    kind: str, changes: dict[str, float]
) -> None:
    rows = [row(), *[row(**changes)] * 4, row(), row(), row(**changes), row(**changes)]
    found = signs_of(rows)
    assert [sign.kind for sign in found] == [kind, kind]
    assert found[0].since == EVERY


def test_a_short_stumble_is_no_sign() -> None:
    rows = [row() for _ in range(40)]
    rows[20] = row(loss__generator=30.0)
    assert signs_of(rows, every=320) == []


def test_only_both_scores_together_mean_saturation() -> None:
    assert signs_of([row(score__real=0.999)] * 3) == []
    assert signs_of([row(score__fake=0.001)] * 3) == []


def test_rows_without_a_gradient_are_judged_by_the_rest() -> None:
    figures = row(loss__generator=14.0)
    del figures["gradient/generator"]
    assert [sign.kind for sign in signs_of([figures, figures])] == ["generator_loss"]


def test_a_grid_that_loses_half_of_its_variety_is_a_sign() -> None:
    watch, record = StabilityWatch(TOTAL, BATCH), WatchRecord()
    assert watch.grid(record, 12_800, 0.6) == []
    assert watch.grid(record, 25_600, 0.35) == []
    (sign,) = watch.grid(record, 38_400, 0.29)
    assert (sign.kind, sign.since) == ("narrow", 25_600)
    assert watch.grid(record, 51_200, 0.2) == []  # told of already


def test_a_generator_that_never_varies_is_seen_once_it_should() -> None:
    watch, record = StabilityWatch(TOTAL, BATCH), WatchRecord()
    assert watch.grid(record, 0, 0.008) == []
    assert [sign.kind for sign in watch.grid(record, TOTAL // 10, 0.01)] == ["narrow"]


def test_no_sign_begins_before_what_was_trusted() -> None:
    watch, record, trusted = StabilityWatch(TOTAL, BATCH), WatchRecord(), [0]
    for step in range(1, 40):
        seen = step * 700
        signs = watch.row(record, seen, row(loss__generator=30.0 * (step % 9 > 3)))
        if step % 5 == 0:
            signs += watch.grid(record, seen, 0.8 / step)
        assert all(sign.since >= trusted[-1] for sign in signs)
        trusted.append(record.trusted_images)
    assert trusted == sorted(trusted)
    assert trusted[-1] >= 39 * 700 - 0.03 * TOTAL - 5 * 700


def test_a_resumed_run_comes_to_the_same_signs() -> None:
    rows = [row(), row(loss__generator=9.0), row(loss__generator=13.0), row(loss__generator=9.0), row()]
    undisturbed = signs_of(rows, every=1600)
    record = WatchRecord()
    before = signs_of(rows[:3], every=1600, record=record)
    kept: dict[str, Any] = json.loads(json.dumps(record.as_dict()))  # plain values, as a checkpoint holds them
    assert before + signs_of(rows[3:], every=1600, record=WatchRecord(**kept)) == undisturbed
    assert len(undisturbed) == 1
