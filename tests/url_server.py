"""Servers on the loopback address that behave badly when told to: moto's of S3, and a plain one of a folder."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
FAULTS = ("500", "cut", "drop", "slow")


class Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log(self, type: str, message: str, *args: object) -> None:
        """Says nothing."""


class BadServer:
    """Serves an application over a real socket, and spoils requests for tars as `spoil` says."""

    def __init__(self, app: App) -> None:
        self.spoil: Callable[[int], str] = lambda number: ""
        """From the number of a request for a tar, one of FAULTS or nothing."""
        self.requests: Counter[str] = Counter()
        """Answered requests by method and name."""
        self.ranges: list[str] = []
        """The ranges that requests for tars asked for."""
        self._app, self._number, self._lock = app, 0, threading.Lock()
        self._server: BaseWSGIServer | None = None
        self.start(0)
        assert self._server
        self.port = self._server.server_port

    def start(self, port: int | None = None) -> None:
        """Begins to answer, again on the same port."""
        self._server = make_server("127.0.0.1", self.port if port is None else port, self._answer, True, 1, Quiet)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Answers no more: connections are refused."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, environment: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        name = environment["PATH_INFO"].rsplit("/", 1)[-1]
        fault = ""
        if name.endswith(".tar") and environment["REQUEST_METHOD"] == "GET":
            self.ranges.append(environment.get("HTTP_RANGE", ""))
            fault = self._next_fault()
        if fault == "500":
            respond("500 Internal Server Error", [("Content-Length", "0")])
            return []
        if fault == "drop":
            respond("200 OK", [("Content-Length", "1")])
            environment["werkzeug.socket"].shutdown(2)
            return []
        if fault == "slow":
            time.sleep(1.0)
        self.requests[f"{environment['REQUEST_METHOD']} {name}"] += fault != "cut"
        answer = self._app(environment, respond)
        return _half(answer) if fault == "cut" else answer

    def _next_fault(self) -> str:
        with self._lock:
            self._number += 1
            return self.spoil(self._number)


def _half(answer: Iterable[bytes]) -> Iterator[bytes]:
    content = b"".join(answer)
    yield content[: len(content) // 2]
    raise ConnectionError("cut")


def folder_app(folder: Path) -> App:
    """Files of a folder, whole or a range of bytes."""

    def app(environment: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
        path = folder / environment["PATH_INFO"].lstrip("/")
        if not path.is_file():
            respond("404 Not Found", [("Content-Length", "0")])
            return []
        content, status = path.read_bytes(), "200 OK"
        headers = [("Accept-Ranges", "bytes")]
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", environment.get("HTTP_RANGE", "")):
            first, last = int(found[1]), int(found[2] or len(content) - 1)
            headers.append(("Content-Range", f"bytes {first}-{last}/{len(content)}"))
            content, status = content[first : last + 1], "206 Partial Content"
        respond(status, [*headers, ("Content-Length", str(len(content)))])
        return [] if environment["REQUEST_METHOD"] == "HEAD" else [content]

    return app


def s3_app() -> App:
    """moto's S3."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    return DomainDispatcherApplication(create_backend_app)


@contextlib.contextmanager
def serving(app: App) -> Iterator[BadServer]:
    """A server that runs as long as the block."""
    server = BadServer(app)
    try:
        yield server
    finally:
        server.stop()


def s3_environment(server: BadServer) -> dict[str, str]:
    """The usual variables, for a server of S3."""
    return {
        "AWS_ACCESS_KEY_ID": "key-of-the-test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
    }


def put_into_bucket(server: BadServer, folder: Path, bucket: str) -> str:
    """Uploads a folder to a new bucket; returns its URL."""
    import boto3

    variables = s3_environment(server)
    client = boto3.client(
        "s3",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name=variables["AWS_DEFAULT_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=bucket)
    for path in sorted(folder.iterdir()):
        if path.is_file():
            client.upload_file(str(path), bucket, f"faces/{path.name}")
    return f"s3://{bucket}/faces"
