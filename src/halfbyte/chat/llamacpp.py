"""llama.cpp in process, through xllamacpp: loads a GGUF, applies its chat template, parses its answers."""

import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xllamacpp

from halfbyte.chat.answer import Summary
from halfbyte.chat.options import Sampling
from halfbyte.engines.local import LLAMA_CPP
from halfbyte.errors import CheckpointError, HalfbyteError
from halfbyte.models.answers import Delta
from halfbyte.process import fewer_than_all
from halfbyte.text import json_of


class LlamaCpp:
    """One model, one conversation at a time; the prefix of the last request is reused."""

    def __init__(self, file: Path, context_tokens: int) -> None:
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file")
        settings = xllamacpp.CommonParams()
        settings.model.path = str(file)
        settings.n_ctx, settings.n_parallel, settings.port = context_tokens, 1, 0
        threads = fewer_than_all()  # it looks at the machine alone
        if threads is not None:
            settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
        settings.verbosity, settings.warmup, settings.ui = -1, False, False
        try:
            self._server = xllamacpp.Server(settings)
        except RuntimeError as error:
            raise CheckpointError(f"{file}: llama.cpp cannot load it: {error}") from None
        self.label: str = LLAMA_CPP

    def stream(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], sampling: Sampling
    ) -> Iterator[Delta | Summary]:
        request: dict[str, Any] = {
            "messages": messages,
            "stream": True,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "cache_prompt": True,
        }
        if tools:
            request["tools"] = tools
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        if sampling.thinking is not None:
            request["chat_template_kwargs"] = {"enable_thinking": sampling.thinking}
        yield from _deltas(self._chunks(request))

    def _chunks(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The server's chunks, which arrive by callback on its own thread, as an iterator."""
        arrived: queue.Queue[Any] = queue.Queue()
        abandoned = threading.Event()

        def chunk(document: Any) -> bool:
            arrived.put(document)
            return abandoned.is_set()  # True stops the generation

        def ask() -> None:
            try:
                answer = self._server.handle_chat_completions(request, chunk)
                arrived.put(answer if isinstance(answer, dict) and "error" in answer else None)
            except BaseException as error:
                arrived.put(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            while (document := arrived.get()) is not None:
                if isinstance(document, BaseException):
                    raise HalfbyteError(f"llama.cpp: {document}")
                document = json_of(document) if isinstance(document, str) else document
                if "error" in document:
                    raise HalfbyteError(f"llama.cpp: {document['error'].get('message', document['error'])}")
                yield document
        finally:
            abandoned.set()
            thread.join()


def _deltas(chunks: Iterator[dict[str, Any]]) -> Iterator[Delta | Summary]:
    """OpenAI stream chunks as deltas."""
    began, first = time.monotonic(), 0.0
    finish = "stop"
    timings: dict[str, Any] = {}
    for document in chunks:
        timings = document.get("timings") or timings
        for choice in document.get("choices", []):
            finish = choice.get("finish_reason") or finish
            for delta in _parts(choice.get("delta") or {}):
                first = first or time.monotonic()
                yield delta
    yield Summary(
        finish_reason=finish,
        prompt_tokens=int(timings.get("prompt_n", 0) + timings.get("cache_n", 0)),
        completion_tokens=int(timings.get("predicted_n", 0)),
        ttft_ms=1000 * ((first or time.monotonic()) - began),
        prefill_tokens_per_s=float(timings.get("prompt_per_second") or 0),
        decode_tokens_per_s=float(timings.get("predicted_per_second") or 0),
    )


def _parts(delta: dict[str, Any]) -> Iterator[Delta]:
    if delta.get("reasoning_content"):
        yield Delta("reasoning", delta["reasoning_content"])
    if delta.get("content"):
        yield Delta("content", delta["content"])
    for call in delta.get("tool_calls") or []:
        function = call.get("function") or {}
        if function.get("name"):
            yield Delta("tool_name", function["name"], call.get("index", 0))
        if function.get("arguments"):
            yield Delta("tool_arguments", function["arguments"], call.get("index", 0))
