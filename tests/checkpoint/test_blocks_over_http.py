"""A block goes from its connection into its buffer, however the server sends it, or is refused or asked for again."""

import gzip
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import pytest

from halfbyte.checkpoint import patience
from halfbyte.checkpoint.header import serialize_header
from halfbyte.checkpoint.remote import RemoteFiles
from halfbyte.errors import CheckpointError

NAME = "model.safetensors"
BYTES = 300_000
CONTENT = serialize_header([("w", "U8", (BYTES,), BYTES)], {}) + np.random.default_rng(0).bytes(BYTES)

Send = Callable[[BaseHTTPRequestHandler, bytes, int], None]
"""What a server does with one part of a file, told how often blocks were asked for."""


@contextmanager
def serving(send: Send) -> Iterator[tuple[RemoteFiles, list[Any]]]:
    """A server with ranges whose bodies after the first are sent by `send`; its client, and the connections made."""
    connections: list[Any] = []
    times = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def setup(self) -> None:
            super().setup()
            connections.append(self.client_address)

        def do_GET(self) -> None:
            nonlocal times
            first, last = map(int, re.findall(r"\d+", self.headers["range"]))
            last = min(last, len(CONTENT) - 1)
            self.bounds = f"bytes {first}-{last}/{len(CONTENT)}"
            try:
                (send if times else plain)(self, CONTENT[first : last + 1], times)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            times += 1

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    files = RemoteFiles(f"http://127.0.0.1:{server.server_port}", lambda _: None, seconds=20)
    try:
        files.header(NAME)
        yield files, connections
    finally:
        files.close()
        server.shutdown()
        server.server_close()


def begin(to: Any, length: int | None, **headers: str) -> None:
    to.send_response(206)
    to.send_header("Content-Range", to.bounds)
    for name, value in headers.items():
        to.send_header(name.replace("_", "-"), value)
    if length is not None:
        to.send_header("Content-Length", str(length))
    to.end_headers()


def plain(to: BaseHTTPRequestHandler, part: bytes, times: int) -> None:
    begin(to, len(part))
    to.wfile.write(part)


def in_chunks(to: BaseHTTPRequestHandler, part: bytes, times: int) -> None:
    begin(to, None, Transfer_Encoding="chunked")
    for start in range(0, len(part), 1000):
        piece = part[start : start + 1000]
        to.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    to.wfile.write(b"0\r\n\r\n")


def packed(to: BaseHTTPRequestHandler, part: bytes, times: int) -> None:
    body = gzip.compress(part)
    begin(to, len(body), Content_Encoding="gzip")
    to.wfile.write(body)


def cut_once(to: BaseHTTPRequestHandler, part: bytes, times: int) -> None:
    begin(to, len(part))
    to.wfile.write(part if times > 1 else part[: len(part) // 2])
    to.close_connection = True


def busy_once(to: BaseHTTPRequestHandler, part: bytes, times: int) -> None:
    if times > 1:
        plain(to, part, times)
        return
    to.send_response(503)
    to.send_header("Content-Length", "0")
    to.end_headers()


def block(files: RemoteFiles, start: int = 100_000, length: int = 150_000) -> bytes:
    buffer = bytearray(length)
    files.block_into(NAME, start, memoryview(buffer), len(CONTENT))
    return bytes(buffer)


@pytest.mark.parametrize("send", [plain, in_chunks, packed, cut_once, busy_once])
def test_the_bytes_of_the_file(send: Send) -> None:
    with serving(send) as (files, _):
        assert block(files) == CONTENT[100_000:250_000]
        assert block(files, len(CONTENT) - 9, 9) == CONTENT[-9:]


@pytest.mark.parametrize("send", [plain, in_chunks, busy_once])
def test_one_connection_for_blocks_one_after_the_other(send: Send) -> None:
    with serving(send) as (files, connections):
        for _ in range(4):
            block(files)
        assert len(connections) == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_more_than_was_asked_for(chunked: bool) -> None:
    more: Send = lambda to, part, times: (in_chunks if chunked else plain)(to, part + b"x", times)  # noqa: E731
    with serving(more) as (files, _), pytest.raises(CheckpointError, match="more than the 150000 bytes asked for"):
        block(files)


def test_less_than_was_asked_for() -> None:
    less: Send = lambda to, part, times: plain(to, part[:-1], times)  # noqa: E731
    with serving(less) as (files, _), pytest.raises(CheckpointError, match="got 149999 bytes"):
        block(files)


def test_a_body_that_is_always_cut() -> None:
    cut: Send = lambda to, part, times: cut_once(to, part, 1)  # noqa: E731
    with serving(cut) as (files, _), pytest.raises(CheckpointError, match="cannot be read after 4 attempts"):
        block(files)


def test_a_body_that_dribbles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def dribble(to: BaseHTTPRequestHandler, part: bytes, times: int) -> None:
        begin(to, len(part))
        for byte in part[:1000]:
            to.wfile.write(bytes([byte]))
            time.sleep(0.05)

    monkeypatch.setattr(patience, "SLOW_SECONDS", 0.8)
    with serving(dribble) as (files, _):
        began = time.monotonic()
        with pytest.raises(CheckpointError, match="the server sends"):
            block(files)
        assert time.monotonic() - began < 5
