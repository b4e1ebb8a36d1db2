"""What an answer is charged with: what its usage says, and where that says nothing, what its texts are in tokens."""

import json
import math
from typing import Any

from halfbyte.serve.door.calls import TEMPLATE_TOKENS, Call
from halfbyte.serve.door.counting import says_reasoning, tokens_of
from halfbyte.serve.door.dialects import RESPONSES, Dialect
from halfbyte.serve.door.meter import StreamMeter, texts_of
from halfbyte.serve.door.service import Service
from halfbyte.serve.door.upstream import Upstream
from halfbyte.serve.money import Tokens

BYTES_A_TOKEN = 4
"""By which a prompt is estimated where neither usage nor a tokenizer tells, and nothing is held against a limit."""


class Charges:
    """Of one service's answers."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def of_whole(self, member: Upstream, call: Call, document: Any, usage: Any) -> Tokens:
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
                prompt = max(prompt or 0, await self.of_prompt(member, call))
                tokens = tokens._replace(prompt=prompt)
        if reasoning and not (isinstance(usage, dict) and says_reasoning(usage)):
            thought = await self._count_text(member, reasoning)
            tokens = tokens._replace(reasoning=min(thought, tokens.output))
        if prompt is None:
            tokens = tokens._replace(prompt=await self.of_prompt(member, call))
        return tokens

    async def _count_text(self, member: Upstream, text: str) -> int:
        """By the engine's tokenizer; where it has none, by length."""
        counted = await member.count_text(self.service.model, text)
        return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_A_TOKEN) if counted is None else counted

    async def of_prompt(self, member: Upstream, call: Call) -> int:
        counted = await member.count_prompt(self.service.model, call)
        return estimate(call) if counted is None else counted[0]

    async def of_stream(self, member: Upstream, meter: StreamMeter, prompt: int) -> Tokens:
        output = reasoning = None
        texts = meter.texts
        if texts is not None and not (meter.says_reasoning or not meter.reasoning):
            reasoning = await member.count_text(self.service.model, texts.of(reasoning=True))
        if texts is not None and not meter.has_usage and meter.delivered:
            other = await member.count_text(self.service.model, texts.of(reasoning=False))
            if reasoning is None and meter.reasoning:
                other = None
            output = None if other is None else other + (reasoning or 0)
        return meter.tokens(prompt, output, reasoning)


def estimate(call: Call) -> int:
    return max((call.prompt_bound - TEMPLATE_TOKENS) // BYTES_A_TOKEN, 1)


def amended(document: dict[str, Any], usage: dict[str, Any], tokens: Tokens, dialect: Dialect) -> bytes | None:
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
