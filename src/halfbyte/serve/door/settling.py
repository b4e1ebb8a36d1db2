"""Settling: written until it is, whatever happens to the request; a client learns its end after that, if it can be."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from halfbyte.serve.door.metrics import Metrics
from halfbyte.serve.door.service import Service
from halfbyte.serve.ledger.errors import LedgerError
from halfbyte.serve.ledger.opening import Ledger
from halfbyte.serve.ledger.settle import checkpoint, settle
from halfbyte.serve.money import FREE, Tokens

LOG = logging.getLogger("halfbyte.serve")
SETTLE_WAIT_S = 5.0
LONGEST_RETRY_S = 5.0


class Settling:
    """What goes on of its own beside the requests."""

    def __init__(self, service: Service, ledger: Ledger, metrics: Metrics) -> None:
        self.service, self.ledger, self.metrics = service, ledger, metrics
        self._tasks: set[asyncio.Task[Any]] = set()

    async def first(self, id: str, tenant: str, tokens: Tokens, status: str) -> None:
        """Before the client learns that it has all; a ledger that does not answer is waited for a while only."""
        task = self.later(self.settle(id, tenant, tokens, status))
        await asyncio.wait((task,), timeout=SETTLE_WAIT_S)

    async def settle(self, id: str, tenant: str, tokens: Tokens, status: str) -> None:
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

    async def checkpoint(self, id: str, tokens: Tokens) -> None:
        try:
            await self.ledger.run(checkpoint(id, tokens))
        except LedgerError as error:
            LOG.error("request %s: no checkpoint: %s", id, error)

    def later(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Goes on whatever happens to the request."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def done(self, timeout_s: float) -> None:
        """Wait until everything that ended is settled."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)
