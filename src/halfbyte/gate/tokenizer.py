"""Is the tokenizer whole, and does it fit the embedding? By its files alone."""

from collections.abc import Iterator, Mapping
from typing import Any

from halfbyte.gate.findings import Found, printable
from halfbyte.gate.reading import parse_json

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json")


def judge_tokenizer(side: Mapping[str, bytes], vocabulary: int | None) -> Iterator[Found]:
    """vocabulary: rows of the embedding, where known."""
    for name in FILES:
        if name not in side:
            continue
        document, problem = parse_json(side[name])
        if document is None:
            yield Found(f"{name}: {problem}", file=name)
        elif name == "tokenizer.json":
            yield from _judge_fast(document, vocabulary)
        elif name == "generation_config.json" and vocabulary is not None:
            yield from _judge_stops(document, vocabulary)


def _judge_fast(document: dict[str, Any], vocabulary: int | None) -> Iterator[Found]:
    name = "tokenizer.json"
    model = document.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict | list) or not vocab:
        yield Found(f"{name}: has no model with a vocabulary", file=name)
        return
    ids = list(vocab.values()) if isinstance(vocab, dict) else list(range(len(vocab)))
    added = document.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict):
            ids.append(token.get("id"))
    wrong = [number for number in ids if type(number) is not int or number < 0]
    if wrong:
        yield Found(f"{name}: a token has the id {printable(str(wrong[0]), 60)}", file=name)
        return
    if isinstance(vocab, dict) and len(set(vocab.values())) != len(vocab):
        yield Found(f"{name}: two tokens share an id", file=name)
    if vocabulary is not None and max(ids) >= vocabulary:
        yield Found(f"{name}: token id {max(ids)}, the embedding has {vocabulary} rows", file=name)


def _judge_stops(document: dict[str, Any], vocabulary: int) -> Iterator[Found]:
    stops = document.get("eos_token_id")
    for stop in stops if isinstance(stops, list) else [stops]:
        if stop is not None and (type(stop) is not int or not 0 <= stop < vocabulary):
            message = (
                f"generation_config.json: eos_token_id {printable(str(stop), 60)}, the embedding has {vocabulary} rows"
            )
            yield Found(message, file="generation_config.json")
