"""A tiktoken vocabulary (`tiktoken.model`, Kimi K2) as GGUF metadata: byte-level BPE, its merges worked out again.

The file has one line a token: its bytes in base64, and its rank, which is its id. A merge is stated nowhere: it is the
last step by which BPE, allowed the lower ranks only, makes the token's bytes one (llama.cpp's conversion/deepseek.py
does the same). Special tokens follow the ranks; tokenizer_config.json names some, the others are reserved.
"""

import base64
import binascii
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from gguf import GGUFWriter, TokenType

from halfbyte.checkpoint.json_file import read_json
from halfbyte.errors import CheckpointError
from halfbyte.export.byte_letters import LETTER

RESERVED = 256 + 2
"""Special tokens behind the ranks, by tokenization_kimi.py."""


def add_tiktoken(writer: GGUFWriter, folder: Path, vocab_size: int, pre: str) -> None:
    """Set token list, types and merges. Raises CheckpointError if a file is missing or malformed."""
    ranks = read_ranks(folder / "tiktoken.model")
    config = folder / "tokenizer_config.json"
    settings = read_json(config) if config.is_file() else {}
    named = {int(number): token["content"] for number, token in settings.get("added_tokens_decoder", {}).items()}
    special = {i: named.get(i, f"<|reserved_token_{i}|>") for i in range(len(ranks), len(ranks) + RESERVED)}
    texts = {rank: _letters(token) for token, rank in ranks.items()} | special
    if max(texts) >= vocab_size:
        raise CheckpointError(
            f"{folder / 'tiktoken.model'}: token {max(texts)} is beyond config.json's vocab_size of {vocab_size}",
            hint="the tokenizer does not belong to this model",
        )
    numbers = range(vocab_size)
    kinds = [
        TokenType.CONTROL if i in special else TokenType.NORMAL if i in texts else TokenType.UNUSED for i in numbers
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([texts.get(i, f"[PAD{i}]") for i in numbers])
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{_letters(left)} {_letters(right)}" for left, right in merges(ranks)])


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token -> rank. Raises CheckpointError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read: {error.strerror}", hint="copy tiktoken.model from the source model"
        ) from None
    try:
        pairs = [line.split() for line in lines if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error):
        raise CheckpointError(f"{path}: is not a tiktoken vocabulary") from None
    if sorted(ranks.values()) != list(range(len(pairs))):
        raise CheckpointError(f"{path}: its ranks are not 0 to {len(pairs) - 1}, each once")
    return ranks


def merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The two parts that each longer token is merged from, by rank; a token that BPE cannot reach has none."""
    for token, rank in ranks.items():
        if len(token) == 1:
            continue
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            found = [ranks.get(left + right, rank) for left, right in pairwise(parts)]
            lowest = min(found)
            if lowest >= rank:
                break
            at = found.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]


def _letters(token: bytes) -> str:
    return "".join(LETTER[byte] for byte in token)
