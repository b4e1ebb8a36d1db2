"""The tokenizer of a checkpoint, opened when it is first needed: rows of `input_ids` take none.

Text is tokenized as it stands, without special tokens; what a chat template writes is text like any other.
"""

import contextlib
import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.files import check_folder
from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES, read_json
from halfbyte.data import tiktoken
from halfbyte.data.vocabulary import TIKTOKEN, VOCABULARY_FILES
from halfbyte.disk import is_missing, read_regular
from halfbyte.errors import CheckpointError, DataError
from halfbyte.models import find, text_config_of

NO_LIMIT = 10**9
_PLACEHOLDER = "HALFBYTE PLACEHOLDER"


class Tokenizer:
    """transformers' tokenizer of one checkpoint folder.

    vocab_size: rows of the embedding by config.json (a padded table has more than the tokenizer knows).
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        size = config.get("vocab_size")
        if type(size) is not int or size < 1:
            raise CheckpointError(f"{folder}/config.json: vocab_size is {str(size)[:80]!r}, wanted a positive integer")
        self.vocab_size = size
        self.context = config.get("max_position_embeddings")

    @cached_property
    def inner(self) -> Any:
        """transformers' own object. Raises CheckpointError if the folder holds no tokenizer that can be opened."""
        tokenizer = load_tokenizer(self.folder)
        tokenizer.model_max_length = NO_LIMIT  # how long a sequence may be is ours to decide, and to say
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` without special tokens."""
        ids: list[int] = self.inner(text, add_special_tokens=False)["input_ids"]
        return ids

    def chat(self, messages: list[dict[str, Any]], tools: list[Any] | None = None) -> list[int]:
        """Token ids of a conversation under the checkpoint's chat template. Raises DataError if it does not fit."""
        if not self.inner.chat_template:
            raise DataError(
                f"{self.folder}: its tokenizer has no chat template, rows of messages need one",
                hint="give rows of text, or put chat_template.jinja into the folder",
            )
        try:
            text: str = self.inner.apply_chat_template(messages, tools=tools or None, tokenize=False)
        except Exception as error:  # a template is a program; it can fail in any way
            raise DataError(f"the chat template cannot render these messages: {str(error)[:200]}") from None
        return self.encode(text)

    @cached_property
    def chat_frame(self) -> tuple[list[int], list[int]] | None:
        """Token ids before and after what a user says when the assistant is to answer at once, without thinking.

        None where there is no chat template, or one that changes what the user said.
        """
        if self.fingerprint is None or not self.inner.chat_template:
            return None
        options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        message = {"role": "user", "content": _PLACEHOLDER}
        try:
            text: str = self.inner.apply_chat_template([message], **options)
        except Exception:  # a template is a program; one that fails on a plain question frames nothing
            return None
        before, found, after = text.partition(_PLACEHOLDER)
        return (self.encode(before), self.encode(after)) if found and _PLACEHOLDER not in after else None

    def decode(self, ids: list[int]) -> str:
        text: str = self.inner.decode(ids)
        return text

    @cached_property
    def separator(self) -> list[int]:
        """What stands between packed documents: the end-of-text token, nothing where there is no tokenizer."""
        if self.fingerprint is None or self.inner.eos_token_id is None:
            return []
        return [int(self.inner.eos_token_id)]

    @cached_property
    def fingerprint(self) -> str | None:
        """SHA-256 over the content of the vocabulary files, whatever their layout; None if the folder has none."""
        digest, found = hashlib.sha256(), False
        for name in VOCABULARY_FILES:
            if is_missing(path := self.folder / name):
                continue
            content, found = read_regular(path, JSON_LIMIT_BYTES), True
            with contextlib.suppress(ValueError, RecursionError):
                content = json.dumps(json.loads(content), sort_keys=True).encode()
            digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        return digest.hexdigest() if found else None


LARGEST = {
    "chat_template.jinja": 16 << 20,
    "additional_chat_templates/*": 16 << 20,
    "*.json": JSON_LIMIT_BYTES,
    "*.model": JSON_LIMIT_BYTES,
    "vocab.*": JSON_LIMIT_BYTES,
    "merges.txt": JSON_LIMIT_BYTES,
}
"""Bytes of a tokenizer's files; the largest published vocabularies take 0.1 GB."""


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer of a checkpoint folder; no code that comes with the model is run.

    Raises CheckpointError if the folder holds none that can be opened.
    """
    from transformers import AutoTokenizer

    try:
        family = find(read_json(folder / "config.json").get("model_type"))
        known = family.llama_cpp if family is not None and not (folder / "tokenizer.json").is_file() else None
        if known is not None and known.vocabulary == "tiktoken" and (folder / TIKTOKEN).is_file():
            return tiktoken.fast_tokenizer(folder, next(iter(known.splitting)))
        _check_sizes(folder)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except CheckpointError:
        raise
    except Exception as error:  # transformers raises whatever the broken file led to
        raise CheckpointError(
            f"{folder}: its tokenizer cannot be opened: {' '.join(str(error).split())[:300]}",
            hint="complete the download (tokenizer.json, tokenizer_config.json), or give rows of input_ids",
        ) from None


def _check_sizes(folder: Path) -> None:
    """Raise CheckpointError for a file that transformers would read whole though no tokenizer has one so large."""
    for pattern, limit in LARGEST.items():
        for path in folder.glob(pattern):
            if path.stat().st_size > limit:
                raise CheckpointError(
                    f"{path}: {path.stat().st_size:,} bytes, wanted at most {limit:,}",
                    hint="copy it from the source model again",
                )


def open_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder. Raises CheckpointError (no folder, no config.json, no vocab_size)."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder", hint="give a checkpoint folder")
    check_folder(folder, follow_links=True)
    return Tokenizer(folder, text_config_of(read_json(folder / "config.json")))
