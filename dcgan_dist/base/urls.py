"""Files behind URLs, read and written in pieces, with patience for a server that fails now and then.

fsspec knows the services (s3, gs, http, hf, ...) and finds credentials where each service's own tools look for them; it
is imported when a URL is opened.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.base.waiting import waiting_line

PIECE_BYTES = 8 << 20  # asked for at a time: what a broken connection can cost
PATIENCE_SECONDS = 120.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
SECONDS_BEFORE_A_WORD = 3.0
THREADS = 8  # requests at a time; one connection seldom fills the line
CONNECT_SECONDS, READ_SECONDS = 10, 30  # a server that says nothing for so long has failed

Result = TypeVar("Result")
Item = TypeVar("Item")


class Unreachable(UserError):
    """A server that has not answered properly for as long as one was ready to wait."""


def is_url(place: object) -> bool:
    """Whether a place is a URL, and not a path."""
    scheme, separator, _ = str(place).partition("://")
    return bool(separator) and scheme.isalnum()


def problem_of_url(url: str) -> str:
    """What is wrong with a URL before it is opened, without repeating it; empty if nothing is."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    if (at and (":" in user or parts.scheme in ("http", "https", "ftp"))) or parts.query:
        return "has credentials or a query in it, which would be written into files; give them by the environment"
    return "" if parts.netloc or parts.scheme == "file" else "names no server or bucket"


def cache_home() -> Path:
    """The folder of this user on this machine for what can be fetched again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dcgan_dist"


class Remote:
    """A folder behind a URL; threads may share it.

    A request that fails is repeated after growing pauses. One line says so. Raises UserError for what no repetition can
    mend, and Unreachable after `patience_seconds` without an answer.
    """

    def __init__(self, url: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        if problem := problem_of_url(url):
            raise UserError(f"a URL {problem}")
        self.url = url.rstrip("/")
        self._patience = patience_seconds
        self._files, self._root = _open(self.url)
        self._silent_since: float | None = None  # Unix time of the first failure since the last answer
        self._told = False

    def size(self, name: str = "") -> int | None:
        """Bytes of a file; None if it is none."""
        found = self._insist(name, lambda path: _none_if_missing(self._files.info, path))
        return None if found is None or found["type"] != "file" else int(found["size"])

    def files(self) -> dict[str, int]:
        """Names of all files below the folder, with their bytes."""
        found = self._insist("", lambda path: _none_if_missing(self._list, path)) or {}
        start = len(self._root) + 1
        return {name[start:]: size for name, size in sorted(found.items()) if len(name) > start}

    def _list(self, path: str) -> dict[str, int]:
        return {str(name): int(about["size"] or 0) for name, about in self._files.find(path, detail=True).items()}

    def read(self, name: str) -> bytes | None:
        """A small file; None if there is none of this name."""
        return self._insist(name, lambda path: _none_if_missing(self._files.cat_file, path))

    def fetch(self, name: str, size: int, into: IO[bytes]) -> None:
        """Appends to `into` what it lacks of a file of `size` bytes. Raises OSError as the disk does."""
        while (start := into.tell()) < size:
            end = min(start + PIECE_BYTES, size)
            piece = self._insist(name, lambda path, start=start, end=end: self._piece(path, start, end))
            into.write(piece)

    def _piece(self, path: str, start: int, end: int) -> bytes:
        piece = self._files.cat_file(path, start=start, end=end)
        if len(piece) > end - start:  # a server that knows no ranges sends the whole file
            piece = piece[start:end]
        if not piece:
            raise OSError("the file ends too early")
        return piece

    def upload(self, path: Path, name: str) -> None:
        """Writes a local file as `name`."""
        self._insist(name, lambda remote: self._files.put_file(str(path), remote))

    def _insist(self, name: str, request: Callable[[str], Result]) -> Result:
        """What a request about a file returns, sooner or later."""
        pause, where = FIRST_PAUSE_SECONDS, f"{self.url}/{name}".rstrip("/")
        while True:
            try:
                answer = request(f"{self._root}/{name}".rstrip("/"))
            except Exception as error:
                advice = _hopeless(error)
                told = error if advice else error.__cause__ or error
                why = _without_secrets(in_one_line(f"{type(told).__name__}: {told}", 160), os.environ)
                if advice:
                    raise UserError(f"{where}: {advice} ({why})") from None
                self._note_silence(where, why)
            else:
                self._note_answer()
                return answer
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _note_silence(self, where: str, why: str) -> None:
        now = time.time()
        began = self._silent_since = self._silent_since or now
        if now - began > self._patience:
            raise Unreachable(f"{where}: no answer for {now - began:.0f} seconds ({why}); is the service up?") from None
        if not self._told and now - began > SECONDS_BEFORE_A_WORD:
            self._told = True
            print(waiting_line(f"{where} ({why})", began, self._patience), file=sys.stderr, flush=True)

    def _note_answer(self) -> None:
        self._silent_since, self._told = None, False


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    for library in ("aiobotocore", "botocore"):
        logging.getLogger(library).setLevel(logging.WARNING)  # they tell where credentials were found
    try:
        import fsspec
        from fsspec.core import url_to_fs

        if url.startswith("http"):
            from aiohttp import ClientTimeout

            limits = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
            files = fsspec.filesystem("http", client_kwargs={"timeout": limits})
            return files, url
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": {"max_attempts": 1}}
        by_scheme = {
            "s3": {"config_kwargs": limits, "use_listings_cache": False},
            "file": {"auto_mkdir": True},
        }
        files, root = url_to_fs(url, **by_scheme.get(urlsplit(url).scheme, {}))
        return files, str(root).rstrip("/")
    except ImportError as error:
        package = {"gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}.get(
            urlsplit(url).scheme, "-c constraints.txt -e '.[urls]'"
        )
        raise UserError(
            f"{url}: needs a package that is not installed ({in_one_line(error, 160)}); pip install {package}"
        ) from None
    except ValueError as error:
        raise UserError(f"{url}: is no URL that can be opened ({in_one_line(error, 160)})") from None


def _none_if_missing(request: Callable[[str], Result], path: str) -> Result | None:
    try:
        return request(path)
    except FileNotFoundError as error:
        if _is_missing(error):
            return None
        raise


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error is about, where the libraries of the services keep it; None without one."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        status = getattr(one, "status", None) or getattr(response, "status_code", None) or getattr(one, "code", None)
        if isinstance(status, int):
            return status
    return None


def _is_missing(error: Exception) -> bool:
    """Whether the server says that there is no such file: fsspec says so of every http request that fails."""
    status, cause = _status(error), error.__cause__
    if status is not None or not isinstance(error, FileNotFoundError):
        return status == 404
    return not isinstance(cause, OSError) and not type(cause).__module__.startswith("aiohttp")


def _hopeless(error: Exception) -> str:
    """What to do about an error that would come again for ever; empty for those that may pass."""
    if _is_missing(error):
        return "there is no such file"
    if "Credentials" in type(error).__name__:
        return "no credentials were found; set them by the environment, as for the service's own tools"
    if isinstance(error, PermissionError) or _status(error) in (401, 403):
        return "access is denied, or there is no such place; check the URL and the credentials in the environment"
    return ""


def _without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """A message without the values of variables whose names say that they are secret."""
    for name, value in environment.items():
        if len(value) >= 4 and any(word in name.upper() for word in ("KEY", "SECRET", "TOKEN", "PASSWORD")):
            text = text.replace(value, "***")
    return text


def in_threads(work: Callable[[Item], None], items: Sequence[Item]) -> None:
    """Does the work on all items, several at a time. Raises the first exception once all threads have stopped.

    No thread outlives a process that ends meanwhile.
    """
    remaining, problems = deque(items), deque[BaseException]()

    def keep_working() -> None:
        while remaining and not problems:
            with contextlib.suppress(IndexError):
                item = remaining.popleft()
                try:
                    work(item)
                except BaseException as error:
                    problems.append(error)

    threads = [threading.Thread(target=keep_working, daemon=True) for _ in range(min(THREADS, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
