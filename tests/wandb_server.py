"""A small server on the loopback address that answers as W&B's does, or misbehaves in one way."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BUCKET = {
    "id": "UnVuOjE=",
    "name": "abcd1234",
    "displayName": "name-of-run",
    "sweepName": None,
    "historyLineCount": 0,
    "config": "{}",
    "project": {"id": "UHJvamVjdDox", "name": "faces", "entity": {"id": "RW50aXR5OjE=", "name": "someone"}},
}


class FakeServer(ThreadingHTTPServer):
    """Answers well, or as `status` says from the moment it is set.

    A number: with that status; None: hangs up; "silent": never; "viewer only": well, but starts no run.
    """

    daemon_threads = True
    status: int | str | None = 200

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode(errors="replace")
        asked = json.loads(body) if self.path == "/graphql" else {}
        query = " ".join(asked.get("query", "").split())
        self.server.asked.append(f"{self.path} {query[:40]}".strip())
        if self.server.status == "viewer only" and "viewer" not in query:
            self.server.closing.wait(120)
        self._answer(_data(query, asked.get("variables") or {}, self.server.url))

    def _answer(self, content: dict[str, Any]) -> None:
        status = self.server.status
        if status == "viewer only":
            status = 200
        if status == "silent":
            self.server.closing.wait(120)
            return
        if status is None:
            linger = struct.pack("ii", 1, 0)  # the connection is reset, not closed
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
            return
        body = json.dumps(content if status == 200 else {"error": "no"}).encode()
        self.send_response(int(status))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing."""


def _data(query: str, variables: dict[str, Any], url: str) -> dict[str, Any]:
    if "createRunFiles" in query:
        files = [{"name": name, "uploadUrl": f"{url}/upload/{name}"} for name in variables["files"]]
        return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
    if "upsertBucket" in query:
        return {"data": {"upsertBucket": {"bucket": BUCKET, "inserted": True}}}
    if "viewer" in query:
        viewer = {"id": "1", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
        return {"data": {"viewer": viewer, "serverInfo": None}}
    if "bucket(" in query:
        return {"data": {"model": {"bucket": None}}}
    return {"data": {}}


@contextlib.contextmanager
def wandb_server(status: int | str | None = 200) -> Iterator[FakeServer]:
    """The server, running; it ends with the block."""
    server = FakeServer()
    server.status = status
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
