"""What people do wrong: each ends with status 2 and one line that says what to do, without a stack trace or a hang."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import EQUIVALENCE, GLOBAL_BATCH
from tests.running import (
    SMALL,
    Finished,
    assert_same_tensors,
    checkpoints,
    load_checkpoint,
    run_module,
    run_train,
    user_errors,
)


@dataclass(frozen=True)
class Place:
    """Where one wrong usage may spoil things: its own copies of good shards and of a finished run."""

    folder: Path
    good_shards: Path
    good_run: Path

    @property
    def shards(self) -> Path:
        return _copied(self.good_shards, self.folder / "shards")

    @property
    def run(self) -> Path:
        return _copied(self.good_run, self.folder / "run")


def _copied(source: Path, target: Path) -> Path:
    return target if target.exists() else Path(shutil.copytree(source, target))


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bit_in_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def going_on(place: Place, *changes: object) -> tuple[object, ...]:
    """The arguments with which the finished run would go on, but for `changes`."""
    more = ("--train.total_images", 1000)
    return (*EQUIVALENCE, *more, "--data.shards", place.good_shards, "--run.dir", place.run, *changes)


def anew(place: Place, *changes: object) -> tuple[object, ...]:
    """The arguments of a good new run, but for `changes`."""
    return (*SMALL, "--data.shards", place.shards, "--run.dir", place.folder / "new", *changes)


# --- each way to go wrong: the arguments for the trainer, and a word or two that its line must have -------------------


def unknown_setting(place: Place) -> tuple[object, ...]:
    """did you mean data.batch_size_per_rank"""
    return anew(place, "--data.batchsize_per_rank", 32)


def value_that_cannot_be(place: Place) -> tuple[object, ...]:
    """data.image_size = 48: must be one of"""
    return anew(place, "--data.image_size", 48)


def value_of_another_type(place: Place) -> tuple[object, ...]:
    """train.epochs = many: must be a number"""
    return anew(place, "--train.epochs", "many")


def configuration_that_is_not_there(place: Place) -> tuple[object, ...]:
    """give the path of a YAML file"""
    return anew(place, "--config", place.folder / "none.yaml")


def shards_that_are_not_there(place: Place) -> tuple[object, ...]:
    """make it with: python -m data_prep.celeba"""
    return anew(place, "--data.shards", place.folder / "none")


def edited_manifest(place: Place) -> tuple[object, ...]:
    """prepare the folder again"""
    path = place.shards / "manifest.json"
    path.write_text(path.read_text().replace('"split": "all"', '"split": "train"'))
    return anew(place)


def truncated_tar(place: Place) -> tuple[object, ...]:
    """000002.tar: truncated"""
    cut_in_half(sorted(place.shards.glob("*.tar"))[2])
    return anew(place)


def flipped_bit_in_a_tar(place: Place) -> tuple[object, ...]:
    """000001.tar: damaged"""
    flip_bit_in_the_middle(sorted(place.shards.glob("*.tar"))[1])
    return anew(place)


def batch_larger_than_the_data(place: Place) -> tuple[object, ...]:
    """has only 256; make it smaller"""
    return anew(place, "--data.batch_size_per_rank", 300)


def global_batch_that_changes_on_resume(place: Place) -> tuple[object, ...]:
    """set --data.global_batch_size 22 to go on"""
    return going_on(place, "--data.global_batch_size", GLOBAL_BATCH + 1)


def seed_that_changes_on_resume(place: Place) -> tuple[object, ...]:
    """run.seed is 7 and was 0"""
    return going_on(place, "--run.seed", 7)


def run_folder_below_a_file(place: Place) -> tuple[object, ...]:
    """cannot be written (Not a directory); choose another folder"""
    (place.folder / "file").write_text("in the way")
    return anew(place, "--run.dir", place.folder / "file" / "run")


def every_checkpoint_damaged(place: Place) -> tuple[object, ...]:
    """every checkpoint is damaged"""
    flip_bit_in_the_middle(checkpoints(place.run)[0])
    cut_in_half(checkpoints(place.run)[1])
    return going_on(place)


def no_resume_in_a_used_folder(place: Place) -> tuple[object, ...]:
    """choose another --run.dir"""
    return going_on(place, "--run.resume", "never")


def other_network_size_with_changes_accepted(place: Place) -> tuple[object, ...]:
    """model.base_channels"""
    return going_on(place, "--model.base_channels", 16, "--run.accept_changes", "true")


def seed_beyond_64_bits(place: Place) -> tuple[object, ...]:
    """run.seed"""
    return anew(place, "--run.seed", 2**64)


CASES: tuple[Callable[[Place], tuple[object, ...]], ...] = (
    unknown_setting,
    value_that_cannot_be,
    value_of_another_type,
    configuration_that_is_not_there,
    shards_that_are_not_there,
    edited_manifest,
    truncated_tar,
    flipped_bit_in_a_tar,
    batch_larger_than_the_data,
    global_batch_that_changes_on_resume,
    seed_that_changes_on_resume,
    run_folder_below_a_file,
    every_checkpoint_damaged,
    no_resume_in_a_used_folder,
    other_network_size_with_changes_accepted,
    seed_beyond_64_bits,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, shards: Path, finished_run: Path) -> Callable[[str], Place]:
    """A place of its own for each wrong usage."""

    def make(name: str) -> Place:
        return Place(tmp_path_factory.mktemp(name), shards, finished_run)

    return make


@pytest.fixture(scope="module")
def results(place: Callable[[str], Place]) -> Iterator[dict[str, Future[Finished]]]:
    """What became of each case on one rank. Two at a time, because each spends seconds on importing torch alone."""
    with ThreadPoolExecutor(2) as pool:
        yield {case.__name__: pool.submit(run_train, 1, *case(place(case.__name__))) for case in CASES}
        pool.shutdown(cancel_futures=True)


def assert_one_clear_line(result: Finished, expected: str) -> None:
    (line,) = user_errors(result)
    assert expected in line
    assert "dcgan_dist/" not in result.stderr.replace(line, ""), result.stderr  # no frame of ours in a stack trace


@pytest.mark.parametrize("case", CASES)
def test_one_rank_says_what_is_wrong(
    results: dict[str, Future[Finished]], case: Callable[[Place], tuple[object, ...]]
) -> None:
    result = results[case.__name__].result()
    assert case.__doc__
    assert_one_clear_line(result, case.__doc__)
    assert result.returncode == 2
    assert "Traceback" not in result.stdout + result.stderr


def fewer_images_than_ranks(place: Place) -> tuple[object, ...]:
    """2 ranks need at least one image each"""
    return anew(place, "--data.global_batch_size", 1)


@pytest.mark.parametrize("case", [flipped_bit_in_a_tar, fewer_images_than_ranks, every_checkpoint_damaged])
def test_two_ranks_say_it_once_and_end(
    place: Callable[[str], Place], case: Callable[[Place], tuple[object, ...]]
) -> None:
    result = run_train(2, *case(place(case.__name__)), timeout=60)
    assert case.__doc__
    assert_one_clear_line(result, case.__doc__)
    assert result.returncode == 1  # torchrun's own


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(place: Callable[[str], Place]) -> None:
    here = place("one_damaged")
    good, newest = load_checkpoint(checkpoints(here.run)[1]), checkpoints(here.run)[1]
    flip_bit_in_the_middle(newest)
    result = run_train(1, *EQUIVALENCE, "--data.shards", here.good_shards, "--run.dir", here.run)
    assert result.returncode == 0, result
    assert f"{newest}: damaged checkpoint" in result.stderr
    assert "220 images were seen before" in result.stderr
    again = load_checkpoint(newest)
    for part in ("generator", "discriminator", "ema", "optimizers", "metric_sums"):
        assert_same_tensors(again[part], good[part], part)


def test_a_web_page_saved_as_celeba_zip_is_named(tmp_path: Path) -> None:
    page = tmp_path / "img_align_celeba.zip"
    page.write_text("<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>")
    result = run_module("data_prep.celeba", "--source", page, "--out", tmp_path / "out")
    (line,) = user_errors(result)
    assert result.returncode == 2
    assert "web page" in line
    assert "Traceback" not in result.stdout + result.stderr
