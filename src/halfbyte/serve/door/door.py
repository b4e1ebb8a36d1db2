"""The streaming route: a request is let in, reserved, passed on as it comes, and settled once, whatever dies."""

import asyncio
import contextlib
import gzip
import json
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from halfbyte.serve.door.calls import Call, read_call, read_object, upstream_body
from halfbyte.serve.door.charges import Charges, amended, estimate
from halfbyte.serve.door.dialects import CHAT, DIALECTS, Dialect
from halfbyte.serve.door.engine_errors import engine_error
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
from halfbyte.serve.door.meter import EventTooLargeError, Held, StreamMeter, Texts
from halfbyte.serve.door.metrics import Metrics
from halfbyte.serve.door.refusal import Refusal, bad_request, event_of, unavailable
from halfbyte.serve.door.reparse import StreamReparser, markup_for, reparsed
from halfbyte.serve.door.reservations import Reservations, standing_headers
from halfbyte.serve.door.service import Service
from halfbyte.serve.door.settling import Settling
from halfbyte.serve.door.tracing import Tracing
from halfbyte.serve.door.upstream import BROKEN, Upstream, Upstreams
from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.opening import Ledger
from halfbyte.serve.ledger.reserve import Reserved
from halfbyte.serve.ledger.tenants import Key
from halfbyte.serve.money import Tokens
from halfbyte.serve.tenant import NOBODY

LOG = logging.getLogger("halfbyte.serve")
CHECKPOINT_TOKENS = 256
UNSAID_OUTPUT_TOKENS = 256
"""What a request without any bound on its output weighs in the queue."""
GZIP = b"\x1f\x8b"
"""How a body begins whose upstream compressed it although it was asked not to."""
BUSY = (500, 502, 503, 504)
MOST_ANSWER_BYTES = 256 << 20
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


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
        self.tracing: Tracing | None = None
        self.draining = False
        self.charges = Charges(service)
        self.reservations = Reservations(service, ledger, upstreams, self.id)
        self.settling = Settling(service, ledger, metrics)
        self.running: dict[str, Running] = {}
        self.open = 0

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
        try:
            reserved = await self.reservations.take(key, call, id)
        except LedgerError:
            self.settling.later(
                self.settling.settle(id, key.tenant, Tokens(), "failed")
            )  # it may be written all the same
            raise
        headers: Headers = [(b"x-request-id", id.encode()), *standing_headers(key, reserved.standing)]
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
            if self.tracing is not None:
                told = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
                self.tracing.record(running, key.tenant, self.service.model, dialect.path, told)

    @staticmethod
    def _still_there(gone: "asyncio.Future[Any]") -> bool:
        return (
            gone.done()
            and not gone.cancelled()
            and gone.exception() is None
            and gone.result()["type"] != "http.disconnect"
        )

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
            refusal = engine_error(status, body)
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
        tokens = await self.charges.of_whole(member, running.call, document, usage)
        if self.service.embedded and isinstance(usage, dict) and isinstance(document, dict):
            body = amended(document, usage, tokens, running.call.dialect) or body
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

    async def _stream(self, member: Upstream, response: aiohttp.ClientResponse, running: Running, send: Send) -> bool:
        call, content = running.call, response.content
        texts = Texts(call.dialect) if member.tokenizes else None
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
                self.settling.later(self._settle_stream(member, running, "cancelled"))
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
                self.settling.later(self.settling.checkpoint(running.id, meter.tokens(estimate(running.call))))
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
                tokens = await self.charges.of_stream(member, meter, 0)
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

    async def _settle_stream(self, member: Upstream, running: Running, status: str) -> None:
        meter = running.meter
        assert meter is not None
        running.ended = True
        prompt = 0
        if not meter.knows_prompt and (meter.delivered or status == "completed"):
            prompt = await self.charges.of_prompt(member, running.call)
        tokens = await self.charges.of_stream(member, meter, prompt)
        if not meter.delivered and not meter.has_usage:
            tokens = tokens if status == "completed" else Tokens()
        await self._settle_first(running, tokens, status)

    async def _settle_first(self, running: Running, tokens: Tokens, status: str) -> None:
        running.ended, running.tokens, running.status = True, tokens, status
        self.reservations.learn(running.key.tenant, running.call, tokens.prompt)
        await self.settling.first(running.id, running.key.tenant, tokens, status)

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
            tokens = running.meter.tokens(estimate(running.call))
        await self._settle_first(running, tokens, "cancelled" if left else "failed")

    def _count_answer(self, running: Running, status: int) -> None:
        self.metrics.requests.labels(running.key.tenant, self.service.model, str(status)).inc()

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
            raise engine_error(status, found)
        await answer(send, status, found, down + headers)


def _gone(message: str) -> Refusal:
    return Refusal(502, "upstream_failed", message, type="server_error", reason="upstream")


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
