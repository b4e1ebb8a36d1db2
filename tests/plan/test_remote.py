"""Remote headers from a real server on a free port: what is read, what is refused, what is tried again."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
from families.configs import config

from halfbyte.checkpoint.header import serialize_header
from halfbyte.checkpoint.remote import FIRST_BYTES, RemoteFiles, base_url
from halfbyte.checkpoint.source import Opened, read_headers
from halfbyte.errors import CheckpointError
from halfbyte.plan.planner import plan

QWEN = {
    **config("Qwen3-30B-A3B"),
    "num_hidden_layers": 1, "num_experts": 2, "hidden_size": 64, "vocab_size": 32, "moe_intermediate_size": 16,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "num_experts_per_tok": 1,
}  # fmt: skip


class Store:
    """Files, and how the server misbehaves. failures: answers 503 this often before it works."""

    def __init__(self, files: dict[str, bytes], mode: str = "", failures: int = 0) -> None:
        self.files, self.mode, self.failures = files, mode, failures
        self.sent_bytes = self.requests = self.open = self.most_open = 0
        self.lock = Lock()


def handler(store: Store) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            with store.lock:
                store.requests += 1
                fail = store.failures > 0
                store.failures -= fail
            body = store.files.get(self.path.lstrip("/"))
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
            if fail or store.mode == "down":
                self.answer(503, b"")
            elif body is None:
                self.answer(404, b"")
            elif span and store.mode != "no ranges":
                start, stop = int(span.group(1)), min(int(span.group(2)) + 1, len(body))
                part, size = body[start:stop], len(body)
                if store.mode == "short":
                    part = part[: len(part) // 2]
                if store.mode == "wrong size":
                    size += 100
                self.answer(206, part, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})
            else:
                self.answer(200, body)

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            with store.lock:
                store.sent_bytes += len(body)

    return Handler


@contextmanager
def serving(store: Store) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(store))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def checkpoint_files() -> dict[str, bytes]:
    """A small Qwen3-MoE checkpoint in two shards, weights of zeros."""

    from halfbyte.models import architecture_of, promised_tensors

    assert sum(t.count for t in promised_tensors(architecture_of(QWEN))) == 18
    layer = "model.layers.0"
    tensors = {
        "model.embed_tokens.weight": (32, 64), "model.norm.weight": (64,), "lm_head.weight": (32, 64),
        f"{layer}.input_layernorm.weight": (64,), f"{layer}.post_attention_layernorm.weight": (64,),
        f"{layer}.self_attn.q_proj.weight": (32, 64), f"{layer}.self_attn.k_proj.weight": (16, 64),
        f"{layer}.self_attn.v_proj.weight": (16, 64), f"{layer}.self_attn.o_proj.weight": (64, 32),
        f"{layer}.self_attn.q_norm.weight": (16,), f"{layer}.self_attn.k_norm.weight": (16,),
        f"{layer}.mlp.gate.weight": (2, 64),
        **{f"{layer}.mlp.experts.{e}.{p}.weight": s for e in (0, 1)
           for p, s in (("gate_proj", (16, 64)), ("up_proj", (16, 64)), ("down_proj", (64, 16)))},
    }  # fmt: skip
    names = list(tensors)
    files, weight_map = {"config.json": json.dumps(QWEN).encode()}, {}
    for shard, part in (("a.safetensors", names[:9]), ("b.safetensors", names[9:])):
        sizes = []
        for name in part:
            count = 1
            for side in tensors[name]:
                count *= side
            sizes.append((name, "BF16", tensors[name], 2 * count))
            weight_map[name] = shard
        files[shard] = serialize_header(sizes, {}) + bytes(sum(size for *_, size in sizes))
    files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    return files


def no_wait(_: float) -> None: ...


def opened(url: str, wait: Callable[[float], None] = no_wait) -> Opened:
    files = RemoteFiles(url, wait)
    try:
        return read_headers(files)
    finally:
        files.close()


def test_headers_are_read_and_planned() -> None:
    store = Store(checkpoint_files())
    with serving(store) as url:
        remote = opened(url)
        found = plan(url, "l40s", 1)
        paper = plan(url, "l40s", 1, recipe="bf16")
    assert len(remote.tensors) == 18
    assert {tensor.shard for tensor in remote.tensors.values()} == {"a.safetensors", "b.safetensors"}
    assert found.model.checkpoint_bytes == sum(tensor.bytes for tensor in remote.tensors.values())
    assert paper.model.checkpoint_bytes == found.model.checkpoint_bytes


def test_only_header_bytes_travel() -> None:
    files = checkpoint_files()
    big = serialize_header([("lm_head.weight", "BF16", (1 << 20,), 1 << 21)], {}) + bytes(1 << 21)
    store = Store({"config.json": files["config.json"], "model.safetensors": big})
    with serving(store) as url:
        opened(url)
    assert store.sent_bytes <= FIRST_BYTES + len(files["config.json"])


def test_a_header_longer_than_the_first_request() -> None:
    files = checkpoint_files()
    long = serialize_header([("lm_head.weight", "BF16", (2,), 4)], {"note": "x" * (FIRST_BYTES + 1000)}) + bytes(4)
    with serving(Store({"config.json": files["config.json"], "model.safetensors": long})) as url:
        assert list(opened(url).tensors) == ["lm_head.weight"]


def test_passing_failures_are_tried_again() -> None:
    waits: list[float] = []
    with serving(Store(checkpoint_files(), failures=2)) as url:
        assert len(opened(url, waits.append).tensors) == 18
    assert waits == [0.25, 1.0]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("down", "after 4 attempts: status 503"),
        ("no ranges", "ignores range requests"),
        ("short", "asked for bytes"),
        ("wrong size", "asked for bytes|unused bytes"),
    ],
)
def test_misbehaving_servers(mode: str, words: str) -> None:
    with serving(Store(checkpoint_files(), mode)) as url, pytest.raises(CheckpointError, match=words):
        opened(url)


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("config.json", b"[1]", "not a JSON object"),
        ("config.json", b"{", "not valid JSON"),
        ("a.safetensors", (1 << 40).to_bytes(8, "little") + b"{}", "claims"),
        ("a.safetensors", b"abc", "too few"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"x": "../../etc/passwd"}}',
            "weight_map sends 'x' to .*, wanted the name of",
        ),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"x": "a.safetensors"}}',
            "names tensor 'x', which a.safetensors does not hold",
        ),
        ("model.safetensors.index.json", b"{}", "no weight_map"),
    ],
)
def test_lying_files(name: str, body: bytes, words: str) -> None:
    with serving(Store(checkpoint_files() | {name: body})) as url, pytest.raises(CheckpointError, match=words):
        opened(url)


def test_missing_files_and_dead_servers() -> None:
    files = checkpoint_files()
    del files["b.safetensors"]
    with serving(Store(files)) as url, pytest.raises(CheckpointError, match=r"1 missing shard.*, first b\.safetensors"):
        opened(url)
    with pytest.raises(CheckpointError, match="cannot be read after"):
        opened("http://127.0.0.1:9/x")


def test_hub_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.example")
    assert base_url("owner/name") == "http://mirror.example/owner/name/resolve/main/"
    assert base_url("https://a.example/b/") == "https://a.example/b/"


@pytest.mark.parametrize(
    ("target", "told"),
    [("owner/name", True), ("http://hub.example/owner/x", True), ("http://hub.example.evil/owner/x", False)],
)
def test_the_token_goes_to_the_hub_alone(target: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    files = RemoteFiles(target, no_wait)
    assert ("authorization" in files._client.headers) is told
    files.close()
