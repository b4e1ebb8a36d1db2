"""A checkpoint folder opened by its headers: name -> shard, dtype, shape, byte range. Weights are read on demand.

Reading is `pread` into the caller's buffer, not a memory map: a file that shrinks or a disk that fails is then an
error with a name, where a map would kill the process with SIGBUS, and resident memory is exactly the buffers.
"""

import json
import os
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from halfbyte.checkpoint.header import Header, TensorInfo, header_length, parse_header
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.dtypes import DTYPE_BYTES

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
JSON_LIMIT_BYTES = 256_000_000


class Tensor(NamedTuple):
    """One tensor and where it lies. `start` and `stop` are bytes of the file `shard`."""

    name: str
    shard: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        return self.stop - self.start

    def part(self, first: int, shape: tuple[int, ...]) -> "Tensor":
        """The contiguous run of elements from number `first` on, seen as `shape`: one expert of a 3-D stack, say."""
        start = self.start + first * DTYPE_BYTES[self.dtype]
        return Tensor(self.name, self.shard, self.dtype, shape, start, start + prod(shape) * DTYPE_BYTES[self.dtype])


_TENSOR = partial(tuple.__new__, Tensor)  # as in `header`: many thousand at once


class Shard:
    """One open safetensors file. Reads are positional, so any number of threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be opened: {error.strerror}") from None
        status = os.fstat(self._file)
        self.bytes, self.mtime_ns = status.st_size, status.st_mtime_ns

    def header(self) -> Header:
        first = self._read(0, 8)
        length = header_length(first, self.bytes, str(self.path))
        return parse_header(self._read(8, length), self.bytes, str(self.path))

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Fill `buffer` from byte `start`. Raises CheckpointError if the file ends or the disk fails."""
        filled = 0
        while filled < len(buffer):
            try:
                count = os.preadv(self._file, [buffer[filled:]], start + filled)
            except OSError as error:
                raise CheckpointError(
                    f"{self.path}: cannot be read at byte {start + filled}: {error.strerror}"
                ) from None
            if count == 0:
                raise CheckpointError(
                    f"{self.path}: ends at byte {start + filled}, {len(buffer) - filled} bytes too early",
                    hint="the file changed while it was read; start again with an intact copy",
                )
            filled += count

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _read(self, start: int, length: int) -> bytes:
        buffer = bytearray(min(length, self.bytes - start) if self.bytes > start else 0)
        self.read_into(memoryview(buffer), start)
        return bytes(buffer)


class Checkpoint:
    """A folder of safetensors shards with config.json. `open` reads and cross-checks all headers.

    tensors: name -> Tensor, in the order in which they lie on disk, shard after shard.
    """

    def __init__(self, folder: Path, config: dict[str, Any], shards: dict[str, Shard], tensors: dict[str, Tensor]):
        self.folder = folder
        self.config = config
        self.shards = shards
        self.tensors = tensors

    @classmethod
    def open(cls, folder: str | Path) -> "Checkpoint":
        """Open a checkpoint. Raises CheckpointError (damaged, inconsistent) or UnsupportedError (not safetensors)."""
        folder = Path(folder)
        if not os.path.isdir(folder):  # unlike Path.is_dir, no OSError for a path that is too long
            raise CheckpointError(
                f"{folder}: no such folder", hint="give a folder that holds config.json and *.safetensors"
            )
        config = read_json(folder / "config.json")
        index_path = folder / INDEX_NAME
        weight_map = _weight_map(index_path) if index_path.exists() else None
        shards: dict[str, Shard] = {}
        try:
            for name in _shard_names(folder, weight_map):
                shards[name] = Shard(folder / name)
            headers = {name: shard.header() for name, shard in shards.items()}
            tensors = _merge(headers, weight_map, index_path)
        except BaseException:
            for shard in shards.values():
                shard.close()
            raise
        return cls(folder, config, shards, tensors)

    def read_into(self, tensor: Tensor, buffer: memoryview, offset: int = 0) -> None:
        """Read len(buffer) bytes of a tensor from its byte `offset`."""
        self.shards[tensor.shard].read_into(buffer, tensor.start + offset)

    @cached_property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors.values())

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a shard is no longer the file that was opened."""
        for name, shard in self.shards.items():
            status = shard.path.stat()
            if (status.st_size, status.st_mtime_ns) != (shard.bytes, shard.mtime_ns):
                raise CheckpointError(
                    f"{shard.path}: changed while it was read", hint=f"run again with an intact {name}"
                )

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of sane size. Raises CheckpointError with the file's name."""
    try:
        if path.stat().st_size > JSON_LIMIT_BYTES:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes are too many for this file")
        document = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: missing", hint="a checkpoint folder holds config.json and *.safetensors"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return document


def _weight_map(path: Path) -> dict[str, str]:
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path}: has no weight_map")
    names = {shard for shard in weight_map.values() if isinstance(shard, str)}
    good = {name for name in names if is_shard_name(name)}  # a few hundred names serve many thousand tensors
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or shard not in good:
            raise CheckpointError(
                f"{path}: weight_map sends {tensor[:200]!r} to {str(shard)[:200]!r}, wanted the name of a .safetensors "
                "file in the same folder"
            )
    return weight_map


def is_shard_name(name: object) -> bool:
    """Whether an index may send a tensor there: a file of the same folder, whose name can exist and be printed."""
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and Path(name).name == name
        and "\\" not in name
        and name.isprintable()
        and len(name.encode()) <= 255
    )


def _shard_names(folder: Path, weight_map: dict[str, str] | None) -> list[str]:
    if weight_map is None:
        if (folder / SINGLE_NAME).exists():
            return [SINGLE_NAME]
        found = sorted(path.name for path in folder.glob("*.safetensors"))
        if found:
            raise CheckpointError(
                f"{folder}: {len(found)} .safetensors file(s) but no {INDEX_NAME}", hint="complete the download"
            )
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
            raise UnsupportedError(f"{folder}: holds pickled weights, only safetensors are read")
        raise CheckpointError(f"{folder}: holds no .safetensors file")
    names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise CheckpointError(
            f"{folder}: the index names {len(missing)} missing shard(s), first {missing[0]}",
            hint="complete the download",
        )
    return names


def _start(item: tuple[str, TensorInfo]) -> int:
    return item[1].start


def _merge(headers: dict[str, Header], weight_map: dict[str, str] | None, index_path: Path) -> dict[str, Tensor]:
    """One name space from all headers, held against the index."""
    tensors: dict[str, Tensor] = {}
    for shard, header in headers.items():
        twice = tensors.keys() & header.tensors.keys()
        if twice:
            name = min(twice)
            raise CheckpointError(f"tensor {name[:200]!r} stands in both {tensors[name].shard} and {shard}")
        ordered: list[tuple[str, TensorInfo]] = sorted(header.tensors.items(), key=_start)
        for name, info in ordered:
            tensors[name] = _TENSOR((name, shard, *info))
    if weight_map is not None and weight_map != {name: tensor.shard for name, tensor in tensors.items()}:
        for name, shard in weight_map.items():
            if name not in tensors:
                raise CheckpointError(f"{index_path}: names tensor {name[:200]!r}, which {shard} does not hold")
            if tensors[name].shard != shard:
                found = tensors[name].shard
                raise CheckpointError(f"{index_path}: sends {name[:200]!r} to {shard}, it lies in {found}")
        for name, tensor in tensors.items():
            if name not in weight_map:
                raise CheckpointError(f"{index_path}: does not name tensor {name[:200]!r}, which {tensor.shard} holds")
    return tensors
