"""Reserving for a request by the bound of its prompt, which is counted where a limit is near; what a refusal says."""

import time

from halfbyte.serve.door.calls import MESSAGE_TOKENS, TEMPLATE_TOKENS, Call
from halfbyte.serve.door.http import Headers
from halfbyte.serve.door.refusal import Refusal, bad_request
from halfbyte.serve.door.service import Service
from halfbyte.serve.door.upstream import Upstreams
from halfbyte.serve.ledger.opening import Ledger
from halfbyte.serve.ledger.reserve import Ask, Refused, Reserved, Standing, TooRough, reserve
from halfbyte.serve.ledger.tenants import Key
from halfbyte.serve.money import FREE
from halfbyte.serve.tenant import MOST

MOST_UNSEEN_TOKENS = 4096
COUNT_FOR_S = 10.0
"""How long a tenant's prompts are counted at once, after one whose bound was too rough for what is left."""


class Reservations:
    """door: the id that its rows bear."""

    def __init__(self, service: Service, ledger: Ledger, upstreams: Upstreams, door: str) -> None:
        self.service, self.ledger, self.upstreams, self.door = service, ledger, upstreams, door
        self._unseen_tokens: dict[str, int] = {}  # by tenant: how far usage went beyond the bound of a prompt
        self._counts_until: dict[str, float] = {}  # by tenant, monotonic seconds: its limits are near

    def learn(self, tenant: str, call: Call, prompt: int) -> None:
        """How far a prompt went beyond its bound."""
        unseen = min(prompt - call.prompt_bound, MOST_UNSEEN_TOKENS)
        if unseen > self._unseen_tokens.get(tenant, 0):
            self._unseen_tokens[tenant] = unseen

    async def take(self, key: Key, call: Call, id: str) -> Reserved:
        """Take what a request may use. Raises Refusal; LedgerError, after which it may be written all the same.

        Where the engine has a tokenizer and the bound of a prompt by its length is too rough, it is counted.
        """
        limits, price = key.limits, self.service.price
        if price is None and limits.has_budget_in_usd:
            raise Refusal(
                403, "no_price", "this key has a budget in dollars, and the model no price", type="permission_error"
            )
        prompt = call.prompt_bound + self._unseen_tokens.get(key.tenant, 0)
        tokenizer = None
        if limits.counts_tokens:
            for name in ("previous_response_id", "conversation", "chat_template"):
                if call.document.get(name):
                    raise bad_request(f"{name}: not with a key whose tokens are limited", name)
            tokenizer = self.upstreams.tokenizer()
        if tokenizer is not None:
            if self._counts_until.get(key.tenant, 0.0) <= time.monotonic():
                found = await self._try(key, call, id, prompt, rough=True)
                if not isinstance(found, TooRough):
                    return found
                self._counts_until[key.tenant] = time.monotonic() + COUNT_FOR_S
            counted = await tokenizer.count_prompt(self.service.model, call)
            if counted is not None:
                messages = call.document.get("messages") or call.document.get("input")
                pieces = len(messages) if isinstance(messages, list) else 1
                around = 0 if counted[1] else TEMPLATE_TOKENS + MESSAGE_TOKENS * pieces
                prompt = min(prompt, counted[0] + around)
        found = await self._try(key, call, id, prompt)
        assert isinstance(found, Reserved)
        return found

    async def _try(self, key: Key, call: Call, id: str, prompt: int, rough: bool = False) -> Reserved | TooRough:
        """Raises Refusal, LedgerError."""
        room = self.service.context
        if room is not None and not rough:
            room = max(room - prompt, 1)
        ask = Ask(id, key.tenant, self.service.model, prompt, call.choices, call.max_tokens, room, rough)
        found = await self.ledger.run(reserve(ask, self.service.price or FREE, self.door, time.time()))
        if isinstance(found, Refused):
            raise too_much(key, found)
        return found


def standing_headers(key: Key, standing: Standing) -> Headers:
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


def too_much(key: Key, refused: Refused) -> Refusal:
    headers = {name.decode(): value.decode() for name, value in standing_headers(key, refused.standing)}
    budget = refused.limit.startswith(("tokens_per_", "usd_per_"))
    return Refusal(
        429,
        "insufficient_quota" if budget else "rate_limit_exceeded",
        refused.message,
        type="insufficient_quota" if budget else "rate_limit_error",
        headers={"retry-after": str(max(refused.retry_after_s, 1)), **headers},
        reason=refused.limit,
    )
