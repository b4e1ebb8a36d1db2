"""transformers: the exact reference, and the way on machines where llama.cpp does not run."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, TextIteratorStreamer

from halfbyte.chat.answer import Summary
from halfbyte.chat.options import Sampling
from halfbyte.checkpoint.files import check_folder
from halfbyte.checkpoint.json_file import read_json
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.tokenizer import load_tokenizer
from halfbyte.engines.local import LLAMA_CPP
from halfbyte.errors import CheckpointError, UnsupportedError, said
from halfbyte.models import find, is_wrapped, roles_of
from halfbyte.models.answers import AnswerFormat, Delta, PlainText
from halfbyte.modules import attention
from halfbyte.stream.model_config import model_config


def _check_idle(checkpoint: Checkpoint) -> None:
    """Raises UnsupportedError for a checkpoint that transformers' module for experts without weights does not load."""
    family = find(checkpoint.config.get("model_type"))
    if family is None or not family.idle_weights:
        return
    if not any(map(roles_of(checkpoint.config).is_buffer, checkpoint.tensors)):
        raise UnsupportedError(
            f"{checkpoint.folder}: transformers wants weights of the experts that have none, as it saves them itself",
            hint="serve it with vLLM or SGLang",
        )


class Transformers:
    """One model in float32 on the CPU, in BF16 on a GPU."""

    def __init__(self, folder: Path, follow_links: bool = False) -> None:
        if not folder.is_dir():
            raise CheckpointError(f"{folder}: no such folder", hint="transformers takes a checkpoint folder")
        check_folder(folder, follow_links)
        with Checkpoint.open(folder) as checkpoint:  # a format that is not read, damage, pickles: refused by name
            if is_wrapped(checkpoint.config):
                raise UnsupportedError(
                    f"{folder}: its text model stands beside other towers, which transformers names otherwise",
                    hint="serve it with vLLM or SGLang, or chat with a checkpoint of the text model alone",
                )
            _check_idle(checkpoint)
        import halfbyte.runtime  # registers the loader of ModelOpt NVFP4 checkpoints, so not before it is needed

        assert halfbyte.runtime
        cuda = torch.cuda.is_available()
        dtype = torch.bfloat16 if cuda else torch.float32
        self._folder, config = folder, model_config(folder)
        self._family = find(read_json(folder / "config.json").get("model_type"))
        self._tokenizer: Any = load_tokenizer(folder)
        # eager: transformers' sdpa path of glm_moe_dsa selects wrongly whenever a mask is built
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, attn_implementation="eager", output_loading_info=True
        )
        if loaded["missing_keys"]:  # transformers would make them up
            raise CheckpointError(
                f"{folder}: {len(loaded['missing_keys'])} weight(s) of the model are not there, first "
                f"{min(loaded['missing_keys'])}",
                hint="complete the download; check that config.json belongs to these weights",
            )
        self._model = (model.cuda() if cuda else model).eval()
        model.generation_config.use_mtp = False  # MiniMax's config asks for layers that were never published
        if attention.sparse_attention(model.config.model_type) is not None:
            attention.install(self._model)
        self.label = f"transformers, {str(dtype).removeprefix('torch.')}"

    def stream(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], sampling: Sampling
    ) -> Iterator[Delta | Summary]:
        answers = None if self._family is None else self._family.answers
        if tools and answers is None:
            raise UnsupportedError(
                f"how {self._model.config.model_type} writes tool calls is not known: none can be read from its text",
                hint=said("{engine} {other} reads them by the model's chat template", other=LLAMA_CPP),
            )
        options: dict[str, Any] = {} if sampling.thinking is None else {"enable_thinking": sampling.thinking}
        prompt = self._rendered(messages, tools, options)
        inputs = self._tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(self._model.device)
        if not inputs["input_ids"].shape[1]:
            raise CheckpointError(f"{self._folder}: its chat template makes nothing of this conversation")
        streamer: Any = TextIteratorStreamer(self._tokenizer, skip_prompt=True, skip_special_tokens=answers is None)
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        chosen: dict[str, Any] = {"do_sample": sampling.temperature > 0}
        if sampling.temperature > 0:
            chosen |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k or None}
        result: dict[str, Any] = {}

        def generate() -> None:
            try:
                result["output"] = self._model.generate(
                    **inputs, max_new_tokens=sampling.max_tokens, streamer=streamer, **chosen
                )
            except BaseException as error:
                result["error"] = error
                streamer.end()

        began, first = time.monotonic(), 0.0
        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        thinking = not prompt.rstrip().endswith("</think>")
        parser: AnswerFormat = PlainText() if answers is None else answers(thinking)
        for text in streamer:
            for delta in parser.feed(text):
                first = first or time.monotonic()
                yield delta
        yield from parser.finish()
        thread.join()
        if "error" in result:
            raise result["error"]
        prompt_tokens = inputs["input_ids"].shape[1]
        tokens = result["output"].shape[1] - prompt_tokens
        ended, first = time.monotonic(), first or time.monotonic()
        yield Summary(
            finish_reason="tool_calls" if parser.calls else "length" if tokens >= sampling.max_tokens else "stop",
            prompt_tokens=prompt_tokens,
            completion_tokens=tokens,
            ttft_ms=1000 * (first - began),
            prefill_tokens_per_s=prompt_tokens / max(first - began, 1e-9),
            decode_tokens_per_s=(tokens - 1) / max(ended - first, 1e-9) if tokens > 1 else 0.0,
        )

    def _rendered(self, messages: list[dict[str, Any]], tools: list[Any] | None, options: dict[str, Any]) -> str:
        """Raises CheckpointError: a template is a program; it can fail in any way."""
        try:
            prompt: str = self._tokenizer.apply_chat_template(
                messages, tools=tools or None, tokenize=False, add_generation_prompt=True, **options
            )
        except Exception as error:
            why = " ".join(str(error)[:200].split())
            raise CheckpointError(
                f"{self._folder}: its chat template cannot render this conversation: {why}",
                hint="copy chat_template.jinja and tokenizer_config.json from the source model",
            ) from None
        return prompt
