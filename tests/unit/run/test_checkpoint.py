"""Checkpoints on the disk: whole or absent, verified before use, the newest good one found again."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from dcgan_dist.base.errors import UserError
from dcgan_dist.config import DataConfig, ModelConfig, TrainConfig
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision
from dcgan_dist.run.checkpoint import Checkpointer, read_verified
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.run.retention import Wanted, checkpoint_name, kept
from dcgan_dist.run.trained import load_trained
from dcgan_dist.training.state import initial_state
from launch.before_run import newest_checkpoint
from tests.running import assert_same_tensors, load_checkpoint
from tests.saved_checkpoints import PATTERN, saved_at

ALONE = World(0, 1, 0, 1, torch.device("cpu"))


def checkpointer(folder: Path, keep_last: int = 3, keep_every_images: int = 0) -> Checkpointer:
    return Checkpointer(folder, keep_last, keep_every_images, ALONE)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with checkpoints at 100, 200 and 300 images."""
    folder = tmp_path / "checkpoints"
    for images_seen in (100, 200, 300):
        assert checkpointer(folder).save(saved_at(images_seen))
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- whole or absent --------------------------------------------------------------------------------------------------


def test_a_checkpoint_reads_back_as_it_was_written(saved: Path) -> None:
    loaded = checkpointer(saved).load_newest()
    assert loaded
    assert_same_tensors(loaded.contents(), saved_at(300).contents())
    assert_same_tensors(load_checkpoint(saved / "000000200.pt"), saved_at(200).contents())


def test_the_name_is_the_number_of_images_seen(saved: Path) -> None:
    assert names(saved) == ["000000100.pt", "000000200.pt", "000000300.pt"]


def test_every_command_finds_the_newest_by_number_beyond_nine_digits(tmp_path: Path) -> None:
    config = TrainConfig(data=DataConfig(image_size=32), model=ModelConfig(latent_size=8, base_channels=4))
    state = initial_state(config, ALONE, Precision("fp32", ALONE.device))
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    for images_seen in (999_999_936, 1_000_000_000, 10_000_000_000, 2_000_000_000):
        parts = state.parts() | {"config": config.as_dict(), "images_seen": images_seen}
        torch.save(saved_at(**parts).contents(), folder.checkpoints / checkpoint_name(images_seen))
    (folder.checkpoints / "99999999999 (copy).pt").touch()
    (folder.checkpoints / "\u0663.pt").touch()  # a digit, but not one of ours
    newest = checkpointer(folder.checkpoints).load_newest()
    assert newest and newest.images_seen == 10_000_000_000
    assert load_trained(tmp_path, ALONE.device).images_seen == 10_000_000_000
    assert newest_checkpoint(folder) == 10_000_000_000


def test_a_checkpoint_can_be_loaded_by_its_path(saved: Path) -> None:
    assert checkpointer(saved).load(saved / "000000100.pt").images_seen == 100


def test_what_is_written_in_the_background_is_the_state_at_that_moment(tmp_path: Path) -> None:
    keeper, state = checkpointer(tmp_path), saved_at(100, size=1_000_000)
    keeper.save_in_background(state)
    state.generator["layer.weight"].zero_()  # training goes on
    keeper.wait()
    loaded = load_checkpoint(tmp_path / "000000100.pt")
    assert torch.equal(loaded["generator"]["layer.weight"], saved_at(100, size=1_000_000).generator["layer.weight"])


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for images_seen in range(100, 1000, 100):
        checkpointer(tmp_path, keep_last=2).save(saved_at(images_seen))
    assert names(tmp_path) == ["000000800.pt", "000000900.pt"]


def test_milestones_are_kept_for_ever(tmp_path: Path) -> None:
    for images_seen in range(100, 1000, 100):
        checkpointer(tmp_path, keep_last=1, keep_every_images=400).save(saved_at(images_seen))
    assert {"000000400.pt", "000000800.pt", "000000900.pt"} <= set(names(tmp_path))
    assert not {"000000200.pt", "000000500.pt", "000000600.pt"} & set(names(tmp_path))


@pytest.mark.parametrize(
    ("keep_last", "milestones", "wanted", "expected"),
    [
        (1, 0, Wanted(), {500}),
        (2, 0, Wanted(), {400, 500}),
        (1, 200, Wanted(), {200, 400, 500}),
        (1, 0, Wanted(bests=[100, 300, 350]), {300, 500}),  # that of 350 was never saved
        (1, 0, Wanted(bests=[700]), {500}),
        (1, 0, Wanted(way_back=250), {200, 500}),
        (1, 0, Wanted(way_back=50), {500}),
        (9, 100, Wanted([100], 200), {100, 200, 300, 400, 500}),
    ],
)
def test_what_is_kept_follows_from_what_is_there(
    keep_last: int, milestones: int, wanted: Wanted, expected: set[int]
) -> None:
    assert kept([300, 100, 500, 400, 200], keep_last, milestones, wanted) == expected
    assert kept([], keep_last, milestones, wanted) == set()


def test_the_best_is_kept_until_a_better_one_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = checkpointer(tmp_path, keep_last=1)
    keeper.save(saved_at(100), Wanted(bests=[100]))
    keeper.save(saved_at(200), Wanted(bests=[100]))
    with monkeypatch.context() as patch:
        patch.setattr("torch.save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert not keeper.save(saved_at(300), Wanted(bests=[100, 300]))
    keeper.save(saved_at(400), Wanted(bests=[100, 300]))
    assert names(tmp_path) == ["000000100.pt", "000000400.pt"]
    keeper.save(saved_at(500), Wanted(bests=[100, 300, 500]))
    assert names(tmp_path) == ["000000500.pt"]


def test_the_way_back_before_a_collapse_is_kept(tmp_path: Path) -> None:
    keeper = checkpointer(tmp_path, keep_last=2)
    for images_seen, trusted in ((0, 0), (100, 0), (200, 0), (300, 0), (400, 150), (500, 350), (600, 350)):
        keeper.save(saved_at(images_seen), Wanted(way_back=trusted))
        assert min(keeper.saved()) <= trusted
    assert names(tmp_path) == ["000000300.pt", "000000500.pt", "000000600.pt"]


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Lets no file grow beyond `size` bytes, as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_is_told_and_leaves_the_older_checkpoints(
    saved: Path, caplog: pytest.LogCaptureFixture, background: bool
) -> None:
    keeper = checkpointer(saved)
    with largest_file(1_000_000):
        if background:
            keeper.save_in_background(saved_at(400, size=1_000_000))
            keeper.wait()
        else:
            assert not keeper.save(saved_at(400, size=1_000_000))
    assert "could not save a checkpoint at 400 images" in caplog.text
    assert names(saved) == ["000000100.pt", "000000200.pt", "000000300.pt"]
    assert keeper.save(saved_at(500))  # space was made
    loaded = keeper.load_newest()
    assert loaded
    assert loaded.images_seen == 500


# --- verified before use ----------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def lose_the_last_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit_of_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    place = content.index(torch.full((10,), PATTERN).numpy().tobytes())
    content[place + 21] ^= 4
    path.write_bytes(content)


def overwrite_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def save_something_else(path: Path) -> None:
    torch.save({"model": torch.zeros(3)}, path)


def save_a_bare_tensor(path: Path) -> None:
    torch.save(torch.zeros(3), path)


def save_another_version(path: Path) -> None:
    torch.save(saved_at(300).contents() | {"format_version": 99}, path)


DAMAGES: tuple[Callable[[Path], None], ...] = (
    truncate,
    lose_the_last_byte,
    empty,
    flip_a_bit_of_a_weight,
    overwrite_with_zeros,
    save_something_else,
    save_a_bare_tensor,
    save_another_version,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_it_taken(
    saved: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    damage(saved / "000000300.pt")
    with caplog.at_level(logging.WARNING):
        loaded = checkpointer(saved).load_newest()
    assert loaded
    assert loaded.images_seen == 200
    assert str(saved / "000000300.pt") in caplog.text
    assert "trying the one before it" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_asked_for_by_path_is_refused(saved: Path, damage: Callable[[Path], None]) -> None:
    path = saved / "000000200.pt"
    damage(path)
    with pytest.raises(UserError) as caught:
        checkpointer(saved).load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_would_go_unnoticed_by_torch(saved: Path) -> None:
    """The reason for looking at the checksums ourselves."""
    path = saved / "000000300.pt"
    flip_a_bit_of_a_weight(path)
    assert load_checkpoint(path)["images_seen"] == 300
    with pytest.raises(UserError, match="checksum of"):
        read_verified(path)


def test_a_folder_where_the_newest_was_deleted_goes_on_from_the_one_before(saved: Path) -> None:
    (saved / "000000300.pt").unlink()
    loaded = checkpointer(saved).load_newest()
    assert loaded
    assert loaded.images_seen == 200


def test_when_all_are_damaged_that_is_said_with_what_to_do(saved: Path) -> None:
    for path in saved.iterdir():
        truncate(path)
    with pytest.raises(UserError, match=r"every checkpoint is damaged .*000000300\.pt.*delete them to start"):
        checkpointer(saved).load_newest()


def test_what_a_crash_left_half_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".000000400.pt.4711.tmp").write_bytes(b"half")
    (tmp_path / "notes.pt").write_bytes(b"no number")
    keeper = checkpointer(tmp_path)
    assert keeper.newest_images_seen() is None
    assert keeper.load_newest() is None


def test_a_damaged_newest_checkpoint_still_tells_how_far_the_run_was(saved: Path) -> None:
    empty(saved / "000000300.pt")
    assert checkpointer(saved).newest_images_seen() == 300


def test_without_a_folder_there_is_no_checkpoint(tmp_path: Path) -> None:
    keeper = checkpointer(tmp_path / "none")
    assert keeper.newest_images_seen() is None
    assert keeper.load_newest() is None
