"""The index and the headers of a checkpoint's shards, held against each other: one name space, or what is wrong.

What is wrong is handed to the caller as it is found: whoever opens a checkpoint to work with it raises the first
(`refuse`), the gate notes all of them and goes on.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from halfbyte.checkpoint.header import Header
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
SHARD_SUFFIX = ".safetensors"


class Fault(NamedTuple):
    """kind: no map; an entry that leads nowhere sane; a tensor in two shards; index and headers differ."""

    kind: Literal["map", "path", "duplicate", "index"]
    message: str
    tensor: str | None = None


OnFault = Callable[[Fault], None]


def refuse(fault: Fault) -> None:
    """Raise CheckpointError: what is wrong ends the work."""
    raise CheckpointError(fault.message)


def is_shard_name(name: object) -> bool:
    """Whether an index may send a tensor there: a file of the same folder, whose name can exist and be printed."""
    return (
        isinstance(name, str)
        and name.endswith(SHARD_SUFFIX)
        and PurePosixPath(name).name == name
        and "\\" not in name
        and name.isprintable()
        and len(name.encode()) <= 255
    )


def weight_map_of(index: Mapping[str, Any], where: str, on_fault: OnFault) -> dict[str, str] | None:
    """Tensor -> shard, entries that lead nowhere sane left out; None if there is no map.

    where: the index, for messages.
    """
    stated = index.get("weight_map")
    if not isinstance(stated, dict) or not stated:
        on_fault(Fault("map", f"{where}: has no weight_map"))
        return None
    all_text = set(map(type, stated.values())) == {str}
    names = set(stated.values()) if all_text else {shard for shard in stated.values() if isinstance(shard, str)}
    good = set(filter(is_shard_name, names))  # a few hundred names serve many thousand tensors
    if all_text and good == names:
        return stated
    sane = {}
    for tensor, shard in stated.items():
        if isinstance(shard, str) and shard in good:
            sane[tensor] = shard
        else:
            message = (
                f"{where}: weight_map sends {_quoted(tensor)} to {_quoted(str(shard))}, wanted the name of a "
                f"{SHARD_SUFFIX} file in the same folder"
            )
            on_fault(Fault("path", message, tensor))
    return sane


def merged(
    headers: dict[str, Header], weight_map: Mapping[str, str] | None, where: str, on_fault: OnFault
) -> dict[str, Tensor]:
    """One name space from all headers (shard -> header), in the order of bytes, held against the index both ways.

    where: the index, for messages. A shard that the index names and `headers` lacks is no fault here: whoever could
    not read it has said so. Without an index `headers` is emptied on the way: a million tensors are not kept twice.
    """
    tensors: dict[str, Tensor] = {}
    for shard, header in list(headers.items()) if weight_map is not None else _taken(headers):
        if not tensors.keys().isdisjoint(header.tensors):
            for name in sorted(tensors.keys() & header.tensors.keys()):
                message = f"tensor {_quoted(name)} stands in both {tensors[name].shard} and {shard}"
                on_fault(Fault("duplicate", message, name))
        tensors |= header.tensors
    if weight_map is not None and not _agree(tensors, headers, weight_map):
        _compare(tensors, headers, weight_map, where, on_fault)
    return tensors


def _taken(headers: dict[str, Header]) -> Iterator[tuple[str, Header]]:
    for shard in list(headers):
        yield shard, headers.pop(shard)


Sums = dict[str, tuple[int, int]]
"""Shard -> how many tensors an index sends there, and a sum over the hashes of their names."""

_PAIR = re.compile(r'\s*"([^"\\\x00-\x1f]*)"\s*:\s*"([^"\\\x00-\x1f]*)"\s*([,}])')
_MAP = re.compile(r'"weight_map"\s*:\s*\{')


class ShortIndex(NamedTuple):
    """sums: of the map. rest: the index's JSON with an empty map in its place."""

    sums: Sums
    rest: str


def short_index(content: bytes) -> ShortIndex | None:
    """An index in short: the whole map of a million tensors takes more memory than all headers.

    None for one that is not spelt as every writer spells it, or has a fault to be named.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    found = _MAP.search(text)
    if found is None:
        return None
    sums: dict[str, list[int]] = {}
    position, closing = found.end(), ","
    while closing == ",":
        pair = _PAIR.match(text, position)
        if pair is None:
            return None
        name, shard, closing = pair.groups()
        entry = sums.get(shard)
        if entry is None:
            entry = sums[shard] = [0, 0]
        entry[0] += 1
        entry[1] += hash(name)
        position = pair.end()
    rest = text[: found.end()] + "}" + text[position:]
    try:
        document = json.loads(rest)
    except (ValueError, RecursionError):
        return None
    sane = isinstance(document, dict) and document.get("weight_map") == {} and all(map(is_shard_name, sums))
    return ShortIndex({shard: (count, total) for shard, (count, total) in sums.items()}, rest) if sane else None


def agrees(sums: Sums, headers: Mapping[str, Header]) -> bool:
    """Whether the headers hold what the index sends to each. Hashes of strings are keyed anew in every process."""
    return sums.keys() == headers.keys() and all(
        sums[shard] == (len(header.tensors), sum(map(hash, header.tensors))) for shard, header in headers.items()
    )


def _agree(tensors: Mapping[str, Tensor], headers: Mapping[str, Header], weight_map: Mapping[str, str]) -> bool:
    """Whether the map sends exactly the tensors there are to where they lie."""
    return len(weight_map) == len(tensors) and all(
        set(map(weight_map.get, header.tensors)) <= {shard} for shard, header in headers.items()
    )


def _compare(
    tensors: Mapping[str, Tensor],
    headers: Mapping[str, Header],
    weight_map: Mapping[str, str],
    where: str,
    on_fault: OnFault,
) -> None:
    for name, shard in weight_map.items():
        if name not in tensors:
            if shard in headers:
                message = f"{where}: names tensor {_quoted(name)}, which {shard} does not hold"
                on_fault(Fault("index", message, name))
        elif tensors[name].shard != shard:
            message = f"{where}: sends {_quoted(name)} to {shard}, it lies in {tensors[name].shard}"
            on_fault(Fault("index", message, name))
    for name, tensor in tensors.items():
        if name not in weight_map:
            message = f"{where}: does not name tensor {_quoted(name)}, which {tensor.shard} holds"
            on_fault(Fault("index", message, name))


def _quoted(name: str) -> str:
    """A name from a hostile file, bounded and safe to print: `repr` escapes whatever is not printable."""
    return repr(name[:200])
