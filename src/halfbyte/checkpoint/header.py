"""The safetensors header: 8 bytes of length, then JSON. Parsed as hostile input.

Nothing is trusted: lengths against the file's size, offsets against the data, shapes against offsets, no gap, no
overlap, no duplicate. Memory used is a bounded multiple of the header's own bytes (Python objects of its JSON; under
36 times, a test says), and those must lie inside the file. Headers spelt as every writer spells them, without spaces
and escapes, are taken by one regular expression; all others, and all that have a fault to be named, by the JSON parser.
Format: https://github.com/huggingface/safetensors (format section); its limit of 100 MB per header is kept.
"""

import json
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeGuard

from halfbyte.checkpoint.pointers import HINT, POINTER
from halfbyte.checkpoint.tensor import TENSOR, Tensor
from halfbyte.errors import HeaderError
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.text import is_text

HEADER_LIMIT_BYTES = 100_000_000

_NATURAL = "(?:0|[1-9][0-9]{0,17})"
_ENTRY = re.compile(
    r'"([^"\\\x00-\x1f]*)":\{"dtype":"'
    rf'([A-Z0-9_]+","shape":\[(?:{_NATURAL}(?:,{_NATURAL}){{0,63}})?)'
    rf'\],"data_offsets":\[({_NATURAL}),({_NATURAL})\]\}}(?:,|\}}\Z)'
)
_ENTRY_FRAME = len('"":{"dtype":"],"data_offsets":[,]},')


class Header(NamedTuple):
    """tensors: in the order of their bytes, whatever the order of the names was."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def header_length(first_bytes: bytes, file_bytes: int, where: str) -> int:
    """Length of the JSON from a file's first 8 bytes. Raises HeaderError if it cannot be true."""
    if len(first_bytes) < 8:
        raise HeaderError(f"{where}: {file_bytes} bytes are too few for a safetensors file")
    if POINTER.startswith(first_bytes[:8]):
        raise HeaderError(f"{where}: is a git-LFS pointer, not the file itself", hint=HINT)
    length = int.from_bytes(first_bytes[:8], "little")
    if length > file_bytes - 8:
        raise HeaderError(
            f"{where}: the header claims {length} bytes but the file has {file_bytes}",
            hint="the file is truncated or not safetensors; download it again",
        )
    if length > HEADER_LIMIT_BYTES:
        raise HeaderError(f"{where}: a header of {length} bytes is over the limit of {HEADER_LIMIT_BYTES}")
    return length


def parse_header(text: bytes, file_bytes: int, where: str, shard: str = "") -> Header:
    """Parse the JSON part of a header.

    text: exactly the header's bytes. file_bytes: size of the whole file. where: file name for messages. shard: what
    the tensors say of where they lie.
    Raises HeaderError naming the tensor and what is wrong with it.
    """
    data_start = 8 + len(text)
    try:
        decoded = text.decode("utf-8")
        header = _compact(decoded, data_start, shard) or _parsed(decoded, data_start, where, shard)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"{where}: the header is not valid JSON: {_short(error)}") from None
    if _in_order(header.tensors, data_start) == file_bytes:
        return header
    return Header(_in_order_of_bytes(header.tensors, data_start, file_bytes, where), header.metadata)


def _compact(text: str, data_start: int, shard: str) -> Header | None:
    """A faultless header in the writers' spelling, or None. A third of the JSON parser's time, on 232,385 tensors."""
    text, start = text.rstrip(" "), 1
    metadata: dict[str, str] = {}
    opening = '{"__metadata__":'
    if text.startswith(opening):
        try:
            metadata, end = json.JSONDecoder(object_pairs_hook=_unique).raw_decode(text, len(opening))
        except (ValueError, RecursionError):
            return None
        start = end + 1
        if text[end:start] != "," or not _is_metadata(metadata):
            return None
    if not (text.startswith("{") and text.endswith("}}")):
        return None
    found = _ENTRY.findall(text, start)
    kinds: dict[str, tuple[str, tuple[int, ...], int]] = {}  # dtype and shape as spelt -> dtype, shape, bytes
    tensors: dict[str, Tensor] = {}
    stop = 0
    for name, spelt, first, last in found:
        kind = kinds.get(spelt)
        if kind is None:
            dtype, _, sides = spelt.partition('","shape":[')
            if dtype not in DTYPE_BYTES:
                return None
            shape = tuple(map(int, sides.split(","))) if sides else ()
            kind = kinds[spelt] = dtype, shape, math.prod(shape) * DTYPE_BYTES[dtype]
        dtype, shape, size = kind
        offset = int(first)
        if int(last) - offset != size:
            return None
        offset += data_start
        begins = stop if offset == stop else offset  # one number for both: a tenth of the memory of a million tensors
        stop = offset + size
        tensors[name] = TENSOR((name, shard, dtype, shape, begins, stop))
        start += _ENTRY_FRAME + len(name) + len(spelt) + len(first) + len(last)
    # All entries side by side fill the text, so nothing stood between them.
    unbroken = start == len(text) and len(tensors) == len(found) and "__metadata__" not in tensors
    return Header(tensors, metadata) if unbroken else None


def _parsed(text: str, data_start: int, where: str, shard: str) -> Header:
    """Any header, from its JSON. Raises HeaderError, or what the JSON parser raises."""
    document = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(document, dict):
        raise HeaderError(f"{where}: the header is not a JSON object")
    metadata = document.pop("__metadata__", {})
    if not _is_metadata(metadata):
        raise HeaderError(f"{where}: __metadata__ must map strings to strings")
    for name in document:
        if not name.isascii() and not _is_text(name):
            raise HeaderError(f"{where}: tensor name {_short(name)} holds an unpaired surrogate")
    return Header({name: _tensor(entry, data_start, where, name, shard) for name, entry in document.items()}, metadata)


def _tensor(entry: Any, data_start: int, where: str, name: str, shard: str) -> Tensor:
    if isinstance(entry, dict) and len(entry) == 3:
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if isinstance(dtype, str) and dtype in DTYPE_BYTES and _naturals(shape) and _naturals(offsets):
            size = math.prod(shape) * DTYPE_BYTES[dtype]
            if len(offsets) == 2 and offsets[0] <= offsets[1] == offsets[0] + size:
                return Tensor(name, shard, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])
    raise _wrong_tensor(entry, f"{where}: tensor {_short(name)}")


def _wrong_tensor(entry: Any, where: str) -> HeaderError:
    """What `_tensor` refuses, in words."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return HeaderError(f"{where}: wanted exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        return HeaderError(f"{where}: unsupported dtype {_short(dtype)}", hint=f"known: {', '.join(DTYPE_BYTES)}")
    if not _naturals(shape):
        return HeaderError(f"{where}: shape {_short(shape)} is not a list of non-negative integers")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return HeaderError(f"{where}: data_offsets {_short(offsets)} are not [start, stop]")
    size = math.prod(shape) * DTYPE_BYTES[dtype]
    return HeaderError(
        f"{where}: {dtype} {_short(shape)} takes {_short(size)} bytes, data_offsets {_short(offsets)} hold "
        f"{_short(offsets[1] - offsets[0])}"
    )


def _in_order_of_bytes(tensors: dict[str, Tensor], data_start: int, file_bytes: int, where: str) -> dict[str, Tensor]:
    """Sorted by where they lie. They must tile the data section exactly, as the format demands."""
    position, previous = data_start, None
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)))
    for name, tensor in ordered.items():
        if tensor.stop > file_bytes:
            raise HeaderError(
                f"{where}: tensor {_short(name)} ends at byte {_short(tensor.stop)}, the file at {file_bytes}",
                hint="the shard is truncated; download it again",
            )
        if tensor.start < position:
            raise HeaderError(f"{where}: tensors {_short(previous)} and {_short(name)} overlap")
        if tensor.start > position:
            raise HeaderError(f"{where}: {tensor.start - position} unused bytes before tensor {_short(name)}")
        position, previous = tensor.stop, name
    if position != file_bytes:
        raise HeaderError(f"{where}: {file_bytes - position} unused bytes after the last tensor")
    return ordered


def _in_order(tensors: dict[str, Tensor], position: int) -> int:
    """Where the data ends if each tensor follows the one before, as writers put them; -1 if not."""
    for *_, start, stop in tensors.values():
        if start != position:
            return -1
        position = stop
    return position


def _naturals(value: Any) -> TypeGuard[list[int]]:
    if not isinstance(value, list) or len(value) > 64:
        return False
    for number in value:  # noqa: SIM110  a generator takes three times as long, and a model has half a million lists
        if type(number) is not int or not 0 <= number < 2**63:
            return False
    return True


def _is_text(value: Any) -> bool:
    """A string that UTF-8 can hold: an escape in JSON may spell half of a surrogate pair."""
    return isinstance(value, str) and is_text(value)


def _is_metadata(value: Any) -> TypeGuard[dict[str, str]]:
    return isinstance(value, dict) and all(_is_text(text) for pair in value.items() for text in pair)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"duplicate key {_short(key)}")
            seen.add(key)
    return result


def _short(value: Any) -> str:
    """A value from a hostile file, made safe to print: bounded, and with no control characters."""
    try:
        text = value if isinstance(value, str) else repr(value) if not isinstance(value, Exception) else str(value)
    except ValueError:  # an integer with thousands of digits
        text = "(a very large number)"
    text = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return text if len(text) <= 200 else text[:200] + "..."


def serialize_header(tensors: Iterable[tuple[str, str, tuple[int, ...], int]], metadata: dict[str, str]) -> bytes:
    """The bytes of a header, length prefix included, padded with spaces to 8 bytes.

    tensors: (name, dtype, shape, bytes) in the order in which their data will follow.
    """
    document: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    position = 0
    for name, dtype, shape, size in tensors:
        offsets = [position, position + size]
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += size
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
