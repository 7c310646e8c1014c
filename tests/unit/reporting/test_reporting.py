"""The parts of the report: what is read, which numbers stand on it, where the points of a curve lie."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from dcgan_dist.base.errors import UserError
from dcgan_dist.config import TrainConfig
from dcgan_dist.reporting.charts import MOST_POINTS, Chart, Curve, charts_of_run, charts_of_runs, points_of
from dcgan_dist.reporting.curves import draw_chart
from dcgan_dist.reporting.facts import changed_settings, differing_settings, duration, facts_of, score_table
from dcgan_dist.reporting.page import render_page
from dcgan_dist.reporting.plot import lay_out, short, ticks
from dcgan_dist.reporting.read_run import Event, read_run
from dcgan_dist.reporting.style import CURVE_STYLES, LIGHT
from dcgan_dist.reporting.summary_picture import draw_summary
from dcgan_dist.reporting.svg_chart import SvgChart
from dcgan_dist.run.folder import RunFolder, Status

Rows = list[dict[str, Any]]


def row(images_seen: int, **figures: float) -> dict[str, Any]:
    speed = {"speed/images_per_second": 100.0, "speed/data_wait_fraction": 0.25}
    return {"step": images_seen // 10, "images_seen": images_seen, "loss/generator": 2.0, **speed, **figures}


def make_run(folder: Path, rows: Rows, grids: tuple[int, ...] = (), **settings: Any) -> Path:
    """A run folder as training leaves it; `settings` as in data__image_size=32."""
    config = TrainConfig().as_dict()
    for name, value in settings.items():
        section, _, field = name.partition("__")
        config[section][field] = value
    run = RunFolder(folder)
    run.create(yaml.safe_dump(config, sort_keys=False))
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.write_status("done", rows[-1]["images_seen"] if rows else 0, "", {})
    for images_seen in grids:
        for path in (run.grid(images_seen), run.ema_grid(images_seen), run.real_grid):
            save_noise(path, 40)
    return folder


def add_scores(run: Path, *scores: tuple[int, float], key: str = "0123456789abcdef") -> Path:
    """Scores taken during training: at so many images, so much."""
    with (run / "scores.jsonl").open("a") as file:
        for images_seen, value in scores:
            line = {"images_seen": images_seen, "metric": "swd", "value": value, "during_training": True}
            file.write(json.dumps(line | {"protocol_key": key, "protocol": {}}) + "\n")
    return run


def save_noise(path: Path, size: int) -> None:
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def pictures_on(page: str) -> list[Image.Image]:
    """Every picture of a page, decoded."""
    sources = re.findall(r'<img src="data:image/(?:png|jpeg);base64,([^"]+)"', page)
    assert len(sources) == page.count("<img ")
    return [Image.open(io.BytesIO(base64.b64decode(source))).convert("RGB") for source in sources]


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["", "\n\n", '{"step": 3, "ima', "null\n[1]\n", '{"images_seen": "many"}\n', "\x00\xff"]
)
def test_rows_that_a_crash_or_a_start_left_are_passed_over(tmp_path: Path, content: str) -> None:
    run = make_run(tmp_path / "run", [])
    (run / "metrics.jsonl").write_text(content)
    record = read_run(run)
    assert record.rows == []
    assert "No figures yet" in render_page([record])
    assert draw_summary([record])


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "environment.json", "events.jsonl", "scores.jsonl"])
@pytest.mark.parametrize(
    "content", ["", "[", "{{{ not: yaml: at: all", '"text"', "[[]]\n", "\x00", '{"images_seen": null}']
)
def test_a_damaged_file_leaves_the_rest_of_the_report(tmp_path: Path, name: str, content: str) -> None:
    run = make_run(tmp_path / "run", [row(100), row(200)], grids=(0, 200))
    (run / name).write_text(content)
    page = render_page([read_run(run)])
    assert len(pictures_on(page)) == 5
    assert "Throughput" in page


def test_a_grid_that_cannot_be_decoded_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run", [row(100)], grids=(0, 100))
    (run / "samples" / "000000100.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    assert len(pictures_on(render_page([read_run(run)]))) == 4
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 40 // 3)
    save_noise(run / "samples" / "000000100.png", 20)  # the others have more pixels than Pillow opens now
    assert len(pictures_on(render_page([read_run(run)]))) == 1


def test_no_run_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_run(tmp_path / "none")
    with pytest.raises(UserError, match="no run in this folder"):
        read_run(tmp_path)


def test_a_run_without_noted_events_tells_how_it_ended(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [row(100)])
    RunFolder(run).write_status("failed", 100, "the disk is full", {})
    (event,) = read_run(run).events
    assert (event.images_seen, event.kind, event.text) == (100, "failed", "the disk is full")
    assert event.seconds == pytest.approx(time.time(), abs=60)
    noted = {"images_seen": 50, "kind": "resume", "text": "4 ranks", "time": 1.5}
    (run / "events.jsonl").write_text(json.dumps(noted) + "\n")
    (event,) = read_run(run).events
    assert (event.kind, event.text, event.seconds) == ("resume", "4 ranks", 1.5)


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_facts_are_those_of_the_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [row(1000), row(2000), row(3000)], train__total_images=6000)
    add_scores(run, (1000, 9.0), (1500, 3.0), (3000, 4.0))
    facts = {fact.name: (fact.value, fact.note) for fact in facts_of(read_run(run))}
    assert facts["Images seen"] == ("3,000", "of 6,000")
    assert facts["Training time"][0] == "30 s"
    assert facts["Throughput"][0] == "100 images/s"
    assert facts["Waiting for data"][0] == "25 %"
    assert facts["Best SWD"] == ("3", "at 1,500 images")


def test_what_differs_is_told_and_nothing_else(tmp_path: Path) -> None:
    one = read_run(make_run(tmp_path / "one", [row(1)], optim__generator_lr=1e-3, run__name="one"))
    two = read_run(make_run(tmp_path / "two", [row(1)], data__flip=True, run__name="two"))
    assert changed_settings(two) == [("run.name", "two", "celeba64"), ("data.flip", "true", "false")]
    assert differing_settings([one, two]) == [
        ("data.flip", ["false", "true"]),
        ("optim.generator_lr", ["0.001", "0.0002"]),
    ]
    assert differing_settings([one, one]) == []


def test_scores_stand_with_their_protocol_and_those_of_training_are_a_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [row(100)])
    score = {"images_seen": 100, "metric": "swd", "value": 12.345678, "floor": 3.0, "network": "ema"}
    score |= {"protocol": {"num_images": 2048, "seed": 7}, "protocol_key": "0123456789abcdef"}
    lines = [score, score | {"during_training": True}, score | {"protocol": None}]
    (run / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = score_table(read_run(run))
    assert list(first.values()) == ["100", "SWD", "12.35", "3", "averaged", "2,048", "7", "01234567"]
    assert second["images"] == ""


@pytest.mark.parametrize(("seconds", "words"), [(12.4, "12 s"), (300, "5 min"), (12_000, "3 h 20 min")])
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# --- curves -----------------------------------------------------------------------------------------------------------


def test_a_long_curve_is_thinned_to_means(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run", [row(n, **{"loss/generator": n % 2}) for n in range(1, 10_001)]))
    points = points_of(run, "loss/generator")
    assert MOST_POINTS / 2 < len(points) <= MOST_POINTS
    assert [value for _, value in points] == pytest.approx([0.5] * len(points), abs=0.02)
    assert sum(x for x, _ in points) / len(points) == pytest.approx(5000, rel=0.01)


def test_figures_that_are_new_to_the_report_are_shown_too_and_gaps_are_not(tmp_path: Path) -> None:
    rows = [
        row(100, **{"attention/first_layer": 1.5}),
        row(200),
        row(300, **{"attention/first_layer": float("nan")}),
    ]
    charts = {chart.title: chart for chart in charts_of_run(read_run(make_run(tmp_path / "run", rows)))}
    (curve,) = charts["Attention"].curves
    assert (curve.label, curve.points) == ("first layer", [(100.0, 1.5)])


def test_of_several_runs_each_figure_is_a_chart_and_each_run_a_curve(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / name, [row(100), row(200)])) for name in ("one", "two")]
    charts = {chart.title: chart for chart in charts_of_runs(runs, ["one", "two"])}
    assert [curve.label for curve in charts["Loss: generator G"].curves] == ["one", "two"]
    assert "Loss: discriminator D" not in charts


def test_scores_of_unlike_protocols_are_on_charts_of_their_own(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, [row(100, **{"best/swd": 1.0})]) for name in ("one", "two", "three")]
    for run in runs[:2]:
        add_scores(run, (100, 5.0), (200, 4.0))
    add_scores(runs[1], (300, 1.0), key="fedcba9876543210")  # it went on with another number of images
    records = [read_run(run) for run in runs]

    def quality(charts: list[Chart]) -> list[tuple[str, list[str]]]:
        found = [chart for chart in charts if "Wasserstein" in chart.title]
        return [(chart.unit, [curve.label for curve in chart.curves]) for chart in found]

    assert quality(charts_of_runs(records, ["one", "two", "three"])) == [
        ("lower is better; protocol 01234567", ["one", "two"]),
        ("lower is better; protocol fedcba98", ["two"]),
    ]
    assert quality(charts_of_run(records[0])) == [("lower is better", ["score"])]
    assert not any("Best" in chart.title for chart in charts_of_run(records[0]))
    bests = [(fact.value, fact.note) for fact in facts_of(records[1]) if fact.name == "Best SWD"]
    assert bests == [("4", "at 200 images; protocol 01234567"), ("1", "at 300 images; protocol fedcba98")]


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [5.0], [-3.0, 4.0], [1e-9, 2e-9], [1e9, 3e12]])
def test_every_point_lies_on_the_sheet_and_up_is_more(values: list[float]) -> None:
    chart = Chart("loss", "", [Curve("one", 0, [(100.0 * i, value) for i, value in enumerate(values)])])
    svg = SvgChart(lay_out(chart))
    points = svg.points(chart.curves[0])
    for x, y, _, _ in points:
        assert svg.left <= x <= svg.right
        assert svg.top <= y <= svg.bottom
    heights = [svg.height - y for _, y, _, _ in points]
    assert sorted(heights) == [height for _, height in sorted(zip(values, heights, strict=True))]
    assert len(svg.plot.y_ticks) >= 2


def test_a_picture_has_the_curves_axes_ticks_and_marks_of_the_page() -> None:
    chart = Chart("loss", "nats", [Curve(f"run {n}", n, [(100.0, 2.0), (900.0, n)]) for n in range(8)])
    events = [Event(seen, kind, "", None) for seen, kind in ((0, "start"), (300, "warning"), (900, "done"))]
    axes, plot = Figure().subplots(), lay_out(chart, events)
    draw_chart(axes, chart, events)
    *curves, mark = axes.lines
    assert [line.get_color() for line in curves] == [style.light for style in (*CURVE_STYLES, *CURVE_STYLES[:2])]
    assert [line.get_linestyle() for line in curves[:2]] == ["-", "--"]
    assert (axes.get_xlim(), axes.get_ylim()) == ((0, plot.right), (plot.low, plot.high))
    assert [label.get_text() for label in axes.get_xticklabels()] == [tick.label for tick in plot.x_ticks]
    assert [label.get_text() for label in axes.get_yticklabels()] == [tick.label for tick in plot.y_ticks]
    assert np.asarray(mark.get_xdata()).tolist() == [300, 300] and axes.get_xlabel() == "images seen; dotted: warning"


def test_numbers_are_short_and_those_of_an_axis_alike() -> None:
    assert [short(value) for value in (0.4321, 250, 1234, 83_200, 1.5e6)] == ["0.432", "250", "1,234", "83.2k", "1.5M"]
    assert [short(value, 12_500) for value in ticks(0, 12_000, 5)][:3] == ["0", "2.5k", "5k"]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_beside_it_and_shows_what_it_is_told_as_text(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run", [row(100), row(200)], grids=(0, 100, 200), data__shards="<script>alert(1)</script>"
    )
    RunFolder(run).write_status("failed", 200, "<b>bold</b> & 'quoted'", {})
    page = render_page([read_run(run)])
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|https?://', page)
    assert "<script>alert" not in page
    assert "<b>bold" not in page
    assert len(pictures_on(page)) == 7


def test_runs_on_the_same_images_share_one_real_grid_and_names_are_told_apart(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / part / "run", [row(100)], grids=(100,))) for part in ("a", "b")]
    page = render_page(runs)
    assert page.count("Real images of the data set") == 1
    assert str(tmp_path / "a" / "run") in page


def test_a_long_run_with_large_grids_stays_below_five_megabytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [row(100 * n) for n in range(1, 60)], grids=(0,))
    folder = RunFolder(run)
    save_noise(folder.grid(0), 700)  # noise compresses worse than any drawing
    content = folder.grid(0).read_bytes()
    for number in range(60):
        folder.grid(100 * number).write_bytes(content)
        folder.ema_grid(100 * number).write_bytes(content)
    page = render_page([read_run(run)])
    assert len(page) < 5_000_000
    assert 60 < len(pictures_on(page)) < 120


# --- signs of collapse ------------------------------------------------------------------------------------------------

COLLAPSED = {"narrow": "the drawn images vary 0.01 times", "generator_loss": "<b>grown</b> to 200"}


def make_collapsed(folder: Path, status: Status = "done") -> Path:
    run = make_run(folder, [row(100), row(200)], grids=(0, 200))
    RunFolder(run).write_status(status, 200, "", COLLAPSED)
    return run


@pytest.mark.parametrize(
    ("status", "chip", "title"),
    [
        ("done", "done, with warnings", "This run ended with signs of collapse."),
        ("running", "running, with warnings", "This run shows signs of collapse."),
    ],
)
def test_a_collapsed_run_says_so_above_everything_else(tmp_path: Path, status: Status, chip: str, title: str) -> None:
    page = render_page([read_run(make_collapsed(tmp_path / "run", status))])
    assert f'<span class="status {status} warned">{chip}</span>' in page
    banner = page[page.index('class="banner"') : page.index('class="facts"')]
    assert title in banner
    assert "<b>narrow</b>: the drawn images vary 0.01 times" in banner
    assert "<b>generator loss</b>: &lt;b&gt;grown" in banner


def test_beside_others_a_collapsed_run_alone_carries_the_banner(tmp_path: Path) -> None:
    healthy, collapsed = make_run(tmp_path / "healthy", [row(100)]), make_collapsed(tmp_path / "collapsed")
    page = render_page([read_run(healthy), read_run(collapsed)])
    assert page.count('class="banner"') == 1
    assert page.index('<span class="status done">done</span>') < page.index('class="banner"')
    assert "done, with warnings" in page


def test_the_picture_of_a_collapsed_run_has_a_banner_too(tmp_path: Path) -> None:
    pictures = []
    for warnings in ({}, COLLAPSED):
        run = make_run(tmp_path / "run", [row(100), row(200)], grids=(0, 200))
        RunFolder(run).write_status("done", 200, "", warnings)
        pictures.append(Image.open(io.BytesIO(draw_summary([read_run(run)]))).convert("RGB"))
    healthy, collapsed = pictures
    assert collapsed.height > healthy.height
    alarm = ImageColor.getrgb(LIGHT["alarm"])
    assert [(np.asarray(picture) == alarm).all(axis=-1).mean() > 0.02 for picture in pictures] == [False, True]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, []),  # of a version that knew no warnings
        ({"warnings": None}, []),
        ({"warnings": "narrow"}, []),
        ({"warnings": ["narrow"]}, [("narrow", "")]),
        ({"warnings": ["narrow"], "warning_texts": ["x"]}, [("narrow", "")]),
        ({"warnings": ["narrow"], "warning_texts": {"narrow": "few"}}, [("narrow", "few")]),
    ],
)
def test_warnings_are_read_without_trust(
    tmp_path: Path, status: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    run = make_run(tmp_path / "run", [row(100)])
    (run / "status.json").write_text(json.dumps({"status": "done"} | status))
    record = read_run(run)
    assert [(sign.kind, sign.text) for sign in record.warnings] == expected
    assert (record.verdict == "done") == (not expected)
    assert render_page([record])
