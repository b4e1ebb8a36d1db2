"""The engines behind the door: which of them answers next, whether it lives, how many tokens a text has there."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from halfbyte.serve.door.calls import Call, text_of_prompt
from halfbyte.serve.door.fair import FairQueue
from halfbyte.serve.door.refusal import unavailable

HEALTH_EVERY_S = 0.5
ASK_S = 5.0
FAILURES = 3
FIRST_BREAK_S, LONGEST_BREAK_S = 1.0, 30.0
MOST_WAITING = 10_000
RETRY_EVERY_S = 0.01
RENDERED = ("messages", "tools", "chat_template_kwargs")
"""Fields of a chat that its template puts into the prompt."""
IMPLEMENTED = (404, 405, 501)
BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What a connection that is lost or never made raises."""


class Upstream:
    """One engine. url: without /v1; None while it is starting. outstanding: reserved tokens of its running requests."""

    def __init__(self, url: str | None, client: aiohttp.ClientSession, key: str | None = None) -> None:
        self.url, self._client = url, client
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.running = self.outstanding = 0
        self.healthy = False
        self.checked = False
        self.tokenizes = self.tokenizes_chats = self.applies_templates = False
        self._failures = 0
        self._broken_until = 0.0
        self._break_s = FIRST_BREAK_S

    @property
    def closed(self) -> bool:
        """The circuit is closed: requests may pass."""
        return time.monotonic() >= self._broken_until

    def succeeded(self) -> None:
        self._failures, self._break_s = 0, FIRST_BREAK_S

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES:
            self._broken_until = time.monotonic() + self._break_s
            self._break_s = min(self._break_s * 2, LONGEST_BREAK_S)

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> Any:
        return self._client.post(f"{self.url}{path}", data=body, headers=headers | self.headers, allow_redirects=False)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Any:
        timeout, headers = aiohttp.ClientTimeout(total=ASK_S), (headers or {}) | self.headers
        return self._client.get(f"{self.url}{path}", headers=headers, timeout=timeout, allow_redirects=False)

    async def ask(self, path: str, document: dict[str, Any] | None = None) -> tuple[int, Any]:
        """(status, JSON or None) of a small request of our own. Raises what BROKEN names."""
        timeout = aiohttp.ClientTimeout(total=ASK_S)
        method = "GET" if document is None else "POST"
        data = None if document is None else json.dumps(document).encode()
        headers = self.headers | {"content-type": "application/json"}
        async with self._client.request(
            method, f"{self.url}{path}", data=data, headers=headers, timeout=timeout, allow_redirects=False
        ) as answer:
            raw = await answer.read()
        try:
            return answer.status, json.loads(raw)
        except (ValueError, RecursionError):
            return answer.status, None

    async def check(self, model: str) -> None:
        """See whether it lives; the first time that it does, learn what it can."""
        if self.url is None:
            self.healthy = False
            return
        try:
            status, _ = await self.ask("/health")
            if status in IMPLEMENTED or status in (401, 403):
                status, _ = await self.ask("/v1/models")
            alive = status < 500
            if alive and not self.healthy:
                await self._learn(model)
            self.healthy = alive
        except BROKEN:
            self.healthy = False
        self.checked = True

    async def _learn(self, model: str) -> None:
        self.tokenizes = await self._count({"model": model, "prompt": "a", "content": "a"}) is not None
        if self.tokenizes:
            chat = {"messages": [{"role": "user", "content": "a"}]}
            status, found = await self.ask("/apply-template", chat)
            self.applies_templates = status == 200 and isinstance(found, dict) and isinstance(found.get("prompt"), str)
            if not self.applies_templates:
                self.tokenizes_chats = bool(await self._count({"model": model, **chat}))

    async def _count(self, document: dict[str, Any]) -> int | None:
        status, found = await self.ask("/tokenize", document)
        if status != 200 or not isinstance(found, dict):
            return None
        count, tokens = found.get("count"), found.get("tokens")
        if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
            return count
        return len(tokens) if isinstance(tokens, list) else None

    async def count_text(self, model: str, text: str) -> int | None:
        """Tokens of a text by itself; None where it cannot say."""
        if not self.tokenizes or not text:
            return 0 if not text else None
        with contextlib.suppress(*BROKEN):
            return await self._count(
                {"model": model, "prompt": text, "content": text, "add_special_tokens": False, "parse_special": True}
            )
        return None

    async def count_prompt(self, model: str, call: Call) -> tuple[int, bool] | None:
        """(tokens of the prompt, whether with all that the template adds); None where it cannot say."""
        if not self.tokenizes:
            return None
        document = call.document
        with contextlib.suppress(*BROKEN):
            if "messages" in document and call.dialect.asks_usage:
                asked = {
                    name: document[name] for name in ("messages", "tools", "chat_template_kwargs") if document.get(name)
                }
                if self.applies_templates:
                    status, found = await self.ask("/apply-template", asked)
                    if status == 200 and isinstance(found, dict) and isinstance(found.get("prompt"), str):
                        count = await self.count_text(model, found["prompt"])
                        return None if count is None else (count, True)
                elif self.tokenizes_chats:
                    count = await self._count({"model": model, **asked, "add_generation_prompt": True})
                    return None if count is None else (count, True)
            text = text_of_prompt(document)
            if text is not None:
                count = await self.count_text(model, text)
                return None if count is None else (count, False)
        return None


class Upstreams:
    """All engines of one model. limit: running requests of each, None for any number."""

    def __init__(self, members: list[Upstream], limit: int | None) -> None:
        self.members, self.limit = members, limit
        self.queue = FairQueue()

    @property
    def alive(self) -> bool:
        return any(member.healthy for member in self.members)

    @property
    def running(self) -> int:
        return sum(member.running for member in self.members)

    def tokenizer(self) -> Upstream | None:
        return next((member for member in self.members if member.healthy and member.tokenizes), None)

    def _able(self, tried: set[Upstream]) -> list[Upstream]:
        return [m for m in self.members if m.url is not None and (m.healthy or not m.checked) and m not in tried]

    def _free(self, tried: set[Upstream]) -> Upstream | None:
        """The one with the fewest outstanding tokens of those with a slot; one with an open circuit only if alone."""
        able = [member for member in self._able(tried) if self.limit is None or member.running < self.limit]
        able = [member for member in able if member.closed] or able
        return min(able, key=lambda member: (member.outstanding, member.running), default=None)

    @asynccontextmanager
    async def slot(self, tenant: str, priority: int, cost: int, tried: set[Upstream]) -> AsyncIterator[Upstream | None]:
        """An upstream for one request, after waiting for its turn; None where all that live were tried.

        Raises Refusal where none lives.
        """
        member = await (self._another(tried) if tried else self._turn(tenant, priority, cost))
        if member is None:
            yield None
            return
        member.outstanding += cost
        try:
            yield member
        finally:
            member.outstanding -= cost
            self._leave(member)

    async def _turn(self, tenant: str, priority: int, cost: int) -> Upstream:
        if not self._able(set()):
            raise unavailable("upstream_unavailable", "no engine answers at the moment")
        if not self.queue.requests and (free := self._free(set())) is not None:
            free.running += 1
            return free
        if self.queue.requests >= MOST_WAITING:
            raise unavailable("queue_full", "too many requests wait")
        turn: asyncio.Future[Upstream | None] = asyncio.get_running_loop().create_future()
        self.queue.put(tenant, priority, cost, turn)
        try:
            member = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and (given := turn.result()) is not None:
                self._leave(given)  # its turn came while it gave up
            raise
        if member is None:
            raise unavailable("upstream_unavailable", "no engine answers at the moment")
        return member

    async def _another(self, tried: set[Upstream]) -> Upstream | None:
        """For a request that failed elsewhere: it had its turn, and waits for a slot only."""
        while self._able(tried):
            if (free := self._free(tried)) is not None:
                free.running += 1
                return free
            await asyncio.sleep(RETRY_EVERY_S)
        return None

    def _leave(self, member: Upstream) -> None:
        member.running -= 1
        self.dispatch()

    def dispatch(self) -> None:
        """Let in as many as there are slots; all, where no engine lives and they are to be told so."""
        while self.queue.requests:
            free = self._free(set())
            if free is None and self._able(set()):
                return
            turn = self.queue.take()
            if turn is None:
                return
            if free is not None:
                free.running += 1
            turn.set_result(free)
