"""The safetensors header parser, held against malformed and hostile files and against the safetensors library."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings

from halfbyte.checkpoint.header import (
    HEADER_LIMIT_BYTES,
    Header,
    _compact,
    _parsed,
    header_length,
    parse_header,
    serialize_header,
)
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError
from halfbyte.formats.dtypes import DTYPE_BYTES

from .files import shard_bytes


def parse_file(content: bytes) -> Header:
    """What `Shard.header` does, on bytes."""
    length = header_length(content[:8], len(content), "f")
    return parse_header(content[8 : 8 + length], len(content), "f")


def parse_text(text: str | bytes, data_bytes: int = 0) -> Header:
    raw = text.encode() if isinstance(text, str) else text
    return parse_header(raw, 8 + len(raw) + data_bytes, "f")


def outcome(parse: Callable[..., Header], *arguments: Any) -> Header | str:
    """The header, or the message of the one error that is allowed."""
    try:
        return parse(*arguments)
    except CheckpointError as error:
        return error.message


def one(dtype: Any = "U8", shape: Any = (4,), offsets: Any = (0, 4), **more: Any) -> str:
    return json.dumps({"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}})


def test_a_sound_header() -> None:
    header = parse_file(shard_bytes(["a", "b"]))
    assert header.metadata == {"format": "pt"}
    assert [(name, info.dtype, info.shape, info.bytes) for name, info in header.tensors.items()] == [
        ("a", "BF16", (2, 3), 12),
        ("b", "BF16", (2, 3), 12),
    ]
    assert header.tensors["a"].stop == header.tensors["b"].start
    assert header.tensors["a"].numel == 6


def test_scalars_and_empty_tensors() -> None:
    text = serialize_header([("none", "F32", (0, 7), 0), ("scalar", "F32", (), 4), ("end", "U8", (0,), 0)], {})
    tensors = parse_file(text + bytes(4)).tensors
    assert {name: (info.shape, info.bytes) for name, info in tensors.items()} == {
        "none": ((0, 7), 0),
        "scalar": ((), 4),
        "end": ((0,), 0),
    }


def test_no_tensors_at_all() -> None:
    assert parse_text("{}") == Header({}, {})


@pytest.mark.parametrize(
    ("first", "file_bytes", "message"),
    [
        (b"", 0, "too few"),
        (b"1234567", 7, "too few"),
        ((100).to_bytes(8, "little"), 107, "claims 100 bytes but the file has 107"),
        ((2**64 - 1).to_bytes(8, "little"), 10**12, "claims 18446744073709551615"),
        ((HEADER_LIMIT_BYTES + 1).to_bytes(8, "little"), 10**12, "over the limit"),
        (b'{"a": {"', 1000, "claims"),
        (b"PK\x03\x04\x00\x00\x08\x08", 1000, "claims"),
    ],
)
def test_lengths_that_cannot_be(first: bytes, file_bytes: int, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        header_length(first, file_bytes, "f")


def test_the_limit_itself_is_allowed() -> None:
    first = HEADER_LIMIT_BYTES.to_bytes(8, "little")
    assert header_length(first, HEADER_LIMIT_BYTES + 8, "f") == HEADER_LIMIT_BYTES


NOT_JSON = {
    "empty": b"",
    "spaces": b"        ",
    "cut short": b'{"t": {"dtype": "U8"',
    "trailing": b"{} {}",
    "not UTF-8": b'{"t\xff": 0}',
    "UTF-16": '{"t": 0}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "control character": b'{"t\x00": 0}',
    "duplicate tensor": b'{"t": 0, "t": 0}',
    "duplicate key inside": one().replace('"dtype"', '"shape": [4], "dtype"').encode(),
    "duplicate by escape": b'{"t": 0, "\\u0074": 0}',
    "nested lists": b"[" * 100_000,
    "nested objects": b'{"t":' * 100_000,
    "a number of 5000 digits": one(shape=[1]).replace("[1]", f"[{'1' * 5000}]").encode(),
    "a negative one": one(shape=[1]).replace("[1]", f"[-{'1' * 5000}]").encode(),
}


@pytest.mark.parametrize("text", NOT_JSON.values(), ids=NOT_JSON)
def test_not_json(text: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"^f: the header is not valid JSON"):
        parse_text(text, 4)


MALFORMED = {
    "a list": ("[]", "not a JSON object"),
    "a number": ("7", "not a JSON object"),
    "NaN": ("NaN", "not a JSON object"),
    "metadata is a list": ('{"__metadata__": []}', "__metadata__"),
    "metadata of a number": ('{"__metadata__": {"a": 1}}', "__metadata__"),
    "metadata of a surrogate": ('{"__metadata__": {"a": "\\ud800"}}', "__metadata__"),
    "metadata named by a surrogate": ('{"__metadata__": {"\\udfff": "a"}}', "__metadata__"),
    "a name with a surrogate": (one().replace('"t"', '"t\\ud800"'), "unpaired surrogate"),
    "surrogates in the wrong order": (one().replace('"t"', '"\\udc00\\ud800"'), "unpaired surrogate"),
    "entry is null": ('{"t": null}', "wanted exactly"),
    "entry is a list": ('{"t": ["dtype", "shape", "data_offsets"]}', "wanted exactly"),
    "key missing": ('{"t": {"dtype": "U8", "shape": [4]}}', "wanted exactly"),
    "key unknown": (one(strides=[1]), "wanted exactly"),
    "dtype unknown": (one("F4"), "unsupported dtype F4"),
    "dtype in lower case": (one("u8"), "unsupported dtype u8"),
    "dtype is a number": (one(8), "unsupported dtype 8"),
    "dtype is a list": (one(["U8"]), "unsupported dtype"),
    "dtype is null": (one(None), "unsupported dtype None"),
    "shape is a number": (one(shape=4), "shape 4 is not a list"),
    "shape is a string": (one(shape="4"), "shape 4 is not a list"),
    "shape is an object": (one(shape={"4": 4}), "is not a list"),
    "negative side": (one(shape=[-4]), "non-negative"),
    "two negative sides": (one(shape=[-2, -2]), "non-negative"),
    "side is a float": (one(shape=[4.0]), "non-negative integers"),
    "side is in e notation": (one().replace("[4]", "[4e0]"), "non-negative integers"),
    "side is a bool": (one(shape=[4, True]), "non-negative integers"),
    "side is NaN": (one().replace("[4]", "[NaN]"), "non-negative integers"),
    "side of 2**63": (one(shape=[2**63]), "non-negative"),
    "side of 4000 digits": (one(shape=[10**3999]), "non-negative"),
    "65 sides": (one(shape=[1] * 65), "is not a list"),
    "product beyond 2**64": (one(shape=[2**62, 2**62]), "takes .* bytes"),
    "product wraps to 4 in 64 bits": (one(shape=[2**62, 4, 2**62]), "takes .* bytes"),
    "offsets reversed": (one(offsets=[4, 0]), "data_offsets"),
    "offsets negative": (one(offsets=[-4, 0]), "data_offsets"),
    "offsets floats": (one(offsets=[0, 4.0]), "data_offsets"),
    "offsets bools": (one(shape=[1], offsets=[False, True]), "data_offsets"),
    "offsets of three": (one(offsets=[0, 4, 4]), "data_offsets"),
    "offsets of one": (one(offsets=[4]), "data_offsets"),
    "offsets huge": (one(offsets=[10**3999, 10**3999 + 4]), "data_offsets"),
    "too small for the shape": (one(offsets=[0, 3]), "takes 4 bytes, .* hold 3"),
    "too large for the shape": (one(offsets=[0, 5]), "takes 4 bytes, .* hold 5"),
    "wrong size for the dtype": (one("F32"), "takes 16 bytes, .* hold 4"),
    "starts late": (one(offsets=[1, 5]), "ends at byte"),
    "beyond the file": (one(shape=[5], offsets=[0, 5]), "ends at byte .* the file at"),
    "far beyond the file": (one(shape=[4], offsets=[2**62, 2**62 + 4]), "ends at byte"),
    "trailing bytes": (one(shape=[3], offsets=[0, 3]), "1 unused bytes after the last"),
    "no tensor but data": ("{}", "4 unused bytes after the last"),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed(text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        parse_text(text, 4)
    assert caught.value.message.startswith("f: ")
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000


def pair(first: tuple[int, int], second: tuple[int, int]) -> str:
    return json.dumps(
        {
            name: {"dtype": "U8", "shape": [stop - start], "data_offsets": [start, stop]}
            for name, (start, stop) in {"x": first, "y": second}.items()
        }
    )


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((0, 3), (2, 4), "x and y overlap"),
        ((2, 4), (0, 3), "y and x overlap"),
        ((0, 4), (0, 4), "overlap"),
        ((0, 4), (1, 3), "x and y overlap"),
        ((0, 4), (2, 2), "x and y overlap"),
        ((0, 1), (2, 4), "1 unused bytes before tensor y"),
        ((1, 2), (2, 4), "1 unused bytes before tensor x"),
        ((0, 1), (1, 3), "1 unused bytes after the last tensor"),
    ],
)
def test_overlap_and_gap(first: tuple[int, int], second: tuple[int, int], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_text(pair(first, second), 4)


def test_order_in_the_header_does_not_matter() -> None:
    """What is parsed comes in the order of the bytes."""
    assert [(name, info.bytes) for name, info in parse_text(pair((3, 4), (0, 3)), 4).tensors.items()] == [
        ("y", 3),
        ("x", 1),
    ]
    assert [(name, info.bytes) for name, info in parse_text(pair((0, 4), (0, 0)), 4).tensors.items()] == [
        ("y", 0),
        ("x", 4),
    ]


@pytest.mark.parametrize("name", ["\x1b[31mred", "n" * 10_000, "한국어", "\U0001f600", "\u202etxt.exe"])
def test_names_are_shown_safely(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_text(json.dumps({name: None}))
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


# What may stand in a header that we write: any text a file can hold, any dtype.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
tensor_lists = st.dictionaries(
    texts.filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(DTYPE_BYTES)), shapes),
    max_size=8,
).map(lambda entries: [(n, d, s, int(np.prod(s, dtype=int)) * DTYPE_BYTES[d]) for n, (d, s) in entries.items()])
metadatas = st.dictionaries(texts, texts, max_size=4)


@settings(max_examples=150, deadline=None)
@given(tensors=tensor_lists, metadata=metadatas)
def test_round_trip(tensors: list[tuple[str, str, tuple[int, ...], int]], metadata: dict[str, str]) -> None:
    content = serialize_header(tensors, metadata)
    position, wanted = len(content), {}
    for name, dtype, shape, size in tensors:
        wanted[name] = Tensor(name, "", dtype, shape, position, position + size)
        position += size
    assert len(content) % 8 == 0
    assert parse_file(content + bytes(position - len(content))) == Header(wanted, metadata)


FILE = shard_bytes(["model.layers.0.mlp.experts.0.up_proj.weight", "a\\u0041", "b"])


@settings(max_examples=500, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(FILE) - 1), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, len(FILE)) | st.just(len(FILE)),
    more=st.binary(max_size=3),
)
def test_a_mutated_file_parses_or_is_refused(changes: list[tuple[int, int]], cut: int, more: bytes) -> None:
    content = bytearray(FILE)
    for position, value in changes:
        content[position] = value
    content = content[:cut] + more
    result = outcome(parse_file, bytes(content))
    if isinstance(result, Header):
        data_start = 8 + int.from_bytes(content[:8], "little")
        assert sum(info.bytes for info in result.tensors.values()) == len(content) - data_start
    else:
        assert result.isprintable()


COMPACT = (
    '{"__metadata__":{"format":"pt"},"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},'
    '"한":{"dtype":"U8","shape":[],"data_offsets":[12,13]},"e":{"dtype":"F32","shape":[0,4],"data_offsets":[13,13]}}  '
)
WORDS = [
    "",
    "{",
    "}",
    "}}",
    ",",
    "]",
    "[",
    ":",
    '"',
    "\\",
    " ",
    "0",
    "-1",
    "1.0",
    '"w"',
    '"dtype":"U8",',
    "__metadata__",
]


@settings(max_examples=600, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(COMPACT)), st.integers(0, 3), st.sampled_from(WORDS) | texts), max_size=3
    )
)
def test_compact_headers_read_as_their_json(changes: list[tuple[int, int, str]]) -> None:
    text = COMPACT
    for position, length, word in changes:
        text = text[:position] + word + text[position + length :]
    found = _compact(text, 8, "f")
    assert found is not None or changes
    if found is not None:
        assert found == _parsed(text, 8, "f", "f")


@pytest.mark.parametrize(
    "text",
    [
        COMPACT.replace('"e"', '"w"'),
        COMPACT.replace('"e"', '"__metadata__"'),
        COMPACT.replace("[12,13]", "[12,14]"),
        COMPACT.replace("[12,13]", "[012,13]"),
        COMPACT.replace("BF16", "BF17"),
        COMPACT.replace('"w"', '"\\u0077"'),
        COMPACT.replace("}}  ", "},"),
        COMPACT.replace("},", "}}", 2),
    ],
)
def test_what_the_compact_reader_leaves_to_the_json_parser(text: str) -> None:
    assert _compact(text, 8, "f") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["U8", "dtype", "shape"]) | texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__"]) | texts, inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(document=json_values, data_bytes=st.integers(0, 8))
def test_any_json_parses_or_is_refused(document: Any, data_bytes: int) -> None:
    result = outcome(parse_text, json.dumps(document), data_bytes)
    if isinstance(result, Header):
        assert sum(info.bytes for info in result.tensors.values()) == data_bytes
    else:
        assert result.startswith("f: ")


# Texts that make Python's JSON parser spend the most memory on a byte.
GREEDY = {
    "lists": '{"t":[' + "[]," * 60_000 + "0]}",
    "objects": '{"t":[' + '{"":0},' * 30_000 + "0]}",
    "wide characters": '{"\U0001f600":[' + '{"":0},' * 30_000 + "0]}",
    "integers": '{"t":{"dtype":"U8","data_offsets":[0,1],"shape":[' + "257," * 50_000 + "1]}}",
    "keys": "{" + ",".join(f'"{i:x}":0' for i in range(20_000)) + "}",
    "a long name": '{"' + "n" * 200_000 + '":0}',
    "nesting": "[" * 200_000,
    "entries": "{" + '"":{"dtype":"U8","shape":[],"data_offsets":[0,1]},' * 5_000,
    "metadata": '{"__metadata__":{' + '"":{},' * 30_000 + '"":0}}',
}


@pytest.mark.parametrize("text", GREEDY.values(), ids=GREEDY)
def test_memory_is_a_small_multiple_of_the_header(text: str) -> None:
    raw = text.encode()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            parse_header(raw, 9 + len(raw), "f")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 36 * len(raw) + 200_000  # worst measured: 32 times


def test_files_of_the_safetensors_library(tmp_path: Path) -> None:
    arrays = {
        "bool": np.array([True, False]),
        "한국어": np.arange(6, dtype=np.int64).reshape(2, 3),
        "scalar": np.array(1.5, np.float32),
        "none": np.zeros((0, 4), np.float16),
        "u8": np.arange(5, dtype=np.uint8),
        "f64": np.ones((1, 1, 2)),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "x.safetensors", {"who": "로보"})
    content = (tmp_path / "x.safetensors").read_bytes()
    header = parse_file(content)
    assert header.metadata == {"who": "로보"}
    assert header.tensors.keys() == arrays.keys()
    for name, info in header.tensors.items():
        assert info.shape == arrays[name].shape
        assert content[info.start : info.stop] == arrays[name].tobytes()


def test_the_safetensors_library_reads_our_files(tmp_path: Path) -> None:
    arrays: dict[str, np.ndarray] = {
        "b": np.arange(3, dtype=np.int32),
        'a"\\\n': np.ones((2, 0), np.float32),
        "한": np.array(7, np.uint8),
    }
    kinds = {"int32": "I32", "float32": "F32", "uint8": "U8"}
    header = serialize_header([(n, kinds[str(a.dtype)], a.shape, a.nbytes) for n, a in arrays.items()], {"k": "값"})
    path = tmp_path / "x.safetensors"
    path.write_bytes(header + b"".join(array.tobytes() for array in arrays.values()))
    read = safetensors.numpy.load_file(path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype
    with safetensors.safe_open(path, "numpy") as file:
        assert file.metadata() == {"k": "값"}
