"""A SentencePiece model (`tokenizer.model`) as GGUF metadata. Reads the few protobuf fields that matter by itself.

The file is a `ModelProto`; its repeated field 1 holds the pieces: field 1 the text, 2 the score (float32), 3 the type.
Source: sentencepiece_model.proto of google/sentencepiece.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gguf import GGUFWriter, TokenType

from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES, read_json
from halfbyte.checkpoint.pointers import refuse_pointer
from halfbyte.disk import is_missing, read_regular
from halfbyte.errors import CheckpointError

PAD_SCORE, ADDED_SCORE = -10000.0, -1000.0


class Token(NamedTuple):
    text: bytes
    score: float
    type: TokenType


def add_sentencepiece(writer: GGUFWriter, folder: Path, vocab_size: int) -> None:
    """Set the token list of a SentencePiece vocabulary. Raises CheckpointError if it is missing or malformed."""
    path = folder / "tokenizer.model"
    if is_missing(path):
        raise CheckpointError(
            f"{path}: cannot be read: no such file",
            hint="llama.cpp needs the SentencePiece model; copy tokenizer.model from the source model",
        )
    content = read_regular(path, JSON_LIMIT_BYTES)
    refuse_pointer(content, str(path))
    tokens = [Token(f"[PAD{number}]".encode(), PAD_SCORE, TokenType.UNUSED) for number in range(vocab_size)]
    try:
        found = list(pieces(content))
    except (ValueError, struct.error, IndexError):
        raise CheckpointError(f"{path}: is not a SentencePiece model") from None
    for number, token in [*enumerate(found), *_added(folder)]:
        if number >= vocab_size:
            raise CheckpointError(f"{path}: token {number} is beyond config.json's vocab_size of {vocab_size}")
        tokens[number] = token
    settings = _settings(folder)
    if settings.get("add_prefix_space") is not None:
        writer.add_add_space_prefix(settings["add_prefix_space"])
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token.text for token in tokens])
    writer.add_token_scores([token.score for token in tokens])
    writer.add_token_types([token.type for token in tokens])


def pieces(content: bytes) -> Iterator[Token]:
    """The pieces of a `ModelProto`. Raises ValueError, IndexError or struct.error if it is none."""
    for number, value in _fields(content):
        if number == 1 and isinstance(value, bytes):
            text, score, kind = b"", 0.0, 1
            for inner, content_of in _fields(value):
                if inner == 1 and isinstance(content_of, bytes):
                    text = content_of
                elif inner == 2 and isinstance(content_of, bytes):
                    (score,) = struct.unpack("<f", content_of)
                elif inner == 3 and isinstance(content_of, int):
                    kind = content_of
            yield Token(text, score, TokenType(kind))  # the two enumerations agree


def _fields(content: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(field number, value) of a protobuf message: an int for a varint, bytes for everything else."""
    position = 0
    while position < len(content):
        key, position = _varint(content, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(content, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _varint(content, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position + length > len(content):
            raise ValueError("truncated")
        yield key >> 3, content[position : position + length]
        position += length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("varint too long")


def _added(folder: Path) -> Iterator[tuple[int, Token]]:
    path = folder / "added_tokens.json"
    if not is_missing(path):
        for text, number in read_json(path).items():
            yield number, Token(text.encode(), ADDED_SCORE, TokenType.USER_DEFINED)
    for key, token in _settings(folder).get("added_tokens_decoder", {}).items():
        kind = TokenType.CONTROL if token.get("special") else TokenType.USER_DEFINED
        text = token["content"] if kind == TokenType.CONTROL else token["content"].replace("\u2581", " ")
        yield int(key), Token(text.encode(), ADDED_SCORE, kind)


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return {} if is_missing(path) else read_json(path)
