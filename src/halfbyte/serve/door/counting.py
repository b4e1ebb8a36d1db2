"""Tokens from what upstreams say of usage, in all the forms in which they say it."""

from typing import Any

from halfbyte.serve.money import Tokens


def tokens_of(usage: Any) -> tuple[int | None, Tokens] | None:
    """(prompt tokens if they are said, all that is said), None where it is no usage.

    OpenAI's chat and Responses, Anthropic's (whose input excludes what was cached), vLLM's nulls, SGLang's
    `reasoning_tokens` beside the others.
    """
    if not isinstance(usage, dict):
        return None
    output = _first(usage, "completion_tokens", "output_tokens")
    prompt = _first(usage, "prompt_tokens")
    read = _first(usage, "cache_read_input_tokens")
    cached = None
    for name in ("prompt_tokens_details", "input_tokens_details"):
        cached = cached if cached is not None else _detail(usage, name, "cached_tokens")
    if prompt is None:
        prompt = _first(usage, "input_tokens")
        if prompt is not None and (read is not None or "cache_creation_input_tokens" in usage):
            prompt += (read or 0) + (_first(usage, "cache_creation_input_tokens") or 0)
    total = _first(usage, "total_tokens")
    if prompt is None and total is not None and output is not None:
        prompt = max(total - output, 0)
    if output is None and total is not None and prompt is not None:
        output = max(total - prompt, 0)
    if output is None and prompt is None:
        return None
    reasoning = None
    for name in ("completion_tokens_details", "output_tokens_details"):
        reasoning = reasoning if reasoning is not None else _detail(usage, name, "reasoning_tokens")
    if reasoning is None:
        reasoning = _first(usage, "reasoning_tokens")
    if cached is None:
        cached = read if read is not None else _first(usage, "prompt_cache_hit_tokens", "cached_tokens")
    spent, given = output or 0, prompt or 0
    tokens = Tokens(given, min(cached or 0, given), spent, min(reasoning or 0, spent))
    return prompt, tokens


def says_reasoning(usage: dict[str, Any]) -> bool:
    """Whether a usage says how many tokens were reasoning."""
    return (
        _detail(usage, "completion_tokens_details", "reasoning_tokens") is not None
        or _detail(usage, "output_tokens_details", "reasoning_tokens") is not None
        or _first(usage, "reasoning_tokens") is not None
    )


def _detail(usage: dict[str, Any], name: str, key: str) -> int | None:
    details = usage.get(name)
    return _first(details, key) if isinstance(details, dict) else None


def _first(values: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = values.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53:
            return value
    return None
