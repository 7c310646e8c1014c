"""Sources and outputs behind URLs: a source is fetched before the work, an output is uploaded after it.

What is fetched, and what is not uploaded yet, lies in the user's cache folder until the command has succeeded: given
again, it goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.urls import Remote, cache_home, in_threads, is_url
from dcgan_dist.base.waiting import progress_bar
from dcgan_dist.data.shard_format import MANIFEST_NAME, index_name, read_manifest


def place(text: str) -> Path | str:
    """An option's value that is a path or a URL."""
    return text if is_url(text) else Path(text)


@contextlib.contextmanager
def local_source(source: Path | str) -> Iterator[Path]:
    """The path of a source; one behind a URL is fetched first, and removed after the block. UserError, OSError."""
    if isinstance(source, Path):
        yield source
        return
    copy = _staging("source", source)
    _fetch(source, copy)
    yield copy
    shutil.rmtree(copy.parent, ignore_errors=True)


@contextlib.contextmanager
def local_output(out: Path | str) -> Iterator[Path]:
    """The folder to write shards into; if they belong behind a URL, they are uploaded after the block, manifest last.

    Raises UserError if there are shards already or the URL cannot be written to, and OSError.
    """
    if isinstance(out, Path):
        yield out
        return
    remote = Remote(out)
    if remote.read(MANIFEST_NAME) is not None:
        manifest = read_manifest(out)
        what = f"{manifest.samples} images in {len(manifest.shards)} shards"
        raise UserError(f"--out {out}: there are {what} already; remove its {MANIFEST_NAME}, or choose another URL")
    folder = _staging("out", out)
    yield folder
    _upload(folder, remote)
    shutil.rmtree(folder.parent, ignore_errors=True)


def _staging(purpose: str, url: str) -> Path:
    """Where the local copy for a URL lies; it is called as the URL ends, because data sets are named so."""
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache_home() / f"{purpose}-{key}" / (PurePosixPath(urlsplit(url).path).name or urlsplit(url).netloc)


def _fetch(url: str, copy: Path) -> None:
    """Fetches a file, or all files of a folder, except those that are there already."""
    remote = Remote(url)
    size = remote.size()
    files = {"": size} if size is not None else remote.files()
    if not files:
        raise UserError(f"--source {url}: no such file or folder")
    print(f"{url}: fetching {len(files)} files, {sum(files.values()) / 2**30:.2f} GiB, to {copy}", flush=True)
    with progress_bar("fetching", len(files), "files") as advance:

        def fetch(name: str) -> None:
            path = copy / name if name else copy
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                remote.fetch(name, files[name], file)
            advance(1)

        in_threads(fetch, list(files))


def _upload(folder: Path, remote: Remote) -> None:
    """Uploads the shards that are not there yet, and then the manifest."""
    manifest = read_manifest(folder)
    print(f"{remote.url}: uploading {len(manifest.shards)} shards", flush=True)
    with progress_bar("uploading", len(manifest.shards), "shards") as advance:
        for shard in manifest.shards:
            done = folder / f".{shard.file}.uploaded"  # by the same checksum: the seed may be another one this time
            if not done.exists() or done.read_text() != shard.sha256:
                remote.upload(folder / shard.file, shard.file)
                remote.upload(folder / index_name(shard.file), index_name(shard.file))
                done.write_text(shard.sha256)
            advance(1)
    remote.upload(folder / MANIFEST_NAME, MANIFEST_NAME)
    print(f"{remote.url}: done, {manifest.samples} images in {len(manifest.shards)} shards")
