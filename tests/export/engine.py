"""llama.cpp in process, as the tests and the recorded figures use it: one slot, one thread, greedy."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp


class Engine:
    """One loaded GGUF. exact: keys and values are kept in float32, and attention is summed in it."""

    def __init__(self, path: Path, context: int = 1024, exact: bool = False) -> None:
        settings = xllamacpp.CommonParams()
        settings.model.path = str(path)
        settings.n_gpu_layers, settings.n_ctx, settings.n_parallel = 0, context, 1
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        if exact:
            settings.flash_attn_type = type(settings.flash_attn_type)(0)
            settings.cache_type_k = settings.cache_type_v = type(settings.cache_type_k)(0)
        settings.verbosity, settings.port, settings.warmup, settings.ui = 0, 0, False, False
        self._server = xllamacpp.Server(settings)

    def chat(self, messages: list[dict[str, str]], max_tokens: int = 200) -> dict[str, Any]:
        """The answer's message: `content` and `reasoning_content`."""
        request = {"messages": messages, "max_tokens": max_tokens, "temperature": 0}
        message: dict[str, Any] = _object(self._server.handle_chat_completions(request))["choices"][0]["message"]
        return message

    def next_token(self, prompt: list[int], chosen: int, top: int = 1) -> tuple[float | None, dict[int, float]]:
        """Log-probability of token `chosen` after `prompt` (None if it is part of a character), and of the `top` ones.

        The token is forced by a bias; the probabilities reported are those before it.
        """
        request = {
            "prompt": prompt,
            "n_predict": 1,
            "n_probs": top,
            "temperature": 1,
            "samplers": [],
            "logit_bias": [[chosen, 1000.0]],
            "cache_prompt": True,
        }
        found = _object(self._server.handle_completions(request))["choices"][0]["logprobs"]
        if found is None:
            return None, {}
        (entry,) = found["content"]
        assert entry["id"] == chosen
        return entry["logprob"], {other["id"]: other["logprob"] for other in entry["top_logprobs"]}

    def tokenize(self, text: str) -> list[int]:
        request = urllib.request.Request(
            self._server.listening_address + "/tokenize",
            data=json.dumps({"content": text}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            tokens: list[int] = json.load(answer)["tokens"]
        return tokens


def _object(answer: Any) -> dict[str, Any]:
    result: dict[str, Any] = answer if isinstance(answer, dict) else json.loads(answer)
    return result
