"""How running engines are asked for log-probabilities of given tokens, and how they answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MOST_ALTERNATIVES = 200
"""That llama.cpp is asked for, which tells only the likeliest: the token in question has to be among them."""


@dataclass(frozen=True)
class Scored:
    """One position. logprob: of the token in question, None if the engine does not say; at_most: what it cannot
    exceed then. top: the likeliest token there."""

    logprob: float | None
    at_most: float
    top: int


def native_generate(ids: Sequence[int]) -> dict[str, Any]:
    """SGLang, `POST /generate` (`return_logprob`; read in 0.5.23)."""
    return {
        "input_ids": list(ids),
        "sampling_params": {"max_new_tokens": 1, "temperature": 0},
        "return_logprob": True,
        "logprob_start_len": 0,
        "top_logprobs_num": 1,
    }


def from_native_generate(answer: Any, first: int) -> list[Scored]:
    """Raises KeyError, TypeError, ValueError, IndexError for what is no such answer."""
    meta = answer["meta_info"]
    pairs = list(zip(meta["input_token_logprobs"], meta["input_top_logprobs"], strict=True))[first:]
    return [Scored(float(token[0]), 0.0, int(top[0][1])) for token, top in pairs]


def prompt_scores(model: str, ids: Sequence[int]) -> dict[str, Any]:
    """vLLM, `POST /v1/completions` (`prompt_logprobs`; read in 0.33)."""
    return {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 1}


def from_prompt_scores(answer: Any, ids: Sequence[int], first: int) -> list[Scored] | None:
    """None where the engine does not know the field. Raises as above."""
    choice = answer["choices"][0]
    rows = choice.get("prompt_logprobs")
    if rows is None:
        return None
    found = []
    for token, row in list(zip(ids, rows, strict=True))[first:]:
        top = next(int(id) for id, entry in row.items() if entry.get("rank") == 1)
        found.append(Scored(float(row[str(token)]["logprob"]), 0.0, top))
    return found


def next_token(model: str, ids: Sequence[int]) -> dict[str, Any]:
    """llama.cpp, `POST /v1/completions`: what comes next; it scores no prompt (run, xllamacpp 2026.10)."""
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": MOST_ALTERNATIVES,
        "cache_prompt": True,
    }


def from_next_token(answer: Any, token: int) -> Scored:
    """Raises as above."""
    rows = list(_alternatives(answer["choices"][0]["logprobs"]))
    top = max(rows, key=lambda row: row[1])
    own = next((value for id, value in rows if id == token), None)
    return Scored(own, min(value for _, value in rows), top[0])


def _alternatives(logprobs: Any) -> Iterator[tuple[int, float]]:
    for row in logprobs["content"][0]["top_logprobs"]:
        yield int(row["id"]), float(row["logprob"])
