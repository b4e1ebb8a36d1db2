"""What commands read beside checkpoints: a ledger, a reference, prices, answers, tables; a server of odd answers."""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from evaluate.harnesses.folders import lm_eval, nemo

from sound.generators import mutated

POSITIONS = 60
RECIPE = {"version": 1, "name": "mine", "roles": {"routed_expert": "nvfp4"}, "layers": {"keep_first": 1}}
POLICY = {"version": 1, "name": "mine", "rules": {"supply.provenance": {"severity": "info"}}}
PRICES = {"usd_per_million_tokens": {"m": {"prompt": 1, "cached": 0.1, "output": 4, "reasoning": 4}}, "usd_per_hour": 4}
CARD = {
    "correlation": 0.5,
    "suites": [
        {"name": "GPQA", "n": 198, "baseline": 89.5, "candidate": 89.4, "repeats": 8},
        {"name": "IFBench", "n": 294, "baseline": 75.0, "candidate": 75.8},
    ],
}
REFERENCE = {
    "reference_version": 1,
    "model_type": "m",
    "vocab_size": 10,
    "computed": "by hand",
    "positions": POSITIONS,
    "sequences": [
        {
            "ids": [n % 7 for n in range(POSITIONS + 4)],
            "first": 4,
            "logprobs": [-0.5] * POSITIONS,
            "top_ids": [[n % 7, 9] for n in range(4, POSITIONS + 4)],
            "top_logprobs": [[-0.5, -3.0]] * POSITIONS,
        }
    ],
    "halfbyte": "0",
}
ANSWER = {
    "id": "x",
    "object": "list",
    "data": [{"id": "m", "max_model_len": 4096}],
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "1"},
            "text": "1",
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "1", "logprob": -0.5, "top_logprobs": []}], "token_logprobs": [-0.5]},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    "weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"},
}


def write_papers(folder: Path) -> None:
    """Everything but the ledger, which a command makes. JSON is YAML too."""
    folder.mkdir()
    items = [{"id": f"i{i}", "prompt": f"{i} + 1?", "reference": str(i + 1), "checker": "numeric"} for i in range(6)]
    (folder / "suite.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "card.yaml").write_text(json.dumps(CARD))
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE))
    (folder / "policy.yaml").write_text(json.dumps(POLICY))
    (folder / "prices.json").write_text(json.dumps(PRICES))
    (folder / "ref.json").write_text(json.dumps(REFERENCE))
    scores = [[float(i % 3 > 0)] for i in range(12)]
    lm_eval(folder / "a", scores)
    lm_eval(folder / "b", scores[1:] + scores[:1])
    nemo(folder / "c", scores)


class OddServer:
    """Answers whatever `draw` says, plausible and not, and never waits."""

    def __init__(self, port: int) -> None:
        self.draw, self.port = random.Random(0), port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self) -> tuple[int, bytes]:
        draw = self.draw
        if draw.random() < 0.25:
            bodies = (
                b"",
                b"{}",
                b"[]",
                b"null",
                b"[" * 5000,
                draw.randbytes(50),
                b"data: {}\n\ndata: [DONE]\n\n",
                b"1",
            )
            return draw.choice((200, 200, 204, 301, 400, 401, 404)), draw.choice(bodies)
        document: Any = ANSWER
        for _ in range(draw.choice((0, 0, 1, 3))):
            document = mutated(document, draw)
        return 200, json.dumps(document).encode()


@contextmanager
def odd_server() -> Iterator[OddServer]:
    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            length = self.headers.get("Content-Length", "0")
            self.rfile.read(min(int(length), 1_000_000) if length.isdigit() else 0)
            status, body = odd.answer()
            self.send_response(status)
            if status == 301:
                self.send_header("Location", self.path)
            stated = odd.draw.choice((len(body),) * 12 + (len(body) + 5, 0))
            self.send_header("Content-Length", str(stated))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = stated != len(body)

        do_GET = do_POST = do_HEAD = _any

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Whoever asked went away."""

    server = Server(("127.0.0.1", 0), Handler)
    odd = OddServer(server.server_port)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield odd
    finally:
        server.shutdown()
        server.server_close()
