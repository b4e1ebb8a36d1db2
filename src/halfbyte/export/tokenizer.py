"""The tokenizer as GGUF metadata, from tokenizer.json, tokenizer_config.json and the chat template; no transformers.

llama.cpp does not read a tokenizer's splitting rule: it has a list of rules it knows by name (`tokenizer.ggml.pre`).
Its converter finds the name by hashing the ids of a test string; here it is found from the rule itself, the regular
expressions of `pre_tokenizer`. An unknown rule is refused, because a wrong one tokenizes wrongly without a word.
"""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, SpecialVocab, TokenType

from halfbyte.checkpoint.json_file import read_json
from halfbyte.data.byte_letters import BYTE
from halfbyte.disk import is_missing
from halfbyte.errors import CheckpointError, UnsupportedError, said
from halfbyte.export.characters import add_characters
from halfbyte.export.sentencepiece import add_sentencepiece
from halfbyte.export.tiktoken import add_tiktoken
from halfbyte.models.llama_cpp import LlamaCpp
from halfbyte.models.splitting import ONE_DIGIT, THREE_DIGITS

MISSING_HINT = "copy tokenizer.json, tokenizer_config.json and chat_template.jinja from the source model"


def add_tokenizer(writer: GGUFWriter, folder: Path, architecture: LlamaCpp, vocab_size: int, pre: str | None) -> None:
    """Set all `tokenizer.*` keys. pre: name of the splitting rule, for tokenizers whose rule is not recognised.

    Raises CheckpointError for missing or contradictory files, UnsupportedError for an unknown splitting rule.
    """
    if architecture.vocabulary == "llama":
        add_sentencepiece(writer, folder, vocab_size)
        SpecialVocab(folder, n_vocab=vocab_size).add_to_gguf(writer, quiet=True)
        return
    if architecture.vocabulary == "tiktoken" and is_missing(folder / "tokenizer.json"):
        (known,) = architecture.splitting.values()
        add_tiktoken(writer, folder, vocab_size, pre or known)
        SpecialVocab(folder, load_merges=False).add_to_gguf(writer, quiet=True)
        return
    if is_missing(folder / "tokenizer.json"):
        raise CheckpointError(f"{folder / 'tokenizer.json'}: missing", hint=MISSING_HINT)
    tokenizer = read_json(folder / "tokenizer.json")
    if architecture.vocabulary == "characters":
        add_characters(writer, tokenizer, architecture, vocab_size)
        SpecialVocab(folder, load_merges=True).add_to_gguf(writer, quiet=True)
        writer.add_add_bos_token(True)
        return
    settings = {} if is_missing(folder / "tokenizer_config.json") else read_json(folder / "tokenizer_config.json")
    tokens, types = token_list(tokenizer, settings, vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre or splitting_rule(tokenizer, architecture.splitting))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = SpecialVocab(folder, load_merges=True)
    special.add_special_token |= _added_at_ends(tokenizer, settings, special)
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    for kind, token in architecture.specials.items():
        if token not in added:
            raise CheckpointError(f"{folder / 'tokenizer.json'}: has no token {token!r}, which GLM models use")
        special.special_token_ids.setdefault(kind, added[token])
    special.add_to_gguf(writer, quiet=True)


def token_list(
    tokenizer: dict[str, Any], settings: dict[str, Any], vocab_size: int
) -> tuple[list[str], list[TokenType]]:
    """Text and type of every id below `vocab_size`; ids that no token has are named `[PADn]`."""
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise UnsupportedError("tokenizer.json: is not a byte-level BPE tokenizer")
    texts: dict[int, str] = {number: text for text, number in model["vocab"].items()}
    special: dict[int, bool] = {}
    declared = {int(number): token for number, token in settings.get("added_tokens_decoder", {}).items()}
    for number, token in [(token["id"], token) for token in tokenizer.get("added_tokens", [])] + list(declared.items()):
        texts[number], special[number] = token["content"], bool(token.get("special"))
    if max(texts, default=0) >= vocab_size:
        raise CheckpointError(
            f"tokenizer.json: token {max(texts)} is beyond config.json's vocab_size of {vocab_size}",
            hint="the tokenizer does not belong to this model",
        )
    tokens, types = [], []
    for number in range(vocab_size):
        text = texts.get(number)
        if text is None:
            tokens.append(f"[PAD{number}]")
            types.append(TokenType.UNUSED)
        elif number not in special:
            tokens.append(text)
            types.append(TokenType.NORMAL)
        elif special[number] or _looks_special(text):
            tokens.append(text)
            types.append(TokenType.CONTROL)
        else:
            tokens.append(text.replace("\u2581", " "))
            types.append(TokenType.USER_DEFINED)
    return tokens, types


def _looks_special(text: str) -> bool:
    """Control tokens that some tokenizers declare as ordinary added ones; llama.cpp goes by their looks."""
    marks = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(
        text.startswith(opening) and text.endswith(closing) for opening, closing in marks
    )


def splitting_rule(tokenizer: dict[str, Any], known: Mapping[tuple[str, ...], str]) -> str:
    """llama.cpp's name for a tokenizer's splitting rule.

    A rule that differs only in taking digits one by one is the same one if no token holds two digits, as in tiny-glm.
    """
    splitters = tokenizer.get("pre_tokenizer") or {}
    parts = splitters.get("pretokenizers", [splitters]) if isinstance(splitters, dict) else []
    found = tuple(part["pattern"].get("Regex", "") for part in parts if part.get("type") == "Split")
    if found in known:
        return known[found]
    if found == ONE_DIGIT and THREE_DIGITS in known and not _any_two_digits(tokenizer["model"]["vocab"]):
        return known[THREE_DIGITS]
    shown = " then ".join(found)[:200] or "none"
    raise UnsupportedError(
        f"tokenizer.json: splits text by a rule that is not {' or '.join(known.values())}: {shown}",
        hint=said("if llama.cpp knows the rule under another name, give that name ({tokenizer_pre})"),
    )


def _any_two_digits(vocabulary: dict[str, int]) -> bool:
    """Whether a token spans two characters of Unicode's number categories. Tokens are spelled in byte-level letters."""
    for token in vocabulary:
        text = bytes(BYTE.get(letter, 0) for letter in token).decode("utf-8", "ignore")
        if sum(unicodedata.category(character).startswith("N") for character in text) > 1:
            return True
    return False


def _added_at_ends(tokenizer: dict[str, Any], settings: dict[str, Any], special: SpecialVocab) -> dict[str, bool]:
    """What llama.cpp's current converter reads from the post-processor and gguf 0.19's `SpecialVocab` does not yet.

    A ByteLevel post-processor adds nothing; a template that opens with a token nobody called bos makes it bos.
    """
    processor = tokenizer.get("post_processor") or {}
    processors = {part.get("type"): part for part in processor.get("processors", [processor])}
    template = processors.get("TemplateProcessing", {}).get("single") or []
    if "ByteLevel" in processors and not template:
        return {"bos": False, "eos": False}
    first = template[0].get("SpecialToken", {}).get("id") if len(template) > 1 else None
    if first is None or settings.get("bos_token") or settings.get("cls_token"):
        return {}
    for token in tokenizer.get("added_tokens", []):
        if token["content"] == first:
            special.special_token_ids.setdefault("bos", token["id"])
    return {"bos": True}
