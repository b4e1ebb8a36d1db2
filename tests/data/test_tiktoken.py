"""Kimi's vocabulary as transformers' tokenizer and as llama.cpp's: both split and merge as tiktoken does."""

import base64
from pathlib import Path

import pytest
from export.checkpoints import family_checkpoint

from halfbyte.data.tiktoken import Vocabulary
from halfbyte.data.tokenizer import load_tokenizer, open_tokenizer
from halfbyte.errors import CheckpointError
from halfbyte.export import export

TEXTS = (
    "the thing in the",
    " the  in\n\nthe xyz",
    "한국어, 汉字 and 12345 don't",
    "CamelCase HTTPServer's",
    "",
    "\t \x00é",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family_checkpoint(tmp_path_factory.mktemp("kimi") / "model", "Kimi-K2-BF16")


def bpe(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """tiktoken's own rule: a known word is itself, else the pair of the lowest rank is joined until none is left."""
    if word in ranks:
        return [ranks[word]]
    parts = [word[i : i + 1] for i in range(len(word))]
    while True:
        pairs = [(ranks.get(parts[i] + parts[i + 1], 1 << 30), i) for i in range(len(parts) - 1)]
        rank, at = min(pairs, default=(1 << 30, 0))
        if rank == 1 << 30:
            return [ranks[part] for part in parts]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_tiktokens(folder: Path, text: str) -> None:
    tokenizer, ranks = load_tokenizer(folder), Vocabulary.read(folder).ranks
    words = [text[start:stop] for _, (start, stop) in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    wanted = [number for word in words for number in bpe(word.encode(), ranks)]
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == wanted
    assert tokenizer.decode(wanted) == text


@pytest.mark.parametrize("text", TEXTS[:4])
def test_llamacpp_gives_the_same_ids(folder: Path, text: str, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    from export.engine import Engine

    export(folder, tmp_path / "a.gguf")
    assert Engine(tmp_path / "a.gguf").tokenize(text) == load_tokenizer(folder)(text)["input_ids"]


def test_the_rule_keeps_chinese_by_itself_and_special_tokens_whole(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    assert [stop - start for _, (start, stop) in split("ab汉字cd")] == [2, 2, 2]
    assert tokenizer("<|im_end|>")["input_ids"] == [265]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (263, 264)
    assert open_tokenizer(folder).fingerprint is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its ranks are not|tiktoken"),
        ("dGg= one", "not a tiktoken vocabulary"),
        ("?? 0", "not a tiktoken vocabulary"),
        ("dGg= 5", "ranks are not 0 to 0"),
        ("dGg= 0\ndGg= 1", "ranks are not 0 to 1"),
    ],
)
def test_a_broken_vocabulary_is_one_error(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tiktoken.model").write_text(content)
    if not content:
        (tmp_path / "tiktoken.model").unlink()
    with pytest.raises(CheckpointError, match=message):
        Vocabulary.read(tmp_path)


def test_a_token_out_of_reach_has_no_merge(tmp_path: Path) -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab", b"abc", b"xyz"]
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]
    (tmp_path / "tiktoken.model").write_text("\n".join(lines))
    assert list(Vocabulary.read(tmp_path).merges()) == [("a", "b"), ("ab", "c")]
