"""Spans of a real door, as a collector gets them."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .doors import add_tenant, door, halfbyte
from .fakes import chunk, fake_upstream, usage_chunk

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector(BaseHTTPRequestHandler):
    bodies: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces"
        self.bodies.append(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    bodies: list[bytes] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Collector,), {"bodies": bodies}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    server.server_close()


def test_a_span_says_who_and_how_much_and_no_word(collector: tuple[str, list[bytes]], tmp_path: Path) -> None:
    url, bodies = collector
    state = tmp_path / "state"
    key = add_tenant(state, "team")
    events = [chunk({"content": "a secret answer"}), usage_chunk(11, 4), "data: [DONE]\n\n"]
    ask = {"model": "m", "messages": [{"role": "user", "content": "a secret question"}], "stream": True}
    options = ("--state", str(state), "--otlp", url)
    with fake_upstream() as fake, door("m", "--upstream", fake.url, *options, log=tmp_path / "log") as running:
        with running.client(key) as client:
            headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            answer = client.post("/v1/chat/completions", json=ask | {"fake": {"events": events}}, headers=headers)
            assert answer.status_code == 200
        assert running.stop() == 0
    found = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    (span,) = [s for one in found for r in one.resource_spans for scope in r.scope_spans for s in scope.spans]
    told = {one.key: one.value.int_value or one.value.string_value for one in span.attributes}
    assert span.trace_id.hex() == TRACE
    assert told["gen_ai.usage.input_tokens"] == 11
    assert told["gen_ai.usage.output_tokens"] == 4
    assert told["halfbyte.tenant"] == "team"
    assert told["halfbyte.status"] == "completed"
    assert told["halfbyte.request"] == answer.headers["x-request-id"]
    assert span.end_time_unix_nano > span.start_time_unix_nano
    assert not [body for body in bodies if b"secret" in body]


def test_a_collector_that_is_away_holds_nobody(tmp_path: Path) -> None:
    state = tmp_path / "state"
    key = add_tenant(state, "team")
    options = ("--state", str(state), "--otlp", "http://127.0.0.1:9")
    with fake_upstream() as fake, door("m", "--upstream", fake.url, *options, log=tmp_path / "log") as running:
        with running.client(key) as client:
            ask = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
            assert client.post("/v1/chat/completions", json=ask).status_code == 200
        assert running.stop() == 0


def test_what_is_no_address() -> None:
    assert "http://" in halfbyte("serve", "m", "--upstream", "http://127.0.0.1:9", "--otlp", "collector", code=2)
