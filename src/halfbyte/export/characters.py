"""A BPE of characters (Gemma 4) as GGUF metadata: spaces are `\u2581`, a character without a token is its bytes.

llama.cpp has one rule for it, which goes with its name and splits at runs of newlines only. Source: `Gemma4Model` in
llama.cpp's conversion/gemma.py at 061b8c5, `LlamaHfVocab` of gguf 0.19.
"""

import re
from typing import Any

from gguf import GGUFWriter, TokenType

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models.llama_cpp import LlamaCpp

SCORE = -1000.0
"""Of every token, as the converter writes it; a BPE has none."""

SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


def add_characters(writer: GGUFWriter, tokenizer: dict[str, Any], architecture: LlamaCpp, vocab_size: int) -> None:
    """Set the token list. Raises UnsupportedError for a tokenizer of another kind, CheckpointError for one of another
    model."""
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise UnsupportedError("tokenizer.json: is not a BPE tokenizer")
    if not model.get("byte_fallback") or tokenizer.get("normalizer") != SPACES:
        raise UnsupportedError(
            "tokenizer.json: is no BPE of characters that spells spaces \u2581 and falls back to bytes"
        )
    texts: dict[int, str] = {number: text for text, number in model["vocab"].items()}
    added = {token["id"]: token for token in tokenizer.get("added_tokens", [])}
    texts |= {number: token["content"] for number, token in added.items()}
    if max(texts, default=0) >= vocab_size:
        raise CheckpointError(
            f"tokenizer.json: token {max(texts)} is beyond config.json's vocab_size of {vocab_size}",
            hint="the tokenizer does not belong to this model",
        )
    special = {number for number, token in added.items() if token.get("special")}
    writer.add_tokenizer_model(architecture.name)
    writer.add_token_list([texts.get(number, f"[PAD{number}]") for number in range(vocab_size)])
    writer.add_token_scores([SCORE] * vocab_size)
    kinds = [_kind(texts.get(number), number in special, architecture.shown) for number in range(vocab_size)]
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(False)


def _kind(text: str | None, special: bool, shown: frozenset[str]) -> TokenType:
    if text is None:
        return TokenType.UNUSED
    if text in shown:
        return TokenType.USER_DEFINED
    if re.fullmatch("<0x[0-9A-Fa-f]{2}>", text):
        return TokenType.BYTE
    return TokenType.CONTROL if special else TokenType.NORMAL
