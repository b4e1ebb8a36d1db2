"""A tiktoken vocabulary (`tiktoken.model`, Kimi K2): byte-level BPE whose merges are stated nowhere.

The file has one line a token: its bytes in base64, and its rank, which is its id. A merge is the last step by which
BPE, allowed the lower ranks only, makes the token's bytes one (llama.cpp's conversion/deepseek.py works them out the
same way). Special tokens follow the ranks; tokenizer_config.json names some, the others are reserved. What the model's
own tokenizer class does beside this is never run: it is code that comes with the weights.
"""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES, read_json
from halfbyte.checkpoint.pointers import refuse_pointer
from halfbyte.data.byte_letters import LETTER
from halfbyte.data.vocabulary import TIKTOKEN
from halfbyte.disk import is_missing, read_regular, read_text
from halfbyte.errors import CheckpointError

RESERVED = 256 + 2
"""Special tokens behind the ranks, by tokenization_kimi.py."""


@dataclass(frozen=True)
class Vocabulary:
    """ranks: token -> id. special: id -> text of the others. settings: tokenizer_config.json, empty without one."""

    ranks: dict[bytes, int]
    special: dict[int, str]
    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Vocabulary":
        """Raises CheckpointError for a file that is missing or malformed."""
        ranks, config = _read_ranks(folder / TIKTOKEN), folder / "tokenizer_config.json"
        settings = {} if is_missing(config) else read_json(config)
        named = {int(number): token["content"] for number, token in settings.get("added_tokens_decoder", {}).items()}
        numbers = range(len(ranks), len(ranks) + RESERVED)
        return cls(ranks, {i: named.get(i, f"<|reserved_token_{i}|>") for i in numbers}, settings)

    def spelled(self) -> dict[int, str]:
        """Id -> text of the ranks, in the letters of byte-level BPE."""
        return {rank: _letters(token) for token, rank in self.ranks.items()}

    def merges(self) -> Iterator[tuple[str, str]]:
        """The two parts that each longer token is merged from, by rank; a token that BPE cannot reach has none."""
        for token, rank in self.ranks.items():
            if len(token) == 1:
                continue
            parts = [token[i : i + 1] for i in range(len(token))]
            while len(parts) > 2:
                found = [self.ranks.get(left + right, rank) for left, right in pairwise(parts)]
                lowest = min(found)
                if lowest >= rank:
                    break
                at = found.index(lowest)
                parts[at : at + 2] = [parts[at] + parts[at + 1]]
            if len(parts) == 2:
                yield _letters(parts[0]), _letters(parts[1])


def fast_tokenizer(folder: Path, rule: tuple[str, ...]) -> Any:
    """transformers' fast tokenizer of a vocabulary. rule: regular expressions by which text is split first.

    Raises CheckpointError as `Vocabulary.read` does.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Inner
    from transformers import PreTrainedTokenizerFast

    vocabulary = Vocabulary.read(folder)
    ids = {text: number for number, text in vocabulary.spelled().items()}
    inner = Inner(models.BPE(vocab=ids, merges=list(vocabulary.merges()), ignore_merges=True))  # a known word is itself
    splits = [pre_tokenizers.Split(Regex(part), "isolated") for part in rule]
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([vocabulary.special[number] for number in sorted(vocabulary.special)])
    template, named = folder / "chat_template.jinja", ("bos_token", "eos_token", "pad_token", "unk_token")
    stated_template = vocabulary.settings.get("chat_template")
    stated = {key: _text(vocabulary.settings[key]) for key in named if vocabulary.settings.get(key) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=stated_template if is_missing(template) else read_text(template, JSON_LIMIT_BYTES),
        **stated,
    )


def _text(token: Any) -> str:
    """A special token of tokenizer_config.json: its text, or an object that holds it."""
    return str(token["content"] if isinstance(token, dict) else token)


def _read_ranks(path: Path) -> dict[bytes, int]:
    if is_missing(path):
        raise CheckpointError(f"{path}: cannot be read: no such file", hint=f"copy {TIKTOKEN} from the source model")
    content = read_regular(path, JSON_LIMIT_BYTES)
    refuse_pointer(content, str(path))
    lines = content.splitlines()
    try:
        pairs = [line.split() for line in lines if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error):
        raise CheckpointError(f"{path}: is not a tiktoken vocabulary") from None
    if sorted(ranks.values()) != list(range(len(pairs))):
        raise CheckpointError(f"{path}: its ranks are not 0 to {len(pairs) - 1}, each once")
    return ranks


def _letters(token: bytes) -> str:
    return "".join(LETTER[byte] for byte in token)
