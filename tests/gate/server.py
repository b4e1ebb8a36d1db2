"""A web server of one folder on a free port: with ranges or without, honest or not, and a hub's interface."""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any


class Site:
    """mode: `no ranges`, `short`, `wrong size`, `drops` (always), `drops once`, `busy once`, `moves` (another ETag from
    the fourth answer of a file on), or none. commit: of the hub's only revision, if its interface says one.

    hub: answer OWNER/NAME/resolve/main/FILE with the SHA-256 as the linked ETag, and list the files.
    """

    def __init__(self, folder: Path, mode: str = "", hub: bool = False) -> None:
        self.folder, self.mode, self.hub = folder, mode, hub
        self.commit: str | None = None
        self.sent_bytes = self.open = self.most_open = 0
        self.asked: dict[str, int] = {}
        self.digests: dict[str, str] = {}
        self.lock = Lock()

    def digest(self, name: str) -> str:
        return self.digests.get(name) or hashlib.sha256((self.folder / name).read_bytes()).hexdigest()


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            with site.lock:
                site.open += 1
                site.most_open = max(site.most_open, site.open)
                times = site.asked[self.path] = site.asked.get(self.path, 0) + 1
            self.respond(times)

        def respond(self, times: int) -> None:
            if site.hub and site.commit and self.path.startswith("/api/models/owner/name/revision/"):
                self.answer(200, json.dumps({"sha": site.commit}).encode())
                return
            if site.hub and self.path.startswith(f"/api/models/owner/name/tree/{site.commit or 'main'}"):
                rows = [
                    {
                        "type": "file",
                        "path": path.relative_to(site.folder).as_posix(),
                        "size": path.stat().st_size,
                        "lfs": {"oid": site.digest(path.relative_to(site.folder).as_posix())},
                    }
                    for path in sorted(site.folder.rglob("*"))
                    if path.is_file()
                ]
                self.answer(200, json.dumps(rows).encode())
                return
            name = (
                self.path.removeprefix(f"/owner/name/resolve/{site.commit or 'main'}/").lstrip("/")
                if site.hub
                else self.path.lstrip("/")
            )
            path = site.folder / name
            if not path.is_file():
                self.answer(404, b"")
                return
            if name.endswith(".safetensors"):
                time.sleep(0.005)  # so that requests overlap
            size = path.stat().st_size
            if site.mode == "busy once" and times == 1:
                self.answer(503, b"")
            elif site.mode == "drops" or (site.mode == "drops once" and times == 1):
                span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
                self.send_response(206 if span else 200)
                if span:
                    self.send_header("Content-Range", f"bytes {span.group(1)}-{span.group(2)}/{size}")
                self.send_header("Content-Length", "100000")
                self.end_headers()
                self.leave()
                self.wfile.write(b"{")
                self.close_connection = True
            else:
                self.send_part(path, size, times)

        def leave(self) -> None:
            """Counted before the answer goes out: whoever has it may ask again at once."""
            with site.lock:
                site.open -= 1

        def send_part(self, path: Path, size: int, times: int) -> None:
            span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
            if not span or site.mode == "no ranges":
                self.answer(200, path.read_bytes())
                return
            start, stop = int(span.group(1)), min(int(span.group(2)) + 1, size)
            with open(path, "rb") as file:
                file.seek(start)
                part = file.read(stop - start)
            if site.mode == "short":
                part = part[: len(part) // 2]
            if site.mode == "wrong size":
                size += 4096
            headers = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
            if site.mode == "moves":
                headers["ETag"] = f'"{times > 3}"'
            if site.hub:
                headers["X-Linked-ETag"] = f'"{site.digest(path.name)}"'
            self.answer(206, part, headers)

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.leave()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                return
            with site.lock:
                site.sent_bytes += len(body)

    return Handler


@contextmanager
def serving(site: Site) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(site))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
