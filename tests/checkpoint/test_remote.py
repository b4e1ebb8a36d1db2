"""Whom the hub's token is told, and how long a server is waited for."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from halfbyte.checkpoint import patience, remote
from halfbyte.checkpoint.names import is_url
from halfbyte.checkpoint.remote import RemoteFiles
from halfbyte.errors import CheckpointError, UsageError

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """An HTTP server on a free port. answer: what it does with a request."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            try:
                answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reply(to: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    to.send_response(status)
    for name, value in headers.items():
        to.send_header(name.replace("_", "-"), value)
    to.send_header("Content-Length", str(len(body)))
    to.end_headers()
    to.wfile.write(body)


def waits() -> tuple[list[float], Callable[[float], None]]:
    slept: list[float] = []
    return slept, slept.append


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("owner/name", True),
        ("https://huggingface.co/owner/name/resolve/main", True),
        ("https://HuggingFace.CO/x", True),
        ("HTTPS://huggingface.co/x", True),
        ("https://huggingface.co./x", True),
        ("https://huggingface.co:443/x", True),
        ("https://huggingface.co.evil.example/x", False),
        ("https://huggingface.co@evil.example/x", False),
        ("https://huggingface.co:pass@evil.example/x", False),
        ("https://huggingface.co\\@evil.example/x", False),
        ("https://user@huggingface.co/x", False),
        ("https://:@huggingface.co/x", False),
        ("http://huggingface.co/x", False),
        ("https://huggingface.co:8443/x", False),
        ("https://cdn.huggingface.co/x", False),
        ("https://evil.example/https://huggingface.co/x", False),
        ("https://evil.example#@huggingface.co/x", False),
        ("https://huggingface.co../x", False),
    ],
)
def test_the_token_goes_to_the_hub_alone(target: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert is_url(target) or target == "owner/name"
    files = RemoteFiles(target)
    request = files._client.build_request("GET", files.place("config.json"))
    files._token.check(request)
    assert ("authorization" in request.headers) is told
    files.close()


def test_an_endpoint_with_a_path_is_no_other_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example/hub/")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for target, told in (
        ("owner/name", True),
        ("http://mirror.example/hub/x", True),
        ("http://mirror.example/h", False),
    ):
        files = RemoteFiles(target)
        assert bool(files._token.headers(files.where)) is told
        files.close()


@pytest.mark.parametrize("how", ["other port", "other host", "userinfo", "same"])
def test_a_redirect_that_leaves_the_hub_loses_the_token(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def storage(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers.get("authorization"))
        reply(request, 200, b"{}")

    with serving(storage) as other:

        def hub(request: BaseHTTPRequestHandler) -> None:
            if request.path.endswith("/there"):
                storage(request)
                return
            assert request.headers["authorization"] == "Bearer hf_secret"
            port = request.server.server_port  # type: ignore[attr-defined]
            place = {
                "other port": f"{other}/there",
                "other host": f"http://localhost:{port}/there",
                "userinfo": f"http://me@127.0.0.1:{port}/there",
                "same": f"http://127.0.0.1:{port}/there",
            }[how]
            reply(request, 302, Location=place)

        with serving(hub) as url:
            monkeypatch.setenv("HF_ENDPOINT", url)
            monkeypatch.setenv("HF_TOKEN", "hf_secret")
            files = RemoteFiles("owner/name")
            assert files.text("config.json") == b"{}"
            files.close()
    assert len(seen) == 1
    assert ("hf_secret" in str(seen)) is (how == "same")


def listing(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> Any:
    with serving(answer) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        files = RemoteFiles("owner/name", lambda _: None)
        try:
            return files.listing()
        finally:
            files.close()


@pytest.mark.parametrize("kind", ["itself", "same rows", "empty", "endless"])
def test_a_listing_that_does_not_end(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = 0

    def answer(request: BaseHTTPRequestHandler) -> None:
        nonlocal pages
        pages += 1
        names = {"itself": ["a"], "same rows": ["a"], "empty": [], "endless": [f"{pages}-{i}" for i in range(500)]}
        rows = [{"type": "file", "path": name, "size": 1} for name in names[kind]]
        host = f"http://{request.headers['host']}"
        following = host + request.path.partition("&cursor")[0] + ("" if kind == "itself" else f"&cursor={pages}")
        reply(request, 200, json.dumps(rows).encode(), Link=f'<{following}>; rel="next"')

    with pytest.raises(CheckpointError, match="10000 files" if kind == "endless" else "repeats a page"):
        listing(monkeypatch, answer)
    assert pages <= 21


def test_a_listing_of_two_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        second = "cursor" in request.path
        rows = [{"type": "file", "path": "b" if second else "a", "size": 1}]
        link = f'<http://{request.headers["host"]}{request.path}&cursor=1>; rel="next"'
        reply(request, 200, json.dumps(rows).encode(), **({} if second else {"Link": link}))

    assert set(listing(monkeypatch, answer)) == {"a", "b"}


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int) -> None:
    times = 0

    def answer(request: BaseHTTPRequestHandler) -> None:
        nonlocal times
        times += 1
        reply(request, status, Retry_After="17") if times == 1 else reply(request, 200, b"{}")

    slept, wait = waits()
    with serving(answer) as url:
        files = RemoteFiles(url, wait)
        assert files.text("config.json") == b"{}"
        files.close()
    assert slept == [17.0]


@pytest.mark.parametrize("asked", ["3600", "9" * 5000, "Fri, 31 Dec 2199 23:59:59 GMT"])
def test_a_server_that_asks_for_more_time_than_there_is(asked: str) -> None:
    slept, wait = waits()
    with serving(lambda request: reply(request, 503, Retry_After=asked)) as url:
        files = RemoteFiles(url, wait, seconds=60)
        with pytest.raises(CheckpointError, match="asks to wait") as raised:
            files.text("config.json")
        files.close()
    assert "timeout" in str(raised.value.hint)
    assert slept == []


@pytest.mark.parametrize("said", ["bytes 0-" + "9" * 5000 + "/" + "9" * 5001, "bytes 0-1/*", "bytes ٠-١/٢", ""])
def test_an_absurd_content_range(said: str) -> None:
    answer = lambda request: reply(request, 206, b"x" * 16, Content_Range=said.encode().decode("latin-1"))  # noqa: E731
    with serving(answer) as url:
        files = RemoteFiles(url, lambda _: None)
        with pytest.raises(CheckpointError, match=r"without its bounds|cannot be read after"):
            files.header("model.safetensors")
        files.close()


def dribble(request: BaseHTTPRequestHandler, body: bool) -> None:
    """One byte every twentieth of a second, of the headers or of the body."""
    if body:
        request.send_response(200)
        request.send_header("Content-Length", "100000")
        request.end_headers()
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 10_000:
        request.wfile.write(bytes([byte]))
        time.sleep(0.05)


@pytest.mark.parametrize("body", [True, False])
def test_a_slow_server_is_given_up(body: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SLOW_SECONDS", 0.8)
    with serving(lambda request: dribble(request, body)) as url:
        files, began = RemoteFiles(url, lambda _: None), time.monotonic()
        with pytest.raises(CheckpointError, match="the server sends"):
            files.text("config.json")
        files.close()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("body", [True, False])
def test_all_of_it_has_a_limit(body: bool) -> None:
    with serving(lambda request: dribble(request, body)) as url:
        files, began = RemoteFiles(url, lambda _: None, seconds=0.7), time.monotonic()
        with pytest.raises(CheckpointError, match=r"not read within 0\.7 s"):
            files.text("config.json")
        files.close()
    assert time.monotonic() - began < 5


def test_a_server_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        files = RemoteFiles(f"http://127.0.0.1:{listener.getsockname()[1]}", lambda _: None, seconds=20)
        with pytest.raises(CheckpointError, match="cannot be read after"):
            files.text("config.json")
        files.close()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_cannot_be(seconds: float) -> None:
    with pytest.raises(UsageError, match="timeout"):
        RemoteFiles("https://a.example/b", seconds=seconds)


def test_a_connection_that_ends_within_the_headers_is_no_answer() -> None:
    asked = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        if len(asked) == 1:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Cut: ")
            request.close_connection = True
            return
        request.send_response(200)
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"{}")

    with serving(answer) as url:
        files = RemoteFiles(url, lambda _: None)
        assert files.text("config.json") == b"{}"
        files.close()
    assert len(asked) == 2


@pytest.mark.parametrize("bypassed", [False, True])
def test_a_proxy_of_the_environment(bypassed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        request.send_response(200)
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"{}")

    with serving(answer) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "127.0.0.1" if bypassed else "")
        target = url if bypassed else "http://elsewhere.example/models"
        files = RemoteFiles(target, lambda _: None)
        assert files.text("config.json") == b"{}"
        files.close()
    assert asked == ["/config.json" if bypassed else "http://elsewhere.example/models/config.json"]
