"""The streaming route: a request is let in, reserved, passed on as it comes, and settled once, whatever dies."""

import asyncio
import contextlib
import gzip
import json
import logging
import math
import re
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from halfbyte.serve.door.calls import MESSAGE_TOKENS, TEMPLATE_TOKENS, Call, read_call, read_object, upstream_body
from halfbyte.serve.door.counting import says_reasoning, tokens_of
from halfbyte.serve.door.dialects import CHAT, DIALECTS, RESPONSES, Dialect
from halfbyte.serve.door.http import (
    ClientGoneError,
    Headers,
    Receive,
    Scope,
    Send,
    answer,
    key_of,
    passed_down,
    passed_up,
    read_body,
    refuse,
)
from halfbyte.serve.door.keeper import Keeper
from halfbyte.serve.door.meter import EventTooLargeError, Held, StreamMeter, Texts, payload, texts_of
from halfbyte.serve.door.metrics import Metrics
from halfbyte.serve.door.refusal import Refusal, bad_request, event_of, unavailable
from halfbyte.serve.door.reparse import StreamReparser, markup_for, reparsed
from halfbyte.serve.door.upstream import BROKEN, Upstream, Upstreams
from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.opening import Ledger
from halfbyte.serve.ledger.reserve import Ask, Refused, Reserved, Standing, reserve
from halfbyte.serve.ledger.settle import checkpoint, settle
from halfbyte.serve.ledger.tenants import Key
from halfbyte.serve.money import FREE, Price, Tokens
from halfbyte.serve.tenant import MOST, NOBODY

LOG = logging.getLogger("halfbyte.serve")
CHECKPOINT_TOKENS = 256
SETTLE_WAIT_S = 5.0
LONGEST_RETRY_S = 5.0
UNSAID_OUTPUT_TOKENS = 256
"""What a request without any bound on its output weighs in the queue."""
BYTES_A_TOKEN = 4
"""By which a prompt is estimated where neither usage nor a tokenizer tells, and nothing is held against a limit."""
MOST_UNSEEN_TOKENS = 4096
GZIP = b"\x1f\x8b"
"""How a body begins whose upstream compressed it although it was asked not to."""
BUSY = (500, 502, 503, 504)
EMBEDDED_PARSER = re.compile(r"\[json\.exception")
REFUSED_BY_ENGINE = re.compile(
    r"^(Failed to|Unable to|Invalid|Unsupported|Expected)|schema|grammar|template", re.IGNORECASE
)
"""What our own engine calls its own error though the request is at fault."""
MOST_ANSWER_BYTES = 256 << 20
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Service:
    """What is served. model: its name. price: None where no prices are given. embedded: whether the engine is ours.

    context: tokens of one sequence, None if not known. reparse: see `reparse_from`.
    """

    model: str
    price: Price | None = None
    embedded: bool = False
    context: int | None = None
    reparse: tuple[str, str] | None = None


@dataclass
class Running:
    """One request on its way. ended: whether it is settled, or about to be. cut: whether the door ends it."""

    id: str
    key: Key
    call: Call
    reserved: Reserved
    headers: Headers
    began: float
    task: "asyncio.Task[None] | None" = None
    started: bool = False
    ended: bool = False
    cut: bool = False
    status: str = "failed"
    tokens: Tokens = field(default_factory=Tokens)
    meter: StreamMeter | None = None
    reparser: StreamReparser | None = None


class Door:
    """An ASGI application. pages: the one for all routes that do not generate."""

    def __init__(
        self, service: Service, ledger: Ledger, upstreams: Upstreams, keeper: Keeper, metrics: Metrics
    ) -> None:
        self.id = uuid.uuid4().hex
        self.service, self.ledger, self.upstreams, self.keeper, self.metrics = (
            service,
            ledger,
            upstreams,
            keeper,
            metrics,
        )
        self.pages: Any = None
        self.draining = False
        self._unseen_tokens: dict[str, int] = {}  # by tenant: how far usage went beyond the bound of a prompt
        self.running: dict[str, Running] = {}
        self.open = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = uuid.uuid4().hex
        dialect = DIALECTS.get(scope["path"]) if scope["method"] == "POST" else None
        headers: Headers = [(b"x-request-id", request_id.encode())]
        if dialect is None and not (scope["path"] == "/tokenize" and scope["method"] == "POST"):
            scope["halfbyte_request_id"] = request_id
            await self.pages(scope, receive, _with(send, headers))
            return
        tenant = ""
        self.open += 1
        try:
            if self.draining:
                raise unavailable("draining", "this door is closing", retry_s=5)
            key = await self.who(scope)
            tenant = key.tenant
            body = await read_body(scope, receive)
            if dialect is None:
                await self._tokenize(key, body, send, headers)
            else:
                await self._generate(dialect, key, body, request_id, scope, receive, send)
        except ClientGoneError:
            pass
        except Refusal as refusal:
            self.refused(tenant, refusal)
            await refuse(send, refusal, headers)
        except LedgerError as error:
            LOG.error("%s", error)
            shut = unavailable("ledger_unavailable", "the ledger cannot be written at the moment")
            self.refused(tenant, shut)
            await refuse(send, shut, headers)
        except Exception:
            LOG.exception("request %s", request_id)
            with contextlib.suppress(RuntimeError):  # it had begun to answer
                broken = Refusal(500, "internal_error", "this door failed", type="server_error")
                await refuse(send, broken, headers)
        finally:
            self.open -= 1

    def refused(self, tenant: str, refusal: Refusal) -> None:
        self.metrics.refused.labels(tenant, refusal.reason).inc()
        if tenant:
            self.metrics.requests.labels(tenant, self.service.model, str(refusal.status)).inc()

    async def who(self, scope: Scope) -> Key:
        """The tenant that asks. Raises Refusal."""
        key = await self.keeper.tenant(key_of(scope))
        if key.tenant == NOBODY:
            _check_local(scope)
        return key

    def check_model(self, key: Key, model: str | None) -> None:
        """Raises Refusal where there is no such model, or not for this tenant."""
        if model is not None and model != self.service.model:
            raise Refusal(
                404,
                "model_not_found",
                f"the model {model[:100]!r} does not exist",
                param="model",
                reason="unknown_model",
            )
        if key.limits.models is not None and self.service.model not in key.limits.models:
            raise Refusal(
                403,
                "model_not_allowed",
                f"the model {self.service.model!r} is not allowed for this key",
                type="permission_error",
                param="model",
                reason="model",
            )

    # One request

    async def _generate(
        self, dialect: Dialect, key: Key, body: bytes, id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        began = time.monotonic()
        call = read_call(dialect, body)
        self.check_model(key, call.model)
        reserved = await self._reserve(key, call, id)
        headers: Headers = [(b"x-request-id", id.encode()), *_standing_headers(key, reserved.standing)]
        running = Running(id, key, call, reserved, headers, began)
        self.running[id] = running
        self.metrics.reserved.labels(key.tenant).inc(reserved.ask.prompt + reserved.output)
        task = asyncio.ensure_future(self._answer(running, scope, send))
        running.task = task
        gone = asyncio.ensure_future(receive())  # after the body there is nothing to hear but that the client left
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not self._still_there(gone):
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                if not task.cancelled():
                    raise
                if running.cut:
                    raise unavailable("draining", "this door is closing", retry_s=5) from None
        finally:
            gone.cancel()
            task.cancel()
            await self._end(running)

    @staticmethod
    def _still_there(gone: "asyncio.Future[Any]") -> bool:
        return (
            gone.done()
            and not gone.cancelled()
            and gone.exception() is None
            and gone.result()["type"] != "http.disconnect"
        )

    async def _reserve(self, key: Key, call: Call, id: str) -> Reserved:
        """Raises Refusal, LedgerError."""
        limits, price = key.limits, self.service.price
        if price is None and limits.has_budget_in_usd:
            raise Refusal(
                403, "no_price", "this key has a budget in dollars, and the model no price", type="permission_error"
            )
        prompt = call.prompt_bound + self._unseen_tokens.get(key.tenant, 0)
        if limits.counts_tokens:
            for name in ("previous_response_id", "conversation", "chat_template"):
                if call.document.get(name):
                    raise bad_request(f"{name}: not with a key whose tokens are limited", name)
            tokenizer = self.upstreams.tokenizer()
            counted = await tokenizer.count_prompt(self.service.model, call) if tokenizer else None
            if counted is not None:
                messages = call.document.get("messages") or call.document.get("input")
                pieces = len(messages) if isinstance(messages, list) else 1
                around = 0 if counted[1] else TEMPLATE_TOKENS + MESSAGE_TOKENS * pieces
                prompt = min(prompt, counted[0] + around)
        room = None if self.service.context is None else max(self.service.context - prompt, 1)
        ask = Ask(id, key.tenant, self.service.model, prompt, call.choices, call.max_tokens, room)
        try:
            found = await self.ledger.run(reserve(ask, price or FREE, self.id, time.time()))
        except LedgerError:
            self._later(self._settle(id, key.tenant, Tokens(), "failed"))  # it may have been written all the same
            raise
        if isinstance(found, Refused):
            raise _too_much(key, found)
        return found

    async def _answer(self, running: Running, scope: Scope, send: Send) -> None:
        """Ask upstreams until one answers. Raises Refusal before anything is sent."""
        reserved, tried = running.reserved, set[Upstream]()
        headers = passed_up(scope, running.id)
        body = upstream_body(running.call, self.service.model, reserved.max_tokens)
        cost = reserved.ask.prompt + max(
            reserved.output, UNSAID_OUTPUT_TOKENS if running.call.max_tokens is None else 1
        )
        while True:
            async with self.upstreams.slot(reserved.ask.tenant, reserved.priority, cost, tried) as member:
                if member is None:
                    break
                if await self._attempt(member, running, body, headers, send, tried):
                    return
            tried.add(member)
        raise _gone("the engine went away before it answered")

    async def _attempt(
        self,
        member: Upstream,
        running: Running,
        body: bytes,
        headers: dict[str, str],
        send: Send,
        tried: set[Upstream],
    ) -> bool:
        """Whether this upstream's answer was passed on."""
        response: aiohttp.ClientResponse | None = None
        try:
            try:
                response = await self._post(member, running.call.dialect.path, body, headers)
            except BROKEN as error:
                LOG.warning("upstream %s: %s", member.url, type(error).__name__)
                member.failed()
                return False
            if response.status in BUSY:
                member.failed()
                if any(
                    other.healthy and other is not member and other not in tried for other in self.upstreams.members
                ):
                    return False
            else:
                member.succeeded()
            if response.status >= 400:
                return await self._pass_error(response, running, send)
            if response.content_type == "text/event-stream":
                return await self._stream(member, response, running, send)
            return await self._whole(member, response, running, send)
        finally:
            if response is not None:
                response.close()

    async def _post(self, member: Upstream, path: str, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """A kept connection may be closed by the other side at any moment: once more, then, where nothing came back."""
        try:
            return await member.post(path, body, headers)  # type: ignore[no-any-return]
        except aiohttp.ServerDisconnectedError:
            return await member.post(path, body, headers)  # type: ignore[no-any-return]

    async def _pass_error(self, response: aiohttp.ClientResponse, running: Running, send: Send) -> bool:
        """An upstream's 4xx or 5xx costs nothing. Its body passes as it is, but our own engine's."""
        status, headers = response.status, passed_down(response.headers)
        try:
            body = await response.content.read(MOST_ANSWER_BYTES)
        except BROKEN:
            body = b""
        if self.service.embedded or not body:
            refusal = _engine_error(status, body)
            raise refusal
        await self._settle_first(running, Tokens(), "failed")
        running.started = True
        self._count_answer(running, status)
        await answer(send, status, body, headers + running.headers)
        return True

    async def _whole(self, member: Upstream, response: aiohttp.ClientResponse, running: Running, send: Send) -> bool:
        """An answer in one piece."""
        try:
            body = await response.read()
        except BROKEN:
            member.failed()
            return False
        document = None
        with contextlib.suppress(ValueError, RecursionError, OSError, EOFError):
            document = json.loads(gzip.decompress(body) if body.startswith(GZIP) else body)
        usage = document.get("usage") if isinstance(document, dict) else None
        tokens = await self._charge_whole(member, running.call, document, usage)
        if self.service.embedded and isinstance(usage, dict) and isinstance(document, dict):
            body = _amended(document, usage, tokens, running.call.dialect) or body
        headers = passed_down(response.headers)
        if self.service.reparse is not None and running.call.dialect is CHAT and isinstance(document, dict):
            make = markup_for(self.service.reparse, running.call.document)
            body = json.dumps(reparsed(document, make, running.id), ensure_ascii=False).encode()
            headers = [(name, value) for name, value in headers if name.lower() != b"content-encoding"]
        self.metrics.first.labels(running.key.tenant, self.service.model).observe(time.monotonic() - running.began)
        await self._settle_first(running, tokens, "completed")
        running.started = True
        self._count_answer(running, response.status)
        await answer(send, response.status, body, headers + running.headers)
        return True

    async def _charge_whole(self, member: Upstream, call: Call, document: Any, usage: Any) -> Tokens:
        found = tokens_of(usage)
        texts = list(texts_of(document if isinstance(document, dict) else None))
        prompt, tokens = found if found is not None else (None, None)
        reasoning = "".join(text for kind, text in texts if kind == "reasoning")
        if tokens is None:
            tokens = Tokens(0, 0, sum([await self._count_text(member, text) for _, text in texts]), 0)
        elif self.service.embedded and call.choices > 1:  # llama.cpp's usage is the last choice's alone
            output = sum([await self._count_text(member, text) for _, text in texts])
            tokens = tokens._replace(output=max(output, tokens.output))
            if isinstance(call.document.get("prompt"), list):
                prompt = max(prompt or 0, await self._prompt_of(member, call))
                tokens = tokens._replace(prompt=prompt)
        if reasoning and not (isinstance(usage, dict) and says_reasoning(usage)):
            thought = await self._count_text(member, reasoning)
            tokens = tokens._replace(reasoning=min(thought, tokens.output))
        if prompt is None:
            tokens = tokens._replace(prompt=await self._prompt_of(member, call))
        return tokens

    async def _count_text(self, member: Upstream, text: str) -> int:
        """By the engine's tokenizer; where it has none, by length."""
        counted = await member.count_text(self.service.model, text)
        return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_A_TOKEN) if counted is None else counted

    async def _prompt_of(self, member: Upstream, call: Call) -> int:
        counted = await member.count_prompt(self.service.model, call)
        return _estimate(call) if counted is None else counted[0]

    async def _stream(self, member: Upstream, response: aiohttp.ClientResponse, running: Running, send: Send) -> bool:
        call, content = running.call, response.content
        texts = Texts() if member.tokenizes else None
        meter = StreamMeter(call.dialect, call.wants_usage or not call.stream, texts, self.service.embedded)
        try:
            data = await content.readany()
        except BROKEN:
            data = b""
        if not data:
            member.failed()
            return False
        running.meter, running.started = meter, True
        if self.service.reparse is not None and call.dialect is CHAT:
            running.reparser = StreamReparser(markup_for(self.service.reparse, call.document), running.id)
        headers = [(b"x-accel-buffering", b"no"), *passed_down(response.headers), *running.headers]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        self._count_answer(running, response.status)
        cut = False
        try:
            cut = not await self._pump(member, content, data, running, send)
        except asyncio.CancelledError:
            response.close()
            if not running.cut:
                running.status = "cancelled"
                self._later(self._settle_stream(member, running, "cancelled"))
                raise
            cut = True
        if cut:
            member.failed()
            await self._settle_stream(member, running, "cut")
            await send(_body(event_of("the answer was cut: the engine went away", "upstream_cut"), more=True))
        elif not running.ended:
            await self._settle_stream(member, running, "failed" if meter.failed else "completed")
        await send(_body(b"", more=False))
        return True

    async def _pump(
        self, member: Upstream, content: aiohttp.StreamReader, data: bytes, running: Running, send: Send
    ) -> bool:
        """Pass on until the end. False where the upstream went away before it."""
        meter = running.meter
        assert meter is not None
        next_checkpoint, first = 1, 0.0
        while data:
            try:
                out = meter.feed(data)
            except EventTooLargeError:
                return False
            if meter.held:
                out = await self._fill(member, meter)
            if meter.delivered >= next_checkpoint:
                if next_checkpoint == 1:
                    first = time.monotonic()
                    labels = (running.key.tenant, self.service.model)
                    self.metrics.first.labels(*labels).observe(first - running.began)
                next_checkpoint = meter.delivered - meter.delivered % CHECKPOINT_TOKENS + CHECKPOINT_TOKENS
                self._later(self._checkpoint(running, meter.tokens(_estimate(running.call))))
            if meter.done and not running.ended:
                await self._settle_stream(member, running, "failed" if meter.failed else "completed")
                out = self._said_usage(running, out)
            if out and running.reparser is not None:
                out = running.reparser.feed(out)
            if out:
                await send({"type": "http.response.body", "body": out, "more_body": True})
            try:
                data = await content.readany()
            except BROKEN:
                return meter.done
        whole = meter.done or meter.whole or meter.failed
        rest = meter.rest() if whole else b""
        if running.reparser is not None:
            rest = running.reparser.feed(rest) + running.reparser.rest()
        if rest:
            await send(_body(rest, more=True))
        if first and meter.output > 1:
            each = (time.monotonic() - first) / (meter.output - 1)
            self.metrics.each.labels(running.key.tenant, self.service.model).observe(each)
        return whole

    async def _fill(self, member: Upstream, meter: StreamMeter) -> bytes:
        """Usage that says nothing of reasoning, with what the engine's tokenizer says of it."""
        out = b""
        for piece in meter.held:
            if isinstance(piece, Held):
                tokens = await self._tokens_of_stream(member, meter, 0)
                name = "completion_tokens_details" if "completion_tokens" in piece.usage else "output_tokens_details"
                piece.usage[name] = {**(piece.usage.get(name) or {}), "reasoning_tokens": tokens.reasoning}
                piece = piece.filled()
            out += piece
        meter.held = []
        return out

    def _said_usage(self, running: Running, out: bytes) -> bytes:
        """The end of a stream whose client asked for usage and whose upstream said none: it is told what is charged."""
        meter, dialect = running.meter, running.call.dialect
        found = dialect.end.search(out)
        if meter is None or meter.has_usage or not running.call.wants_usage or not dialect.asks_usage or found is None:
            return out
        tokens = running.tokens
        document: dict[str, Any] = {
            "id": f"chatcmpl-{running.id}",
            "object": "chat.completion.chunk" if dialect is CHAT else "text_completion",
            "created": int(time.time()),
            "model": self.service.model,
            "choices": [],
            "usage": {
                "prompt_tokens": tokens.prompt,
                "completion_tokens": tokens.output,
                "total_tokens": tokens.total,
                "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
            },
        }
        return out[: found.start()] + b"data: " + json.dumps(document).encode() + b"\n\n" + out[found.start() :]

    # Settling

    async def _tokens_of_stream(self, member: Upstream, meter: StreamMeter, prompt: int) -> Tokens:
        output = reasoning = None
        texts = meter.texts
        if texts is not None and not (meter.says_reasoning or not meter.reasoning):
            reasoning = await member.count_text(self.service.model, texts.of("reasoning"))
        if texts is not None and not meter.has_usage and meter.delivered:
            other = await member.count_text(self.service.model, texts.of("other"))
            if reasoning is None and meter.reasoning:
                other = None
            output = None if other is None else other + (reasoning or 0)
        return meter.tokens(prompt, output, reasoning)

    async def _settle_stream(self, member: Upstream, running: Running, status: str) -> None:
        meter = running.meter
        assert meter is not None
        running.ended = True
        prompt = 0
        if not meter.knows_prompt and (meter.delivered or status == "completed"):
            prompt = await self._prompt_of(member, running.call)
        tokens = await self._tokens_of_stream(member, meter, prompt)
        if not meter.delivered and not meter.has_usage:
            tokens = tokens if status == "completed" else Tokens()
        await self._settle_first(running, tokens, status)

    async def _settle_first(self, running: Running, tokens: Tokens, status: str) -> None:
        """Settle before the client learns that it has all; a ledger that does not answer is waited for a while only."""
        running.ended, running.tokens, running.status = True, tokens, status
        unseen = min(tokens.prompt - running.call.prompt_bound, MOST_UNSEEN_TOKENS)
        if unseen > self._unseen_tokens.get(running.key.tenant, 0):
            self._unseen_tokens[running.key.tenant] = unseen
        task = self._later(self._settle(running.id, running.key.tenant, tokens, status))
        await asyncio.wait((task,), timeout=SETTLE_WAIT_S)

    async def _settle(self, id: str, tenant: str, tokens: Tokens, status: str) -> None:
        """Until it is written; if this process dies before, whoever comes next settles by the last checkpoint."""
        wait_s = 0.05
        while True:
            try:
                done = await self.ledger.run(settle(id, tokens, status, time.time()))
                break
            except LedgerError as error:
                LOG.error("request %s is not settled yet: %s", id, error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_RETRY_S)
        if done:
            price = self.service.price or FREE
            self.metrics.settled(tenant, self.service.model, status, tokens, price.of(tokens))

    async def _checkpoint(self, running: Running, tokens: Tokens) -> None:
        try:
            await self.ledger.run(checkpoint(running.id, tokens))
        except LedgerError as error:
            LOG.error("request %s: no checkpoint: %s", running.id, error)

    async def _end(self, running: Running) -> None:
        """Whatever way a request went: it is settled, and no longer counted as running."""
        del self.running[running.id]
        reserved = running.reserved
        self.metrics.reserved.labels(running.key.tenant).dec(reserved.ask.prompt + reserved.output)
        labels = (running.key.tenant, self.service.model)
        self.metrics.duration.labels(*labels).observe(time.monotonic() - running.began)
        if running.ended or running.status == "cancelled":
            return  # settled, or about to be
        left = running.task is not None and running.task.cancelled()
        tokens = Tokens()
        if running.meter is not None and running.meter.delivered:
            tokens = running.meter.tokens(_estimate(running.call))
        await self._settle_first(running, tokens, "cancelled" if left else "failed")

    def _count_answer(self, running: Running, status: int) -> None:
        self.metrics.requests.labels(running.key.tenant, self.service.model, str(status)).inc()

    def _later(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Goes on whatever happens to the request."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self, timeout_s: float) -> None:
        """Wait until everything that ended is settled."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    def cut_all(self) -> None:
        """End every running answer; clients are told, and charged for what they got."""
        for running in list(self.running.values()):
            running.cut = True
            if running.task is not None:
                running.task.cancel()

    # What passes without being counted

    async def _tokenize(self, key: Key, body: bytes, send: Send, headers: Headers) -> None:
        document = read_object(body)
        model = document.get("model")
        if model is not None and not isinstance(model, str):
            raise bad_request("model: wanted a string", "model")
        self.check_model(key, model)
        member = self.upstreams.tokenizer()
        if member is None:
            if not self.upstreams.alive:
                raise unavailable("upstream_unavailable", "no engine answers at the moment")
            raise Refusal(404, "not_supported", "this engine has no /tokenize", reason="not_supported")
        try:
            async with member.post("/tokenize", body, {"content-type": "application/json"}) as response:
                found, status = await response.read(), response.status
                down = passed_down(response.headers)
        except BROKEN:
            raise Refusal(
                502, "upstream_failed", "the engine went away", type="server_error", reason="upstream"
            ) from None
        if status >= 400 and self.service.embedded:
            raise _engine_error(status, found)
        await answer(send, status, found, down + headers)


def _gone(message: str) -> Refusal:
    return Refusal(502, "upstream_failed", message, type="server_error", reason="upstream")


def _estimate(call: Call) -> int:
    return max((call.prompt_bound - TEMPLATE_TOKENS) // BYTES_A_TOKEN, 1)


def _body(data: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _with(send: Send, headers: Headers) -> Send:
    async def added(message: Any) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in headers}
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in own]
            message = {**message, "headers": [*kept, *headers]}
        await send(message)

    return added


def _check_local(scope: Scope) -> None:
    """Without keys, pages from elsewhere that run in a browser here must not ask."""
    for name, value in scope["headers"]:
        if name in (b"host", b"origin"):
            host = re.sub(rb"^https?://", b"", value).decode("latin-1")
            bare = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
            if bare.lower() not in LOOPBACK_NAMES:
                raise Refusal(403, "foreign_origin", "without keys, only this machine may ask", type="permission_error")


def _standing_headers(key: Key, standing: Standing) -> Headers:
    """What is left of the tightest limits; a kind that is not limited says the largest number."""
    numbers = (
        (b"x-ratelimit-limit-requests", standing.limit_requests),
        (b"x-ratelimit-remaining-requests", standing.remaining_requests),
        (b"x-ratelimit-limit-tokens", standing.limit_tokens),
        (b"x-ratelimit-remaining-tokens", standing.remaining_tokens),
    )
    if standing.limit_requests is None and standing.limit_tokens is None and not key.limits.has_budget_in_usd:
        return []
    return [(name, str(MOST if number is None else number).encode()) for name, number in numbers]


def _too_much(key: Key, refused: Refused) -> Refusal:
    headers = {name.decode(): value.decode() for name, value in _standing_headers(key, refused.standing)}
    budget = refused.limit.startswith(("tokens_per_", "usd_per_"))
    return Refusal(
        429,
        "insufficient_quota" if budget else "rate_limit_exceeded",
        refused.message,
        type="insufficient_quota" if budget else "rate_limit_error",
        headers={"retry-after": str(max(refused.retry_after_s, 1)), **headers},
        reason=refused.limit,
    )


def _engine_error(status: int, body: bytes) -> Refusal:
    """Our own engine's error in OpenAI's shape, without what its parser says of itself."""
    document = payload(b"data: " + body.replace(b"\n", b" "))
    error = document.get("error") if document else None
    found = error if isinstance(error, dict) else {}
    message = str(found.get("message") or "the engine could not answer")
    if EMBEDDED_PARSER.search(message):
        status, message = 400, "the request has a field of the wrong type"
    elif status == 500 and REFUSED_BY_ENGINE.search(message):
        status = 400
    own = "server_error" if status >= 500 else "invalid_request_error"
    kind = own if found.get("type") in (None, "server_error") else str(found["type"])
    code = {"exceed_context_size_error": "context_length_exceeded"}.get(kind, kind)
    return Refusal(404 if status == 501 else status, code, message[:500], type=own, reason="upstream")


def _amended(document: dict[str, Any], usage: dict[str, Any], tokens: Tokens, dialect: Dialect) -> bytes | None:
    """A whole answer with what its usage leaves out; None where there is nothing to say."""
    if "completion_tokens" in usage:
        name = "completion_tokens_details"
        usage["prompt_tokens"], usage["completion_tokens"] = tokens.prompt, tokens.output
        usage["total_tokens"] = tokens.total
    elif dialect is RESPONSES:
        name = "output_tokens_details"
    else:
        return None
    usage[name] = {**(usage.get(name) or {}), "reasoning_tokens": tokens.reasoning}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
