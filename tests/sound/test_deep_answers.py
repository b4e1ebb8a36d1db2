"""A server that answers JSON nested a hundred thousand deep is one clear error, as the fuzz found."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from halfbyte.errors import DataError
from halfbyte.evaluate.running.targets import served_models
from halfbyte.text import json_of

DEEP = b"[" * 100_000


class Deep(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(DEEP)))
        self.end_headers()
        self.wfile.write(DEEP)

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    one = ThreadingHTTPServer(("127.0.0.1", 0), Deep)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{one.server_port}"
    one.shutdown()
    one.server_close()


def test_json_of() -> None:
    with pytest.raises(ValueError, match="too deeply"):
        json_of(DEEP)
    assert json_of(b'{"a": [1]}') == {"a": [1]}


def test_a_list_of_models(server: str) -> None:
    with pytest.raises(DataError, match="something else"):
        served_models(server, "")
