"""The cache of tars behind a URL: what is fetched, what is kept, and what is said of a server that fails."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcgan_dist.base import urls
from dcgan_dist.base.errors import UserError
from dcgan_dist.base.urls import Remote, Unreachable, _without_secrets, in_threads, problem_of_url
from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.data.fetched_shards import FetchedShards
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_cache import NOT_SOON, NOW, SOON, ShardCache
from dcgan_dist.data.shard_format import Manifest, ShardError, read_manifest, write_manifest
from tests.shard_folders import jpeg, write_shards
from tests.url_server import BadServer, folder_app, serving

SHARDS = 4


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """Four shards of two images each."""
    folder, parts = tmp_path / "origin", []
    folder.mkdir()
    for number in range(SHARDS):
        part = tmp_path / f"part-{number}"
        manifest = write_shards(part, {f"{number}{key}": jpeg(40, 40, seed=number) for key in "ab"}).manifest
        for suffix in (".tar", ".idx"):
            name = manifest.shards[0].file.replace(".tar", suffix)
            shutil.move(part / name, folder / name.replace("000000", f"{number:06d}"))
        (shard,) = manifest.shards
        parts.append(type(shard)(f"celeba-all-{number:06d}.tar", *list(vars(shard).values())[1:]))
    write_manifest(folder, Manifest("celeba", "all", 0, 2 * SHARDS, (40, 40), (40, 40), (), tuple(parts)))
    return folder


@pytest.fixture
def server(origin: Path) -> Iterator[BadServer]:
    """A server of these shards."""
    with serving(folder_app(origin)) as server:
        yield server


def open_cache(server: BadServer, folder: Path, limit: int | None = None, patience: float = 60) -> ShardCache:
    url = f"http://127.0.0.1:{server.port}"
    return ShardCache(Remote(url, patience), read_manifest(url), folder, limit)


def tars(folder: Path) -> list[int]:
    return sorted(int(path.stem[-6:]) for path in folder.glob("*.tar"))


def room_for(cache: ShardCache, count: int) -> int:
    """Bytes for the indices and so many tars."""
    small = sum(path.stat().st_size for path in cache.folder.iterdir() if path.suffix in (".idx", ".json"))
    return small + count * cache.manifest.shards[0].bytes


def test_a_half_fetched_tar_is_continued_where_it_ended(server: BadServer, origin: Path, tmp_path: Path) -> None:
    cache = open_cache(server, tmp_path / "cache")
    shard = cache.manifest.shards[1]
    half = (origin / shard.file).read_bytes()[: shard.bytes // 2]
    (cache.folder / f".{shard.file}.part").write_bytes(half)
    assert cache.path(1).read_bytes() == (origin / shard.file).read_bytes()
    assert server.ranges == [f"bytes={len(half)}-{shard.bytes - 1}"]


def test_half_of_another_file_is_noticed_and_fetched_anew(server: BadServer, origin: Path, tmp_path: Path) -> None:
    cache = open_cache(server, tmp_path / "cache")
    shard = cache.manifest.shards[0]
    (cache.folder / f".{shard.file}.part").write_bytes(bytes(1000))
    assert cache.path(0).read_bytes() == (origin / shard.file).read_bytes()
    assert len(server.ranges) == 2


@pytest.mark.parametrize("change", ["flip", "truncate", "remove"])
def test_a_tar_that_is_not_the_manifests_is_named_and_never_kept(
    change: str, server: BadServer, origin: Path, tmp_path: Path
) -> None:
    cache = open_cache(server, tmp_path / "cache")
    tar = origin / cache.manifest.shards[2].file
    content = tar.read_bytes()
    tar.unlink()
    if change != "remove":
        tar.write_bytes(content[:-512] if change == "truncate" else content[:600] + b"\xff" + content[601:])
    with pytest.raises(ShardError, match=f"http.*{tar.name}: (damaged at its source|missing|.* bytes long)"):
        cache.path(2)
    assert tars(cache.folder) == []


def test_what_is_needed_last_is_thrown_out(server: BadServer, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache = open_cache(server, folder, room_for(open_cache(server, folder), 2))
    for urgency, number in ((NOW, 0), (SOON, 1), (NOT_SOON, 2), (NOW, 3)):
        cache.want([number], urgency)
    for number in (2, 1, 0):
        cache.path(number)
    assert tars(folder) == [0, 1]
    cache.path(3)
    assert tars(folder) == [0, 3]


def test_a_limit_that_is_lower_than_before_is_kept_from_the_start(server: BadServer, tmp_path: Path) -> None:
    cache = open_cache(server, tmp_path)
    for number in range(SHARDS):
        cache.path(number)
    open_cache(server, tmp_path, room_for(cache, 2))
    assert len(tars(tmp_path)) == 2


def test_what_another_process_needs_now_stays_until_it_is_read(server: BadServer, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    limit = room_for(open_cache(server, folder), 1)
    one, other = open_cache(server, folder, limit), open_cache(server, folder, limit)
    other.want([0], NOW)
    other.path(0)
    fetching = threading.Thread(target=one.path, args=(1,), daemon=True)
    fetching.start()
    time.sleep(0.3)
    assert tars(folder) == [0]
    other.want([0], NOW, -1)
    fetching.join(20)
    assert tars(folder) == [1]


def test_what_a_dead_process_wanted_and_began_is_in_nobodys_way(server: BadServer, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cache = open_cache(server, folder, room_for(open_cache(server, folder), 1))
    (folder / ".wanted.1.1").write_bytes(bytes([NOW] * SHARDS))
    (folder / f".{cache.manifest.shards[3].file}.part").write_bytes(bytes(10))
    cache.want([1], NOW)
    cache.path(1)
    assert tars(folder) == [1] and not list(folder.glob(".*.part")) and not (folder / ".wanted.1.1").exists()


def test_a_limit_below_one_tar_is_refused(server: BadServer, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"data.cache_limit_gib = .*: a tar of http.* take .* GiB; allow at least"):
        open_cache(server, tmp_path / "cache", 1000)


def test_many_readers_fetch_a_tar_once(server: BadServer, tmp_path: Path) -> None:
    caches = [open_cache(server, tmp_path / "cache") for _ in range(4)]
    fetched: list[Path] = []
    in_threads(lambda number: fetched.append(caches[number // SHARDS].path(number % SHARDS)), range(4 * SHARDS))
    assert len(server.ranges) == SHARDS


def test_what_is_there_already_is_checked_and_only_the_damaged_is_fetched_again(
    server: BadServer, origin: Path, tmp_path: Path
) -> None:
    config = parse_arguments([f"--data.shards=http://127.0.0.1:{server.port}", f"--data.cache_dir={tmp_path}"]).data
    tar = Path()
    for requests, damage in ((SHARDS, False), (SHARDS, True), (SHARDS + 1, False)):
        shards = FetchedShards(config, read_manifest(config.shards), 1, 60.0, lambda: None)
        shards.verify(0, 1)
        assert len(list(shards.arriving([range(2 * SHARDS)]).batches())) == 1
        assert len(server.ranges) == requests
        if damage:
            tar = shards.folder / shards.manifest.shards[1].file
            tar.write_bytes(bytes(tar.stat().st_size))
    assert tar.read_bytes() == (origin / tar.name).read_bytes()


def test_images_arrive_as_they_are_whatever_the_limit(server: BadServer, origin: Path, tmp_path: Path) -> None:
    local = MappedShards(origin, read_manifest(origin))
    for folder, limit in (("all", None), ("few", 0.00002)):
        arguments = [f"--data.shards=http://127.0.0.1:{server.port}", f"--data.cache_dir={tmp_path / folder}"]
        config = parse_arguments([*arguments, *([f"--data.cache_limit_gib={limit}"] if limit else [])]).data
        shards = FetchedShards(config, read_manifest(config.shards), 1, 60.0, lambda: None)
        assert shards.cache.is_limited == bool(limit)
        asked = [[7, 0, 3], [3, 3, 5], [1], [2, 6]] * 8
        images = shards.arriving(asked)
        for batch, wanted in zip(images.batches(), asked, strict=True):
            assert list(batch) == wanted
            assert all(bytes(images.jpeg(sample)) == bytes(local.jpeg(sample)) for sample in wanted)
        assert shards.name(5) == f"{config.shards}/celeba-all-000002.tar, image 2b"


def test_a_server_that_comes_back_is_waited_for(
    server: BadServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "SECONDS_BEFORE_A_WORD", 0.2)
    cache = open_cache(server, tmp_path / "cache")
    server.stop()
    threading.Timer(1.0, server.start).start()
    assert cache.path(0).exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"waiting for {cache.remote.url}/celeba-all-000000.tar (") and "until" in line


def test_a_server_that_does_not_come_back_is_given_up(server: BadServer, tmp_path: Path) -> None:
    cache = open_cache(server, tmp_path / "cache", patience=1.0)
    server.stop()
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:\d+/celeba-all-000000.tar: no answer for \d seconds \("):
        cache.path(0)


def test_a_url_without_a_manifest_is_refused_in_one_line(server: BadServer) -> None:
    with pytest.raises(ShardError, match=r"^http.*/none: there is no manifest.json"):
        read_manifest(f"http://127.0.0.1:{server.port}/none")


@pytest.mark.parametrize(
    "url", ["https://me:pass1234@host/x", "s3://key:pass1234@bucket/x", "https://host/x?t=pass1234"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UserError, match=r"data.shards: the URL has credentials") as caught:
        parse_arguments([f"--data.shards={url}"])
    assert "pass1234" not in str(caught.value)
    assert not problem_of_url("abfs://container@account.dfs.core.windows.net/x")
    assert not problem_of_url("hf://datasets/me/faces@main/train")


def test_messages_hide_what_secret_variables_hold() -> None:
    environment = {"AWS_SECRET_ACCESS_KEY": "abcd1234", "HF_TOKEN": "hf_xyz", "HOME": "/home/me"}
    assert _without_secrets("abcd1234 of hf_xyz in /home/me", environment) == "*** of *** in /home/me"
