"""A hub of one repository, as far as mirrors ask it: what a revision holds, entries of files, files in ranges."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

NAME, COMMIT = "acme/tiny", "c" * 40


def handler(folder: Path) -> type[BaseHTTPRequestHandler]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}

    def entry(name: str) -> dict[str, Any]:
        size = (folder / name).stat().st_size
        found: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": digests[name][:40]}
        return found | {"lfs": {"oid": digests[name], "size": size, "pointerSize": 134}}

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if re.fullmatch(rf"/api/models/{NAME}(/revision/[^/]+)?", path):
                self.say({"id": NAME, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]})
            elif path.startswith(f"/api/models/{NAME}/tree/"):
                self.say([entry(name) for name in names])
            elif (found := re.fullmatch(rf"/{NAME}/resolve/[^/]+/(.+)", path)) and found[1] in digests:
                self.file(found[1])
            else:
                self.say({"error": "not found"}, 404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.path.startswith(f"/api/models/{NAME}/paths-info/"):
                asked = parse_qs(body.decode()).get("paths", [])
                self.say([entry(name) for name in asked if name in digests])
            else:
                self.say({"error": "not found"}, 404)

        def file(self, name: str) -> None:
            data = (folder / name).read_bytes()
            headers = {"ETag": f'"{digests[name]}"', "X-Linked-ETag": f'"{digests[name]}"', "Accept-Ranges": "bytes"}
            span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if span is None:
                self.answer(200, data, headers)
                return
            start, stop = int(span[1]), min(int(span[2] or len(data) - 1) + 1, len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self.answer(206, data[start:stop], headers)

        def say(self, document: Any, status: int = 200) -> None:
            self.answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (headers | {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Hub


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """Its host and port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(folder))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
