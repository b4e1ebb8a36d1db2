"""A tiktoken vocabulary (Kimi K2) as GGUF metadata: byte-level BPE, its merges worked out again."""

from pathlib import Path

from gguf import GGUFWriter, TokenType

from halfbyte.data.tiktoken import Vocabulary
from halfbyte.data.vocabulary import TIKTOKEN
from halfbyte.errors import CheckpointError


def add_tiktoken(writer: GGUFWriter, folder: Path, vocab_size: int, pre: str) -> None:
    """Set token list, types and merges. Raises CheckpointError if a file is missing or malformed."""
    vocabulary = Vocabulary.read(folder)
    special = vocabulary.special
    texts = vocabulary.spelled() | special
    if max(texts) >= vocab_size:
        raise CheckpointError(
            f"{folder / TIKTOKEN}: token {max(texts)} is beyond config.json's vocab_size of {vocab_size}",
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
    writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges()])
