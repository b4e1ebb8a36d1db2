"""An OpenAI-compatible server that answers as a function says, and counts what it was asked."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], "str | tuple[str, str] | int"]
"""From the last message's text: an answer, an answer and its finish_reason, or an HTTP status."""


class Served:
    """url: with /v1. asked: by the text of the last message."""

    def __init__(self, answer: Answer, key: str | None = None, port: int = 0) -> None:
        served = self
        self.answer, self.key, self.asked = answer, key, Counter[str]()
        self.bodies: list[dict[str, Any]] = []
        self.is_gone = False

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(200, {"object": "list", "data": [{"id": "m", "object": "model"}]})

            def do_POST(self) -> None:
                if served.is_gone:  # connections that were kept outlive the listening socket
                    self.close_connection = True
                    return None
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                text = text if isinstance(text, str) else text[0]["text"]
                served.asked[text] += 1
                served.bodies.append(body)
                found = served.answer(text)
                if isinstance(found, int):
                    return self._say(found, {"error": {"message": "no"}})
                said, reason = found if isinstance(found, tuple) else (found, "stop")
                message = {"role": "assistant", "content": said}
                choice = {"index": 0, "message": message, "finish_reason": reason}
                usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
                answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
                self._say(200, answer | {"choices": [choice], "usage": usage})
                return None

            def _say(self, status: int, document: dict[str, Any]) -> None:
                if served.key and self.headers.get("Authorization") != f"Bearer {served.key}":
                    status, document = 401, {"error": {"message": "who are you?"}}
                content = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@contextmanager
def served(answer: Answer, key: str | None = None, port: int = 0) -> Iterator[Served]:
    one = Served(answer, key, port)
    thread = threading.Thread(target=one.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield one
    finally:
        one.is_gone = True
        one.server.shutdown()
        one.server.server_close()
        thread.join()
