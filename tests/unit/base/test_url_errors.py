"""What an error of a service's library means: a file that is not there, no access, or a failure that may pass."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dcgan_dist.base.urls import _hopeless


@dataclass
class Response:
    status_code: int


class HubError(OSError):
    """As huggingface_hub's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status} for a URL")
        self.response = Response(status)


class WithStatus(Exception):
    """As aiohttp's, with `status`, and gcsfs's, with `code`."""

    def __init__(self, **status: int) -> None:
        super().__init__(str(status))
        self.__dict__.update(status)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "means"),
    [
        (FileNotFoundError("s3"), "no such file"),
        (caused(FileNotFoundError("a repository"), HubError(404)), "no such file"),
        (caused(FileNotFoundError("a private repository"), HubError(401)), "access is denied"),
        (caused(FileNotFoundError("http"), WithStatus(status=404)), "no such file"),
        (caused(FileNotFoundError("http"), WithStatus(status=500)), ""),
        (caused(FileNotFoundError("http"), ConnectionResetError()), ""),
        (HubError(503), ""),
        (WithStatus(code=403), "access is denied"),
        (WithStatus(status=401), "access is denied"),
        (PermissionError("s3"), "access is denied"),
        (ConnectionRefusedError(), ""),
    ],
    ids=str,
)
def test_only_what_can_pass_is_tried_again(error: Exception, means: str) -> None:
    assert means in _hopeless(error)
    assert bool(_hopeless(error)) == bool(means)
