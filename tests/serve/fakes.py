"""A fake engine that speaks OpenAI's protocol, told by each request's `fake` field what to do."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web


class Fake:
    """One engine. seen: the requests that it got. cut: how many clients left before the end."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.running = self.most_running = self.left = 0
        self.tokenizes = False
        self.tokenized = 0
        self.healthy = True
        self.script: list[str] | None = None  # events for whoever cannot send a `fake` field
        self.url = ""

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"}, status=200 if self.healthy else 503)

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "fake"}]})

    async def tokenize(self, request: web.Request) -> web.Response:
        if not self.tokenizes:
            raise web.HTTPNotFound
        self.tokenized += 1
        document = await request.json()
        text = document.get("content") or document.get("prompt") or ""
        return web.json_response({"tokens": list(range(len(str(text).split())))})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        document = json.loads(raw)
        self.bodies.append(raw)
        self.seen.append(document)
        self.headers.append(dict(request.headers))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._chat(request, document, document.get("fake") or {})
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise
        finally:
            self.running -= 1

    async def _chat(self, request: web.Request, document: dict[str, Any], fake: dict[str, Any]) -> web.StreamResponse:
        await asyncio.sleep(fake.get("before", 0))
        if "status" in fake:
            return web.json_response({"error": {"message": "no", "code": "odd"}}, status=fake["status"])
        if fake.get("die_first"):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if not document.get("stream"):
            answer = {"id": "x", "object": "chat.completion", "model": document.get("model")} | fake.get("answer", {})
            return web.json_response(answer)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        told = self.script if self.script is not None and "fake" not in document else events(fake)
        for event in fake.get("events", told):
            await response.write(event.encode() if isinstance(event, str) else event)
            await asyncio.sleep(fake.get("pace", 0))
        if fake.get("die_last"):
            assert request.transport is not None
            request.transport.abort()
        return response


def chunk(delta: dict[str, Any], **more: Any) -> str:
    document = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta} | more]}
    return f"data: {json.dumps(document)}\n\n"


def usage_chunk(prompt: int, output: int, **more: Any) -> str:
    figures = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output} | more
    return f"data: {json.dumps({'id': 'c', 'choices': [], 'usage': figures})}\n\n"


def events(fake: dict[str, Any]) -> list[str]:
    """Words, then the end; `words`, `prompt` and `usage` say how many and whether counted, `pad` how long."""
    words, pad = fake.get("words", 3), "." * fake.get("pad", 0)
    found = [chunk({"role": "assistant", "content": ""})]
    found += [chunk({"content": f"w{n}{pad} "}) for n in range(words)]
    if not fake.get("die_last"):
        found.append(chunk({}, finish_reason="stop"))
        if fake.get("usage", True):
            found.append(usage_chunk(fake.get("prompt", 7), words))
        found.append("data: [DONE]\n\n")
    return found


@contextmanager
def fake_upstream(fake: Fake | None = None, port: int = 0) -> Iterator[Fake]:
    """A fake engine in a thread of its own."""
    fake = fake or Fake()
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/health", fake.health)
        app.router.add_post("/tokenize", fake.tokenize)
        app.router.add_get("/v1/models", fake.models)
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"):
            app.router.add_post(path, fake.chat)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
