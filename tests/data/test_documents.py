"""Rows in, token ids and labels out: every kind of file, sampling, packing, and one clear error for a bad row."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfbyte.data.document import Document
from halfbyte.data.documents import Documents, load
from halfbyte.data.pack import pack_documents
from halfbyte.data.tokenizer import Tokenizer, open_tokenizer
from halfbyte.errors import CheckpointError, DataError, UnsupportedError, UsageError

TINY = Path(__file__).parents[2] / "examples/tiny-glm"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return open_tokenizer(TINY)


def jsonl(path: Path, *rows: object) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def test_three_kinds_of_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    tools = [{"type": "function", "function": {"name": "send", "parameters": {}}}]
    file = jsonl(
        tmp_path / "data.jsonl",
        {"text": "<|user|> is one token", "domain": "chat", "id": 7, "nested": {"not": "a label"}, "none": None},
        "",
        {"input_ids": [0, 4095, 3], "ok": True},
        {"messages": messages, "tools": tools},
    )
    text, ids, chat = load([file], tokenizer).documents
    assert text.labels == {"domain": "chat", "id": "7"}
    assert tokenizer.decode(text.ids.tolist()) == "<|user|> is one token"
    assert (ids.ids.tolist(), ids.ids.dtype, ids.labels, ids.row) == ([0, 4095, 3], np.int64, {"ok": "true"}, 3)
    rendered = tokenizer.decode(chat.ids.tolist())
    assert rendered.startswith("[gMASK]<sop><|system|>\n# Tools")
    assert '"name": "send"' in rendered
    assert rendered.endswith("<|assistant|><think></think>hello")


def test_text_gets_no_special_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo 하나")
    [document] = load([str(tmp_path / "a.txt")], tokenizer).documents
    assert document.ids.tolist() == tokenizer.inner("one\n\ntwo 하나", add_special_tokens=False)["input_ids"]


def test_parquet_equals_jsonl(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"text": f"row {i}", "domain": "ab"[i % 2]} for i in range(5)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data.parquet")
    one = load([str(tmp_path / "data.parquet")], tokenizer)
    other = load([jsonl(tmp_path / "data.jsonl", *rows)], tokenizer)
    assert one.sha256 == other.sha256
    assert [d.row for d in one.documents] == [1, 2, 3, 4, 5]


def test_data_set_by_name(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` loads a folder as it loads a name, so this is the real path without the network."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    jsonl(tmp_path / "set" / "train.jsonl", *({"text": f"sample number {i}"} for i in range(50)))
    first, again = (load([f"hf:{tmp_path / 'set'}"], tokenizer, tokens=40, seed=1) for _ in range(2))
    assert first.sha256 == again.sha256
    assert first.tokens == 40
    with pytest.raises(UsageError, match="read until a budget is full"):
        load([f"hf:{tmp_path / 'set'}"], tokenizer)
    with pytest.raises(DataError, match=r"hf:.*nowhere: cannot be loaded"):
        load([f"hf:{tmp_path / 'nowhere'}"], tokenizer, tokens=5)


def test_missing_package_is_named(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(UnsupportedError, match="needs the package datasets"):
        load(["nemotron-7"], tokenizer, tokens=100)


def test_budget_is_seeded_exact_and_in_file_order(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = jsonl(tmp_path / "a.jsonl", *({"input_ids": [i] * 10} for i in range(40)))
    first, again, other = (load([file], tokenizer, tokens=95, seed=seed) for seed in (3, 3, 4))
    assert first.sha256 == again.sha256 != other.sha256
    assert first.tokens == 95
    rows = [document.row for document in first.documents]
    assert rows == sorted(rows)
    assert len(set(rows)) == 10
    assert rows != list(range(1, 11))


def test_arguments_share_the_budget_and_pass_on_what_is_left(tmp_path: Path, tokenizer: Tokenizer) -> None:
    small = jsonl(tmp_path / "small.jsonl", {"input_ids": [1] * 10})
    large = jsonl(tmp_path / "large.jsonl", *({"input_ids": [2] * 10} for _ in range(100)))
    loaded = load([small, large], tokenizer, tokens=300)
    report = loaded.report()
    assert report["sources"] == {small: {"documents": 1, "tokens": 10}, large: {"documents": 29, "tokens": 290}}


def test_report_by_category(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"input_ids": [1, 2], "domain": "ko" if i % 3 else "en", "id": f"row-{i}"} for i in range(99)]
    report = load([jsonl(tmp_path / "a.jsonl", *rows)], tokenizer).report()
    assert report["labels"] == {
        "domain": {"en": {"documents": 33, "tokens": 66}, "ko": {"documents": 66, "tokens": 132}}
    }


def test_truncation(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"input_ids": list(range(9))}, {"input_ids": [5]})
    assert [d.ids.tolist() for d in load([file], tokenizer, max_length=4).documents] == [[0, 1, 2, 3], [5]]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=8), st.integers(1, 9))
def test_packing_keeps_every_token_in_order(pieces: list[list[int]], length: int) -> None:
    documents = [
        Document(np.array(ids, np.int64), {"n": str(i), "all": "x"}, "f", i + 1) for i, ids in enumerate(pieces)
    ]
    packed = pack_documents(documents, length, [99])
    flat = [99]
    for ids in pieces:
        flat += [*ids, 99]
    assert [token for document in packed for token in document.ids.tolist()] == flat[1:-1]
    assert all(len(document.ids) == length for document in packed[:-1])
    assert all(document.labels["all"] == "x" for document in packed)


def test_packing_option(tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"input_ids": [1] * 6}, {"input_ids": [2] * 6})
    packed = load([file], tokenizer, max_length=5, pack=True).documents
    end = tokenizer.inner.eos_token_id
    assert [d.ids.tolist() for d in packed] == [[1] * 5, [1, end, 2, 2, 2], [2] * 3]
    with pytest.raises(UsageError, match="packing needs a length"):
        load([file], tokenizer, pack=True)


BAD_ROWS = {
    "{": "not valid JSON",
    "[1]": "wanted a JSON object",
    '{"title": "x"}': "has none of text, input_ids, messages",
    '{"text": "a", "input_ids": [1]}': "has text and input_ids, wanted exactly one",
    '{"text": 5}': "text is int",
    '{"text": ""}': "text gives no tokens",
    '{"text": "\\ud800"}': "lone surrogate",
    '{"input_ids": []}': "input_ids gives no tokens",
    '{"input_ids": "12"}': "input_ids is str",
    '{"input_ids": [1, 4096]}': r"input_ids\[1\] is 4096, wanted an integer from 0 to 4095",
    '{"input_ids": [-1]}': r"input_ids\[0\] is -1",
    '{"input_ids": [true]}': r"input_ids\[0\] is True",
    '{"input_ids": [1.0]}': r"input_ids\[0\] is 1.0",
    '{"messages": []}': "messages is not a list of objects",
    '{"messages": ["hi"]}': "messages is not a list of objects",
    '{"messages": [{"role": "user"}]}': "chat template cannot render",
    '{"messages": [{"role": "user", "content": "a"}], "tools": {}}': "tools is dict, wanted a list",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_bad_row_names_file_and_line(row: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    file = jsonl(tmp_path / "a.jsonl", {"text": "fine"}, row)
    with pytest.raises(DataError, match=BAD_ROWS[row]) as error:
        load([file], tokenizer)
    assert error.value.message.startswith(f"{file}:2: ")


def test_bad_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    (tmp_path / "none.jsonl").write_text("\n")
    for name, wanted in {
        "missing.jsonl": "no such file",
        ".": "is a folder",
        "latin.txt": "not UTF-8 text at byte 3",
        "no.parquet": "cannot be read as Parquet",
        "none.jsonl": "no documents",
    }.items():
        with pytest.raises(DataError, match=wanted):
            load([str(tmp_path / name)], tokenizer)
    with pytest.raises(UsageError, match="no data"):
        load([], tokenizer)
    with pytest.raises(UsageError, match="tokens 0"):
        load(["x"], tokenizer, tokens=0)


def test_input_ids_need_no_tokenizer_text_does(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 8}')
    (tmp_path / "tokenizer.json").write_text("{}")
    tokenizer = open_tokenizer(tmp_path)
    assert load([jsonl(tmp_path / "a.jsonl", {"input_ids": [7]})], tokenizer).tokens == 1
    with pytest.raises(CheckpointError, match="tokenizer cannot be opened"):
        load([jsonl(tmp_path / "b.jsonl", {"text": "x"})], tokenizer)
    with pytest.raises(CheckpointError, match="no such folder"):
        open_tokenizer(tmp_path / "nowhere")


def test_fingerprint_ignores_layout_not_content(tmp_path: Path) -> None:
    folders = []
    for name, text in {"a": '{"x": 1, "y": [2]}', "b": '{"y":[2],"x":1}', "c": '{"x": 1, "y": [3]}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"vocab_size": 8}')
        (tmp_path / name / "tokenizer.json").write_text(text)
        folders.append(open_tokenizer(tmp_path / name))
    a, b, c = (tokenizer.fingerprint for tokenizer in folders)
    assert a == b != c


def test_hash_depends_on_boundaries_and_labels() -> None:
    def documents(*pieces: list[int], label: str = "a") -> str:
        return Documents([Document(np.array(ids, np.int64), {"k": label}, "f", 1) for ids in pieces]).sha256

    hashes = [documents([1, 2], [3]), documents([1], [2, 3]), documents([1, 2], [3], label="b"), documents([3], [1, 2])]
    assert len(set(hashes)) == 4


def test_shipped_mix_is_complete() -> None:
    from halfbyte.data.mix import shipped_mixes

    mix = shipped_mixes()["nemotron-7"]
    assert len({one.name for one in mix.sets}) == len({one.category for one in mix.sets}) == 7
    assert {one.samples for one in mix.sets} == {128}
