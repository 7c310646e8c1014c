"""Which rows and grids are taken for signs of collapse, and which are not."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from dcgan_dist.training.stability import Sign, StabilityWatch, WatchRecord, lasting_signs

TOTAL, BATCH, EVERY, SIZE = 76_800, 64, 3200, 32  # as in the demo

HEALTHY = {
    "loss/discriminator": 0.3,
    "loss/generator": 4.5,
    "score/real": 0.9,
    "score/fake": 0.1,
    "gradient/generator": 50.0,
    "speed/images_per_second": 200.0,
}

# Every 3,200 images: discriminator's and generator's loss, D(x) and D(G(z)) of a demo run that learned to draw faces.
DEMO = (
    *((0.2712, 4.158, 0.9142, 0.1408), (0.0661, 6.264, 0.9704, 0.0329), (0.0315, 7.006, 0.9863, 0.0166)),
    *((0.3806, 7.815, 0.9221, 0.0784), (0.0961, 6.498, 0.9620, 0.0493), (0.0733, 6.372, 0.9672, 0.0332)),
    *((0.1125, 7.986, 0.9524, 0.0450), (0.3880, 6.918, 0.8988, 0.0964), (0.3142, 5.263, 0.8965, 0.1161)),
    *((0.5957, 3.780, 0.8406, 0.1515), (0.2130, 3.770, 0.9080, 0.0937), (0.6007, 3.758, 0.8446, 0.1462)),
)
DEMO_GRIDS = (0.008, 0.238, 0.476, 0.692, 0.762, 0.798, 0.808, 0.777)
"""How much its grids differed, over what real images do, every 12,800 images."""


# What healthy runs with the default rates show over each 25 steps from the first on, by the size of the drawn faces:
# the losses, D(x) and D(G(z)), the median of the gradient's norm.
EARLY = {
    64: (
        *((0.17, 9.5, 0.962, 0.089, 48.2), (0.10, 19.8, 0.983, 0.052, 57.2), (0.10, 16.1, 0.969, 0.041, 65.7)),
        *((0.28, 18.8, 0.946, 0.064, 74.5), (0.40, 27.8, 0.937, 0.085, 68.5), (0.23, 18.8, 0.953, 0.077, 67.3)),
        *((0.13, 15.1, 0.964, 0.045, 56.5), (0.24, 13.6, 0.934, 0.066, 66.8), (0.63, 12.9, 0.892, 0.122, 59.5)),
        *((0.60, 12.2, 0.890, 0.077, 58.2), (0.52, 15.9, 0.915, 0.123, 52.9), (0.76, 15.7, 0.876, 0.100, 56.4)),
    ),
    128: (
        *((0.59, 28.4, 0.961, 0.155, 89.3), (0.43, 42.3, 0.975, 0.074, 86.8), (1.47, 32.1, 0.879, 0.127, 94.7)),
        *((1.58, 24.5, 0.888, 0.162, 95.2), (2.24, 21.3, 0.818, 0.178, 80.4), (1.97, 24.7, 0.837, 0.172, 75.1)),
    ),
}

# Both losses over the first 50 steps with rates that are too high, by the size of the images: 50 times the
# discriminator's (the demo with five seeds; 35 steps at 64 pixels), then 50 times both (45 steps at 64 pixels).
OVERSHOOTING = (
    *((32, 1.29, 15.41), (32, 1.28, 14.78), (32, 1.24, 9.99), (32, 1.45, 13.65), (32, 1.07, 16.31), (64, 5.31, 43.39)),
    *((32, 1.81, 7.10), (64, 2.53, 21.97)),
)

# The norm of the generator's gradient every 800 images of the demo, with batch norm that does not subtract the mean.
EXPLODING = (
    *(4.73e6, 2.89e6, 2.01e6, 1.51e6, 1.14e6, 8.93e5, 7.1e5, 5.9e5, 4.9e5, 4.1e5),
    *(3.5e5, 2.9e5, 2.6e5, 2.4e5, 2.3e5, 2.1e5),
)
EXPLODING_AT_LAST = 13_019.3  # after 64,000 images


def row(**changes: float) -> dict[str, float]:
    return HEALTHY | {name.replace("__", "/"): value for name, value in changes.items()}


def signs_of(rows: list[dict[str, float]], every: int = EVERY, record: WatchRecord | None = None) -> list[Sign]:
    watch, record = StabilityWatch(TOTAL, BATCH, SIZE), record or WatchRecord()
    found = []
    for figures in rows:
        found += watch.row(record, record.last_row + every, figures)
    return found


def test_a_run_that_learns_shows_no_sign() -> None:
    names = ("loss/discriminator", "loss/generator", "score/real", "score/fake")
    assert signs_of([HEALTHY | dict(zip(names, figures, strict=True)) for figures in DEMO]) == []
    watch, record = StabilityWatch(TOTAL, BATCH, SIZE), WatchRecord()
    grids = [watch.grid(record, 12_800 * number, diversity) for number, diversity in enumerate(DEMO_GRIDS)]
    assert grids == [[]] * len(DEMO_GRIDS)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("saturated", {"score__real": 0.999, "score__fake": 0.001}),
        ("generator_loss", {"loss__generator": 24.0}),
        ("overshooting", {"loss__generator": 9.5, "loss__discriminator": 1.1}),
        ("guessing", {"loss__discriminator": 1.38}),
        ("vanishing", {"gradient__generator": 1e-6}),
        ("exploding", {"gradient__generator": 434_891.0}),
    ],
)
def test_each_sign_is_told_of_once_while_it_lasts_and_again_when_it_comes_back(
    kind: str, changes: dict[str, float]
) -> None:
    rows = [row(), *[row(**changes)] * 4, row(), row(), row(**changes), row(**changes)]
    found = signs_of(rows)
    assert [sign.kind for sign in found] == [kind, kind]
    assert found[0].since == EVERY


@pytest.mark.parametrize("size", EARLY)
def test_the_violent_start_of_a_healthy_run_of_large_images_is_no_sign(size: int) -> None:
    names = ("loss/discriminator", "loss/generator", "score/real", "score/fake", "gradient/generator")
    watch, record = StabilityWatch(1000 * BATCH, BATCH, size), WatchRecord()
    for number, figures in enumerate(EARLY[size], start=1):
        assert watch.row(record, 25 * BATCH * number, dict(zip(names, figures, strict=True))) == []


@pytest.mark.parametrize(("size", "discriminator", "generator"), OVERSHOOTING)
def test_rates_that_are_fifty_times_too_high_are_seen_after_50_steps(
    size: int, discriminator: float, generator: float
) -> None:
    watch = StabilityWatch(1000 * BATCH, BATCH, size)
    figures = row(loss__discriminator=discriminator, loss__generator=generator)
    assert {sign.kind for sign in watch.row(WatchRecord(), 50 * BATCH, figures)} & {"overshooting", "guessing"}


def test_an_exploding_gradient_is_seen_within_a_twentieth_of_the_run() -> None:
    watch, record = StabilityWatch(TOTAL, BATCH, SIZE), WatchRecord()
    seen = range(800, 12_801, 800)
    found = [
        (images_seen, sign)
        for images_seen, norm in zip(seen, EXPLODING, strict=True)
        for sign in watch.row(record, images_seen, row(gradient__generator=norm))
    ]
    ((first, sign),) = found
    assert (sign.kind, first <= TOTAL / 20) == ("exploding", True)
    assert "norm 2,890,000" in sign.text
    watch.row(record, 16_000, row(gradient__generator=EXPLODING_AT_LAST))
    assert list(record.lasting) == ["exploding"]


def test_huge_gradients_in_the_first_steps_of_a_healthy_run_are_no_sign() -> None:
    norms = [14e6, 14e6, 14e6, 2e5, 2e4] + [50.0] * 60
    assert signs_of([row(gradient__generator=norm) for norm in norms], every=BATCH) == []


def test_gradients_that_are_not_known_or_not_finite_are_left_out_or_said() -> None:
    missing = row()
    del missing["gradient/generator"]
    exploding, endless = row(gradient__generator=5e5), row(gradient__generator=math.inf)
    assert [sign.kind for sign in signs_of([missing, exploding, exploding, missing], every=1600)] == ["exploding"]
    (sign,) = signs_of([endless])
    assert (sign.kind, "norm inf" in sign.text) == ("exploding", True)
    assert signs_of([row(gradient__generator=math.nan)]) == []


def test_signs_that_have_not_gone_are_kept_with_what_they_say_now() -> None:
    watch, record = StabilityWatch(TOTAL, BATCH, SIZE), WatchRecord()
    for number, norm in enumerate((2e6, 3e6), start=1):
        watch.row(record, number * EVERY, row(gradient__generator=norm, loss__discriminator=1.4))
    watch.grid(record, 2 * EVERY, 0.6)
    watch.grid(record, 4 * EVERY, 0.1)
    assert list(record.lasting) == ["guessing", "exploding", "narrow"]
    assert "3,000,000" in record.lasting["exploding"]
    resumed = WatchRecord.from_dict(json.loads(json.dumps(record.as_dict())))
    assert resumed.lasting == record.lasting
    watch.row(resumed, 3 * EVERY, row())
    assert list(resumed.lasting) == ["narrow"]
    watch.grid(resumed, 6 * EVERY, 0.6)
    assert resumed.lasting == {}


def test_a_record_from_before_texts_were_kept_still_names_its_signs() -> None:
    old = {"rollbacks": 0, "shown": ["guessing"], "stretch": [], "last_row": 640, "widest": 0.5, "last_grid": 0}
    assert WatchRecord.from_dict(old).lasting == lasting_signs(old) == {"guessing": "guessing"}
    assert lasting_signs(None) == {}  # older than the watch
    assert lasting_signs("text") == {}  # type: ignore[arg-type]


def test_a_short_stumble_is_no_sign() -> None:
    rows = [row() for _ in range(40)]
    rows[20] = row(loss__generator=30.0)
    assert signs_of(rows, every=320) == []


def test_only_both_probabilities_together_mean_saturation() -> None:
    assert signs_of([row(score__real=0.999)] * 3) == []
    assert signs_of([row(score__fake=0.001)] * 3) == []


def test_rows_without_a_gradient_are_judged_by_the_rest() -> None:
    figures = row(loss__generator=24.0)
    del figures["gradient/generator"]
    assert [sign.kind for sign in signs_of([figures, figures])] == ["generator_loss"]


def test_a_grid_that_loses_half_of_its_variety_is_a_sign() -> None:
    watch, record = StabilityWatch(TOTAL, BATCH, SIZE), WatchRecord()
    assert watch.grid(record, 12_800, 0.6) == []
    assert watch.grid(record, 25_600, 0.35) == []
    (sign,) = watch.grid(record, 38_400, 0.29)
    assert (sign.kind, sign.since) == ("narrow", 25_600)
    assert watch.grid(record, 51_200, 0.2) == []  # told of already


def test_a_generator_that_never_varies_is_seen_once_it_should() -> None:
    watch, record = StabilityWatch(TOTAL, BATCH, SIZE), WatchRecord()
    assert watch.grid(record, 0, 0.008) == []
    assert watch.grid(record, 100 * BATCH, 0.01) == []  # a tenth of a short run may be too little to learn anything
    assert [sign.kind for sign in watch.grid(record, 200 * BATCH, 0.01)] == ["narrow"]


def test_no_sign_begins_before_what_was_trusted() -> None:
    watch, record, trusted = StabilityWatch(TOTAL, BATCH, SIZE), WatchRecord(), [0]
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
    rows = [row(), row(loss__generator=19.0), row(loss__generator=23.0), row(loss__generator=19.0), row()]
    undisturbed = signs_of(rows, every=1600)
    record = WatchRecord()
    before = signs_of(rows[:3], every=1600, record=record)
    kept: dict[str, Any] = json.loads(json.dumps(record.as_dict()))  # plain values, as a checkpoint holds them
    assert before + signs_of(rows[3:], every=1600, record=WatchRecord(**kept)) == undisturbed
    assert len(undisturbed) == 1
