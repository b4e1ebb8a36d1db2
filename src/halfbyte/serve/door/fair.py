"""Whose turn it is: deficit round robin over reserved tokens, the higher priority first."""

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

QUANTUM_TOKENS = 512
"""What each tenant may take in one round; a request costs what it reserves."""


@dataclass
class _Flow:
    """One tenant's waiting requests. deficit: tokens it may take now."""

    deficit: int = 0
    waiting: deque[tuple[int, "asyncio.Future[Any]"]] = field(default_factory=deque)


class FairQueue:
    """Requests that wait for a slot."""

    def __init__(self) -> None:
        self._flows: dict[int, dict[str, _Flow]] = {}
        self.requests = self.tokens = 0

    def put(self, tenant: str, priority: int, cost: int, turn: "asyncio.Future[Any]") -> None:
        flow = self._flows.setdefault(priority, {}).setdefault(tenant, _Flow())
        flow.waiting.append((max(cost, 1), turn))
        self.requests += 1
        self.tokens += max(cost, 1)

    def take(self) -> "asyncio.Future[Any] | None":
        """Who comes next; None where nobody waits. Those who gave up are passed over."""
        while self._flows:
            priority = max(self._flows)
            flows = self._flows[priority]
            tenant = _next(flows)
            flow = flows.pop(tenant)
            cost, turn = flow.waiting.popleft()
            self.requests -= 1
            self.tokens -= cost
            if not turn.done():
                flow.deficit -= cost
            if flow.waiting:
                flows[tenant] = flow  # to the end of the ring
            elif not flows:
                del self._flows[priority]
            if not turn.done():
                return turn
        return None


def _next(flows: dict[str, _Flow]) -> str:
    """The first in the ring to afford its next request, after as few rounds as it takes for anyone to."""
    rounds = {
        tenant: max(0, math.ceil((flow.waiting[0][0] - flow.deficit) / QUANTUM_TOKENS))
        for tenant, flow in flows.items()
    }
    fewest = min(rounds.values())
    if fewest:
        for flow in flows.values():
            flow.deficit += fewest * QUANTUM_TOKENS
    return next(tenant for tenant, needed in rounds.items() if needed == fewest)
