"""The tokenizer as GGUF metadata, from tokenizer.json, tokenizer_config.json and the chat template; no transformers.

llama.cpp does not read a tokenizer's splitting rule: it has a list of rules it knows by name (`tokenizer.ggml.pre`).
Its converter finds the name by hashing the ids of a test string; here it is found from the rule itself, the regular
expressions of `pre_tokenizer`. An unknown rule is refused, because a wrong one tokenizes wrongly without a word.
"""

import unicodedata
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, SpecialVocab, TokenType

from halfbyte.checkpoint.source import read_json
from halfbyte.errors import CheckpointError, UnsupportedError, said
from halfbyte.export.sentencepiece import add_sentencepiece

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CAMEL = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_THREE_DIGITS, _ONE_DIGIT = _WORDS.replace("DIGITS", r"\p{N}{1,3}"), _WORDS.replace("DIGITS", r"\p{N}")
_DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
)

_GLM: dict[tuple[str, ...], str] = {(_THREE_DIGITS,): "glm4"}
SPLITTING: dict[str, dict[tuple[str, ...], str]] = {
    "glm_moe_dsa": _GLM,
    "glm4_moe": _GLM,
    "deepseek_v3": {_DEEPSEEK: "deepseek-v3"},
    "deepseek_v32": {_DEEPSEEK: "deepseek-v3"},
    "qwen3_moe": {(_ONE_DIGIT,): "qwen2"},
    "minimax_m2": {(_CAMEL,): "minimax-m2"},
}
"""Family -> the regular expressions of its tokenizer -> llama.cpp's name of the rule (llama-vocab.cpp)."""

GLM_SPECIALS = {"bos": "[gMASK]", "eot": "<|user|>", "unk": "<|endoftext|>", "eom": "<|observation|>"}
"""Roles that the GLM families' tokens have without saying so in tokenizer_config.json."""

MISSING_HINT = "copy tokenizer.json, tokenizer_config.json and chat_template.jinja from the source model"


def add_tokenizer(
    writer: GGUFWriter, folder: Path, model_type: str, vocabulary: str, vocab_size: int, pre: str | None
) -> None:
    """Set all `tokenizer.*` keys. pre: name of the splitting rule, for tokenizers whose rule is not recognised.

    Raises CheckpointError for missing or contradictory files, UnsupportedError for an unknown splitting rule.
    """
    if vocabulary == "llama":
        add_sentencepiece(writer, folder, vocab_size)
        SpecialVocab(folder, n_vocab=vocab_size).add_to_gguf(writer, quiet=True)
        return
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(f"{folder / 'tokenizer.json'}: missing", hint=MISSING_HINT)
    tokenizer = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    tokens, types = token_list(tokenizer, settings, vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre or splitting_rule(tokenizer, model_type))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = SpecialVocab(folder, load_merges=True)
    special.add_special_token |= _added_at_ends(tokenizer, settings, special)
    if model_type in ("glm_moe_dsa", "glm4_moe"):
        added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
        for kind, token in GLM_SPECIALS.items():
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


def splitting_rule(tokenizer: dict[str, Any], model_type: str) -> str:
    """llama.cpp's name for a tokenizer's splitting rule.

    A rule that differs only in taking digits one by one is the same one if no token holds two digits, as in tiny-glm.
    """
    splitters = tokenizer.get("pre_tokenizer") or {}
    parts = splitters.get("pretokenizers", [splitters]) if isinstance(splitters, dict) else []
    found = tuple(part["pattern"].get("Regex", "") for part in parts if part.get("type") == "Split")
    known = SPLITTING[model_type]
    if found in known:
        return known[found]
    if found == (_ONE_DIGIT,) and (_THREE_DIGITS,) in known and not _any_two_digits(tokenizer["model"]["vocab"]):
        return known[(_THREE_DIGITS,)]
    shown = " then ".join(found)[:200] or "none"
    raise UnsupportedError(
        f"tokenizer.json: splits text by a rule that is not {' or '.join(known.values())}: {shown}",
        hint=said("if llama.cpp knows the rule under another name, give that name ({tokenizer_pre})"),
    )


def _any_two_digits(vocabulary: dict[str, int]) -> bool:
    """Whether a token spans two characters of Unicode's number categories. Tokens are spelled in byte-level letters."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    for token in vocabulary:
        text = bytes(byte_of.get(letter, 0) for letter in token).decode("utf-8", "ignore")
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
