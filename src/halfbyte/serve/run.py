"""`serve`: opens the ledger, starts or finds the engines, and keeps the door open until it is told to close."""

import asyncio
import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import uvicorn
import uvloop

from halfbyte.errors import CheckpointError, HalfbyteError, UsageError, said
from halfbyte.evidence.reference import ReferenceDocument
from halfbyte.progress import Progress
from halfbyte.serve.addresses import base_of, is_loopback
from halfbyte.serve.door.door import Door
from halfbyte.serve.door.keeper import Keeper
from halfbyte.serve.door.metrics import Metrics
from halfbyte.serve.door.pages import pages
from halfbyte.serve.door.reparse import reparse_from
from halfbyte.serve.door.service import Service
from halfbyte.serve.door.tracing import Tracing
from halfbyte.serve.door.upstream import HEALTH_EVERY_S, Upstream, Upstreams
from halfbyte.serve.engine.command import Command
from halfbyte.serve.engine.launched import LaunchedEngine
from halfbyte.serve.engine.llamacpp import LlamaCppEngine
from halfbyte.serve.engine.router import ROUTER, RouterEngine
from halfbyte.serve.engine.supervisor import Engine, Supervisor
from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.opening import POSTGRES, Ledger, open_ledger
from halfbyte.serve.ledger.settle import beat, doors_with_open_requests, leave, open_requests, settle
from halfbyte.serve.ledger.tenants import admit_nobody, any_tenant, tenants
from halfbyte.serve.money import Prices, read_prices
from halfbyte.serve.options import CONTEXT_TOKENS, RUNNING, ServeOptions
from halfbyte.serve.probe.ask import Engine as ProbedEngine
from halfbyte.serve.probe.verdict import Probed, Thresholds, judge

LOG = logging.getLogger("halfbyte.serve")
BEAT_S = 1.0
CUT_S = 2.0
CONNECT_S = 5.0
BACKLOG = 4096


class ServeError(HalfbyteError):
    """A door that cannot be opened as it was asked for."""

    kind = "serve"


def serve(
    target: str, options: ServeOptions, progress: Progress, gguf: Callable[[Path], Path], command: Command | None = None
) -> None:
    """Until SIGTERM or SIGINT. gguf: makes or finds the GGUF of a checkpoint folder. command: of the engine to start,
    instead of the embedded one. Raises HalfbyteError."""
    _check(options)
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    engine: Engine | None = None
    if options.router is not None:
        engine = RouterEngine(target, tuple(base_of(url) for url in options.upstream))
    elif command is not None:
        engine = LaunchedEngine(command)
    elif not options.upstream:
        engine = _embedded(target, options, gguf)
    model = options.served_model_name or (target if engine is None else engine.name)
    prices = None if options.price is None else read_prices(options.price, model)
    if prices is not None and model not in prices.models:
        raise ServeError(f"{options.price}: has no price for the served model {model!r}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Opening(model, options, prices, engine, progress).run())


def _check(options: ServeOptions) -> None:
    if reparse_from(options.reparse) is not None and not options.upstream:
        raise UsageError(said("{reparse}: for the raw text of an {upstream}; engines that we start parse their own"))
    for url in options.upstream:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(said("{upstream} {url!r}: wanted http://host:port", url=url[:100]))
    if options.otlp is not None and not re.match(r"https?://[^/\s]+", options.otlp):
        raise UsageError(said("{otlp} {url!r}: wanted http://host:4318", url=options.otlp[:100]))
    if options.router is not None and options.router != ROUTER:
        raise UsageError(said("{router} {name!r}: no such router", name=options.router[:60]), hint=f"known: {ROUTER}")
    if options.router is not None and not options.upstream:
        raise UsageError(said("{router}: wanted {upstream} URL,URL of the engines that it routes to"))
    if options.max_running_requests is not None and not 1 <= options.max_running_requests <= 1 << 20:
        raise UsageError(said("{max_running_requests} {n}: wanted 1 or more", n=options.max_running_requests))
    if options.context_length is not None and not 16 <= options.context_length <= 1 << 30:
        raise UsageError(said("{context_length} {n}: wanted 16 or more", n=options.context_length))
    if not 0 <= options.port <= 65535:
        raise UsageError(said("{port} {n}: wanted 0 to 65535", n=options.port))
    if not 0 <= options.drain_timeout < 1e9:
        raise UsageError(said("{drain_timeout} {n}: wanted seconds", n=options.drain_timeout))


def _embedded(target: str, options: ServeOptions, gguf: Callable[[Path], Path]) -> LlamaCppEngine:
    path = Path(target)
    if not path.exists():
        hint = said("give a checkpoint folder or a GGUF, or {upstream} URL of the engine that serves this model")
        raise CheckpointError(f"{target[:300]}: no such checkpoint", hint=hint)
    file = path if path.suffix == ".gguf" else gguf(path)
    name = options.served_model_name or (path.stem if path.suffix == ".gguf" else path.resolve().name)
    return LlamaCppEngine(
        file=str(file.resolve()),
        name=name,
        slots=options.max_running_requests or RUNNING,
        context=options.context_length or CONTEXT_TOKENS,
        gpu_layers=options.gpu_layers,
    )


def _secret(name: str | None, option: str) -> str | None:
    if name is None:
        return None
    value = os.environ.get(name)
    if not value:
        raise UsageError(said(f"{{{option}}} {{name}}: there is no such environment variable", name=name[:80]))
    return value


class _Server(uvicorn.Server):
    """uvicorn, but that a signal drains first."""

    def __init__(self, config: uvicorn.Config, closing: Callable[[], None]) -> None:
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._closing()


class _Opening:
    """One run of the door."""

    def __init__(
        self, model: str, options: ServeOptions, prices: Prices | None, engine: Engine | None, progress: Progress
    ) -> None:
        self._model, self._options, self._prices, self._engine = model, options, prices, engine
        self._progress = progress
        self._upstream_key = _secret(options.upstream_key_env, "upstream_key_env")
        self._metrics_key = _secret(options.metrics_key_env, "metrics_key_env")

    async def run(self) -> None:
        options = self._options
        async with contextlib.AsyncExitStack() as stack:
            ledger = await open_ledger(options.state, durability=options.durability)
            stack.push_async_callback(ledger.close)
            await self._check_tenants(ledger)
            bound = stack.enter_context(_bind(options.host, options.port))
            own = self._engine if self._engine is not None and self._engine.embedded else None
            connector = aiohttp.TCPConnector(limit=0, force_close=own is not None, ttl_dns_cache=60)
            client = await stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=connector,
                    auto_decompress=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                    skip_auto_headers=("User-Agent",),
                )
            )
            asked = [] if self._engine is not None else options.upstream
            urls: list[str | None] = [base_of(url) for url in asked] or [None]
            limit = options.max_running_requests or (RUNNING if own is not None else None)
            upstreams = Upstreams([Upstream(url, client, self._upstream_key) for url in urls], limit)
            metrics = Metrics(upstreams)
            context = None
            if self._engine is not None:
                supervisor = Supervisor(self._engine, upstreams.members[0], metrics.restarts.inc)
                stack.push_async_callback(supervisor.stop)
                await supervisor.start(self._progress.note)
                context = supervisor.context
                stack.enter_context(_task(supervisor.watch()))
            await self._probe(upstreams)
            price = None if self._prices is None else self._prices.models[self._model]
            service = Service(self._model, price, own is not None, context, reparse_from(self._options.reparse))
            door = Door(service, ledger, upstreams, Keeper(ledger, is_loopback(options.host)), metrics)
            door.pages = pages(door, time.time(), self._metrics_key)
            if options.otlp is not None:
                door.tracing = Tracing(options.otlp)
                stack.callback(door.tracing.close)
            ledger.enter(door.id)
            await self._beat_once(ledger, door, 0.0)
            await asyncio.gather(*(member.check(self._model) for member in upstreams.members))
            stack.enter_context(_task(self._health(upstreams)))
            stack.enter_context(_task(self._beat(ledger, door)))
            await self._listen(door, bound)
            await door.settling.done(CUT_S)
            with contextlib.suppress(LedgerError):
                await ledger.run(leave(door.id))

    async def _check_tenants(self, ledger: Ledger) -> None:
        """Raises ServeError where there is nobody to serve, or nothing to charge them."""
        options = self._options
        known = await ledger.run(any_tenant())
        if not known:
            if options.state is not None:
                hint = said("halfbyte tenants add NAME {state} {where}", where=_shown_state(options.state))
                raise ServeError(f"{_shown_state(options.state)}: the ledger has no tenants", hint=hint)
            if not is_loopback(options.host):
                message = said(
                    "{host} {address}: without keys, this door is for this machine only", address=options.host
                )
                raise ServeError(message, hint="add a tenant: halfbyte tenants add NAME")
            await ledger.run(admit_nobody(time.time()))
        if self._prices is None:
            for tenant in await ledger.run(tenants()):
                if tenant.limits.has_budget_in_usd:
                    hint = said("{price} FILE says what tokens cost")
                    raise ServeError(
                        f"tenant {tenant.name!r} has a budget in dollars, and no price is given", hint=hint
                    )

    async def _probe(self, upstreams: Upstreams) -> None:
        """Raises ServeError for an engine that does not agree with the reference."""
        if self._options.probe is None:
            return
        reference = ReferenceDocument.read(self._options.probe)

        def ask(url: str) -> Probed:
            scores = ProbedEngine(url, self._model, self._upstream_key).scores(reference, self._progress)
            return judge(reference, scores, Thresholds())

        for member in upstreams.members:
            found = await asyncio.to_thread(ask, member.url or "")
            told = (
                f"{found.verdict}, likeliest token the same at {found.top1_agreement:.1%} of {found.positions} "
                f"positions, log-probabilities {found.mean_abs_logprob_difference:.3f} apart in the mean"
            )
            if found.verdict != "agrees":
                hint = "see docs/serve.md; halfbyte probe has thresholds"
                raise ServeError(f"the engine does not compute what the reference says: {told}", hint=hint)
            self._progress.note(f"probe: {told}")

    async def _listen(self, door: Door, bound: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        config = uvicorn.Config(
            door,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        draining: list[asyncio.Task[None]] = []

        def closing() -> None:
            """Called by signal handlers, between any two instructions."""
            loop.call_soon_threadsafe(drain)

        def drain() -> None:
            if draining:
                server.should_exit = True  # told twice: now
                return
            draining.append(loop.create_task(self._drain(door, server)))

        server = _Server(config, closing)
        bound.listen(BACKLOG)  # who reads the next line may come at once
        address = bound.getsockname()
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self._progress.note(f"serving {self._model} at http://{host}:{address[1]}")
        await server.serve(sockets=[bound])
        for task in draining:
            task.cancel()

    async def _drain(self, door: Door, server: uvicorn.Server) -> None:
        """New requests are refused, running ones finish; what is left after the timeout is cut."""
        door.draining = True
        until = time.monotonic() + self._options.drain_timeout
        while door.open and time.monotonic() < until:
            await asyncio.sleep(0.02)
        door.cut_all()
        until = time.monotonic() + CUT_S
        while door.open and time.monotonic() < until:
            await asyncio.sleep(0.02)
        await door.settling.done(CUT_S)
        server.should_exit = True

    async def _health(self, upstreams: Upstreams) -> None:
        while True:
            await asyncio.sleep(HEALTH_EVERY_S)
            await asyncio.gather(*(member.check(self._model) for member in upstreams.members))
            upstreams.dispatch()

    async def _beat(self, ledger: Ledger, door: Door) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(BEAT_S)
            now = time.monotonic()
            try:
                await self._beat_once(ledger, door, now - last)
                last = now
            except LedgerError as error:
                LOG.error("%s", error)

    async def _beat_once(self, ledger: Ledger, door: Door, elapsed_s: float) -> None:
        """Tell that this door lives, and settle what dead ones left."""
        pool = None if self._prices is None else self._prices.pool_usd_per_hour
        await ledger.run(beat(door.id, time.time(), elapsed_s, pool))
        doors, beats = await ledger.run(doors_with_open_requests())
        for dead in ledger.dead([other for other in doors if other != door.id], beats, time.time()):
            for id in await ledger.run(open_requests(dead)):
                await ledger.run(settle(id, None, "interrupted", time.time()))


def _shown_state(state: str) -> str:
    """Without a password."""
    return f"postgresql://...@{state.rpartition('@')[2]}" if state.startswith(POSTGRES) and "@" in state else state


def _bind(host: str, port: int) -> socket.socket:
    """The address, taken before anything slow is done. Raises ServeError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ServeError(f"cannot listen at {host}:{port}: {error.strerror or error}") from None
    return bound


@contextlib.contextmanager
def _task(work: Coroutine[Any, Any, None]) -> Iterator[None]:
    """Work beside everything else, ended with it."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
