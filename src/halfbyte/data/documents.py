"""`load`: everything `--data` names as documents of token ids with labels, sampled by a seed and a token budget.

A JSONL or Parquet row is one document: `text`, `input_ids` or `messages` (with `tools`), its other scalar fields are
labels to slice by. A text file is one document. Nothing is dropped quietly: a row that cannot be used is an error.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from halfbyte.data.document import Document
from halfbyte.data.mix import shipped_mixes
from halfbyte.data.pack import pack_documents
from halfbyte.data.rows import Row, rows_of
from halfbyte.data.tokenizer import Tokenizer
from halfbyte.errors import DataError, UsageError, said

CONTENT = ("text", "input_ids", "messages")
REPORTED_VALUES = 64
"""A label with more values than this is a name or a number, not a category, and is left out of the report."""


@dataclass(frozen=True)
class Documents:
    """What was loaded, in the order of the arguments and rows."""

    documents: list[Document]

    @property
    def tokens(self) -> int:
        return sum(len(document.ids) for document in self.documents)

    @cached_property
    def sha256(self) -> str:
        """Over ids and labels, in order; not over file names."""
        digest = hashlib.sha256()
        for document in self.documents:
            labels = json.dumps(document.labels, sort_keys=True).encode()
            digest.update(f"{len(document.ids)} {len(labels)} ".encode())
            digest.update(document.ids.astype("<i8").tobytes() + labels)
        return digest.hexdigest()

    def report(self) -> dict[str, Any]:
        """Documents and tokens: in all, by source, and by every label that has few enough values to be a category."""
        groups: dict[str, dict[str, dict[str, int]]] = {}
        for document in self.documents:
            for field, value in {"source": document.source, **document.labels}.items():
                row = groups.setdefault(field, {}).setdefault(value, {"documents": 0, "tokens": 0})
                row["documents"] += 1
                row["tokens"] += len(document.ids)
        sources = groups.pop("source", {})
        labels = {field: rows for field, rows in groups.items() if len(rows) <= REPORTED_VALUES}
        total = {"documents": len(self.documents), "tokens": self.tokens, "sha256": self.sha256}
        return total | {"sources": sources, "labels": labels}


@dataclass(frozen=True, slots=True)
class _Source:
    """One stream of rows. samples: at most so many. labels: for rows that carry none."""

    name: str
    seed: int
    samples: int | None = None
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def shuffled(self) -> bool:
        return self.name.startswith("hf:")


def load(
    paths: Sequence[str],
    tokenizer: Tokenizer,
    *,
    max_length: int | None = None,
    tokens: int | None = None,
    seed: int = 0,
    pack: bool = False,
) -> Documents:
    """Documents of all `paths`: JSONL (.jsonl, .ndjson, .json), Parquet, text, `hf:NAME[:SPLIT]`, or a shipped mix.

    max_length: longer documents are cut off there. tokens: budget; every argument gets an equal share (what one leaves
    over goes to those after it), filled with rows drawn without replacement by `seed`, the last one cut to fit.
    pack: join the documents of an argument, end-of-text between them, and cut them into `max_length` tokens.
    Raises DataError (a bad row, with file and line), UsageError (options), UnsupportedError (a package is missing),
    CheckpointError (the tokenizer cannot be opened).
    """
    for option, value in (("max_length", max_length), ("tokens", tokens)):
        if value is not None and value < 1:
            raise UsageError(said(f"{{{option}}} {{value}}: wanted at least 1", value=value))
    if pack and max_length is None:
        raise UsageError("packing needs a length", hint=said("give {max_length}"))
    sources = [source for path in paths for source in _sources(str(path), seed)]
    if not sources:
        raise UsageError("no data", hint=said("give {data} FILE"))
    found: list[Document] = []
    left = tokens
    for number, source in enumerate(sources):
        share = None if left is None else left // (len(sources) - number)
        if share == 0:
            continue
        if source.shuffled and share is None and source.samples is None:
            raise UsageError(f"{source.name}: a data set is read until a budget is full", hint=said("give {tokens}"))
        documents = _drawn(source, tokenizer, None if pack else max_length, share)
        if left is not None:
            left -= sum(len(document.ids) for document in documents)
        found += pack_documents(documents, max_length, tokenizer.separator) if pack and max_length else documents
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no documents")
    return Documents(found)


def _sources(path: str, seed: int) -> list[_Source]:
    mix = shipped_mixes().get(path)
    if mix is None:
        return [_Source(path, seed)]
    return [_Source(one.name, mix.seed + seed, one.samples, (("category", one.category),)) for one in mix.sets]


def _drawn(source: _Source, tokenizer: Tokenizer, max_length: int | None, budget: int | None) -> list[Document]:
    """Documents of one source within its budget and sample count, in the order of its rows."""
    rows: Iterator[Row] = rows_of(source.name, source.seed)
    if budget is not None and not source.shuffled:
        every = list(rows)
        rows = (every[i] for i in np.random.default_rng(source.seed).permutation(len(every)))
    documents: list[Document] = []
    total = 0
    for row in rows:
        document = _document(row, tokenizer, max_length)
        if budget is not None and total + len(document.ids) > budget:
            document = replace(document, ids=document.ids[: budget - total])
        documents.append(replace(document, labels=dict(source.labels) | document.labels))
        total += len(document.ids)
        if total == budget or len(documents) == source.samples:
            break
    return sorted(documents, key=lambda document: document.row)


def _document(row: Row, tokenizer: Tokenizer, max_length: int | None) -> Document:
    """Raises DataError naming file and line."""
    given = [name for name in CONTENT if row.values.get(name) is not None]
    if len(given) != 1:
        what = f"has {' and '.join(given)}" if given else f"has none of {', '.join(CONTENT)}"
        raise DataError(f"{row.where}: {what}, wanted exactly one", hint="see docs/compare.md, data")
    try:
        ids = _ids(given[0], row.values, tokenizer)
    except DataError as error:
        raise DataError(f"{row.where}: {error.message}", hint=error.hint) from None
    if not ids:
        raise DataError(f"{row.where}: {given[0]} gives no tokens")
    labels = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in row.values.items()
        if key not in (*CONTENT, "tools") and isinstance(value, str | int | float | bool)
    }
    return Document(np.array(ids[:max_length], np.int64), labels, row.source, row.number)


def _ids(kind: str, values: dict[str, Any], tokenizer: Tokenizer) -> list[int]:
    value = values[kind]
    if kind == "text":
        if not isinstance(value, str):
            raise DataError(f"text is {type(value).__name__}, wanted a string")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"text has a lone surrogate at character {error.start}") from None
        return tokenizer.encode(value)
    if kind == "messages":
        if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
            raise DataError("messages is not a list of objects")
        tools = values.get("tools")
        if tools is not None and not isinstance(tools, list):
            raise DataError(f"tools is {type(tools).__name__}, wanted a list")
        return tokenizer.chat(value, tools)
    if not isinstance(value, list):
        raise DataError(f"input_ids is {type(value).__name__}, wanted a list of integers")
    for position, one in enumerate(value):
        if type(one) is not int or not 0 <= one < tokenizer.vocab_size:
            raise DataError(
                f"input_ids[{position}] is {str(one)[:40]}, wanted an integer from 0 to {tokenizer.vocab_size - 1}"
            )
    return value
