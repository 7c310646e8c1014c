"""The study of recipes: what it takes, what it still has to do, and how it shows what came out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.recipes.__main__ import RECIPES
from benchmarks.recipes.outcome import Spread, as_json, outcomes
from benchmarks.recipes.page import render
from benchmarks.recipes.recipe import Recipe, assert_usable, chosen, read_recipes
from benchmarks.recipes.study import Study, Trial, next_command
from benchmarks.recipes.table import header, rows
from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import append_row
from dcgan_dist.command_line.train_config import parse_arguments, write_yaml
from dcgan_dist.run.folder import RunFolder

PAPER, HINGE = Recipe("paper", {}), Recipe("hinge", {"train.loss": "hinge"})


def study_in(folder: Path, **changes: object) -> Study:
    options = {
        "out": folder,
        "shards": folder / "shards",
        "image_size": 32,
        "images": 400,
        "points": 2,
        "seeds": (0, 1),
        "metrics": ("swd", "ms_ssim"),
        "score_images": 64,
        "weights": (),
        "for_all": {},
        "ranks": 1,
    }
    return Study(**(options | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("file", [RECIPES, RECIPES.with_name("recipes_drawn_faces.yaml")], ids=lambda file: file.stem)
def test_every_recipe_of_a_file_can_be_trained(file: Path, tmp_path: Path) -> None:
    for_all, recipes = read_recipes(file)
    assert len(recipes) > 3
    assert study_in(tmp_path, for_all=for_all).trials(recipes)  # none sets what is the study's
    for recipe in recipes:
        assert_usable(recipe, for_all)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- hinge", "a line for each recipe"),
        ("hinge: train.loss", "'train.loss' is not understood"),
        ("hinge: train.loss=hinge train.loss=bce", "train.loss is set twice"),
        ("hinge:\nhinge:", "again on line 2"),
        ("a/b: train.loss=hinge", "names a folder"),
        ("hinge: 'optim.beta1=\"0'", "recipe hinge"),
        ("hinge: {train: {loss: hinge}}", "a line for each recipe"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_lists_no_recipes_is_refused_in_one_line(text: str | None, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "recipes.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_recipes(file)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_are_those_of_the_file_or_those_that_are_named() -> None:
    known = [PAPER, HINGE]
    assert chosen([], known) == known
    assert chosen([["hinge"], ["quick", "optim.generator_lr=4e-4"]], known) == [
        HINGE,
        Recipe("quick", {"optim.generator_lr": "4e-4"}),
    ]
    for asked, expected in (([["hing"]], "it has paper, hinge"), ([["hinge"], ["hinge"]], "stands twice")):
        with pytest.raises(UserError, match=expected):
            chosen(asked, known)


@pytest.mark.parametrize("key", ["train.total_images", "run.seed", "data.shards", "data.crop", "evaluate.metric"])
def test_a_recipe_may_not_change_what_makes_runs_comparable(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"recipe odd: {key} is set by --"):
        study_in(tmp_path).trials([Recipe("odd", {key: "1"})])


def test_settings_that_training_would_refuse_are_told_with_the_recipes_name() -> None:
    with pytest.raises(UserError, match=r"recipe odd: train\.lost: .* did you mean train\.loss"):
        assert_usable(Recipe("odd", {"train.lost": "hinge"}), {})
    with pytest.raises(UserError, match=r"recipe paper: optim\.beta1 = 2"):
        assert_usable(PAPER, {"optim.beta1": "2"})


def write_run(study: Study, trial: Trial, end: dict[str, float], best: dict[str, float], at_best: int = 200) -> None:
    """A run that is done, as its folder has it, scored at its end (400 images) and at its best."""
    folder = RunFolder(trial.folder)
    folder.create(write_yaml(parse_arguments(trial.arguments)))
    folder.write_status("done", 400, "", {})
    folder.write_environment({"device_name": "a CPU", "torch": "2", "dataset": "drawn", "dataset_images": 256})
    for images_seen in (200, 400):
        append_row(folder.metrics, {"images_seen": images_seen, "speed/images_per_second": 100.0})
        value = best["swd"] if images_seen == at_best else 99.0
        row = {"images_seen": images_seen, "metric": "swd", "value": value, "protocol": {}, "protocol_key": "during"}
        append_row(folder.scores, row | {"during_training": True})
        Image.new("RGB", (8, 8), "red").save(folder.ema_grid(images_seen))
        folder.checkpoint(images_seen).touch()
    Image.new("RGB", (8, 8), "blue").save(folder.real_grid)
    for images_seen, scores in ((at_best, best), (400, end)):
        write_scores(study, trial, images_seen, scores)


def write_scores(study: Study, trial: Trial, images_seen: int, scores: dict[str, float]) -> None:
    for metric, value in scores.items():
        row = {"images_seen": images_seen, "metric": metric, "value": value, "floor": 6.0}
        protocol = {"metric": metric, "num_images": study.score_images, "seed": 0}
        append_row(RunFolder(trial.folder).scores, row | {"protocol": protocol, "protocol_key": metric})


def test_a_trial_needs_training_then_scores_of_its_end_and_of_its_best_moment_then_nothing(tmp_path: Path) -> None:
    study = study_in(tmp_path, seeds=(0,))
    (trial,) = study.trials([PAPER])
    command = next_command(study, trial)
    assert command and "dcgan_dist.train" in command
    write_run(study, trial, {}, {"swd": 20.0})
    end = next_command(study, trial)
    assert end and str(RunFolder(trial.folder).checkpoint(400)) in end
    write_scores(study, trial, 400, {"swd": 30.0, "ms_ssim": 0.3})
    best = next_command(study, trial)
    assert best and str(RunFolder(trial.folder).checkpoint(200)) in best
    write_scores(study, trial, 200, {"ms_ssim": 0.2})
    assert next_command(study, trial) is None
    more = next_command(study_in(tmp_path, seeds=(0,), score_images=128), trial)
    assert more and more[-3:] == ["128", "--seed", "0"]


def test_a_finished_run_of_other_settings_is_not_taken_for_the_recipes(tmp_path: Path) -> None:
    study = study_in(tmp_path, seeds=(0,))
    (before,) = study.trials([HINGE])
    write_run(study, before, {}, {"swd": 20.0})
    before.check()
    (now,) = study.trials([Recipe("hinge", {"train.loss": "hinge", "optim.beta2": "0.99"})])
    with pytest.raises(UserError, match=r"was trained with optim\.beta2 = 0\.999, and recipe hinge now has 0\.99"):
        now.check()


def test_the_outcome_is_the_mean_and_the_ends_over_the_seeds_of_a_recipe(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    trials = study.trials([PAPER, HINGE])
    assert [trial.name for trial in trials] == ["paper, seed 0", "hinge, seed 0", "paper, seed 1", "hinge, seed 1"]
    for trial in trials[:3]:  # the last did not begin
        swd = 20.0 + 4 * trial.seed
        write_run(study, trial, {"swd": 2 * swd, "ms_ssim": 0.4}, {"swd": swd, "ms_ssim": 0.3})
    found = outcomes(study, trials)
    assert found[0].spread("swd", "best") == Spread((20.0, 24.0))
    assert rows(study, found) == [
        ["paper", "2 of 2", "22\n20 to 24", "44\n40 to 48", "0.3\n0.3 to 0.3", "0.4\n0.4 to 0.4", "100"],
        ["hinge", "1 of 2", "20", "40", "0.3", "0.4", "100"],
    ]
    assert header(study, found)[3] == "swd end\nreal 6"
    result = json.loads(json.dumps(as_json(study, found)))
    assert result["recipes"]["paper"]["over the seeds"]["swd best"] == {"mean": 22.0, "lowest": 20.0, "highest": 24.0}
    assert result["recipes"]["hinge"]["runs"]["1"]["state"] == "not begun"
    assert result["recipes"]["paper"]["runs"]["1"]["end"] == {"images seen": 400, "swd": 48.0, "ms_ssim": 0.4}

    page = render(study, found)
    assert "prefers-color-scheme: dark" in page
    assert "3 of 4 runs done" in page
    assert page.count("data:image/png") == 4  # a grid for each run that began, and the real images
    assert not [word for word in ('src="http', 'href="http', "url(http", "<link") if word in page]
    assert page.count('class="band"') == 2
    assert page.count("<circle") == 4 * 3  # two scores at two moments, of three runs


def test_a_study_of_which_nothing_is_done_can_be_shown(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    found = outcomes(study, study.trials([PAPER, HINGE]))
    assert rows(study, found) == [["paper", "0 of 2", *[""] * 5], ["hinge", "0 of 2", *[""] * 5]]
    assert "0 of 4 runs done" in render(study, found)
