"""A checkpoint opened by its headers: name -> shard, dtype, shape, byte range. Weights are read on demand.

`read_headers` works on any files, in a folder or behind HTTP; `Checkpoint` is a folder whose weights can be read too.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from halfbyte.checkpoint.files import Files, LocalFiles, pooled
from halfbyte.checkpoint.header import Header, parse_header
from halfbyte.checkpoint.index import INDEX_NAME, SHARD_SUFFIX, SINGLE_NAME, merged, refuse, weight_map_of
from halfbyte.checkpoint.json_file import object_of
from halfbyte.checkpoint.shard import Shard
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.foreign import refuse_foreign

CONFIG_NAME = "config.json"


class Opened(NamedTuple):
    """config.json and all tensors, in the order in which they lie in the files, shard after shard."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


def read_config(files: Files) -> dict[str, Any]:
    """config.json alone. Raises CheckpointError."""
    content = files.text(CONFIG_NAME)
    if content is None:
        raise CheckpointError(
            f"{files.place(CONFIG_NAME)}: missing",
            hint="check the name; a checkpoint has a config.json"
            if files.remote
            else "a checkpoint folder holds config.json and *.safetensors",
        )
    return object_of(content, files.place(CONFIG_NAME))


def read_headers(files: Files) -> Opened:
    """Config, index and every header, cross-checked.

    Raises CheckpointError (damaged, inconsistent) or UnsupportedError (not safetensors, or a format that is
    not read), naming the file.
    """
    config = read_config(files)
    where, content = files.place(INDEX_NAME), files.text(INDEX_NAME)
    weight_map = None if content is None else weight_map_of(object_of(content, where), where, refuse)
    names = [_only_shard(files)] if weight_map is None else sorted(set(weight_map.values()))
    headers: dict[str, Header] = {}
    found = pooled(files, lambda name: _header(files, name), names)
    for name, header in zip(names, found, strict=True):
        if header is not None:
            headers[name] = header
    missing = [name for name in names if name not in headers]
    if missing:
        raise CheckpointError(
            f"{files.where}: the index names {len(missing)} missing shard(s), first {missing[0]}"
            if weight_map is not None
            else f"{files.place(missing[0])}: missing",
            hint="complete the download",
        )
    tensors = merged(headers, weight_map, where, refuse)
    refuse_foreign(config, tensors, files.where)
    return Opened(config, tensors)


def _header(files: Files, name: str) -> Header | None:
    found = files.header(name)
    return None if found is None else parse_header(*found, files.place(name), name)


def _only_shard(files: Files) -> str:
    """The single shard of a checkpoint without an index. Raises if the folder's listing says that it is none."""
    listing = files.listing() if not files.remote else None
    if listing is None or SINGLE_NAME in listing:
        return SINGLE_NAME
    found = [name for name in listing if name.endswith(SHARD_SUFFIX)]
    if found:
        raise CheckpointError(
            f"{files.where}: {len(found)} {SHARD_SUFFIX} file(s) but no {INDEX_NAME}", hint="complete the download"
        )
    if any(name.endswith((".bin", ".pt", ".pth")) for name in listing):
        raise UnsupportedError(f"{files.where}: holds pickled weights, only safetensors are read")
    raise CheckpointError(f"{files.where}: holds no {SHARD_SUFFIX} file")


class Checkpoint:
    """A folder of safetensors shards with config.json. `open` reads and cross-checks all headers.

    tensors: name -> Tensor, in the order in which they lie on disk, shard after shard.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], shards: Mapping[str, Shard], tensors: dict[str, Tensor]
    ) -> None:
        self.folder = folder
        self.config = config
        self.shards = shards
        self.tensors = tensors

    @classmethod
    def open(cls, folder: str | Path) -> "Checkpoint":
        """Open a checkpoint. Raises CheckpointError (damaged, inconsistent) or UnsupportedError (not safetensors)."""
        files = LocalFiles(Path(folder))
        try:
            opened = read_headers(files)
        except BaseException:
            files.close()
            raise
        return cls(files.folder, opened.config, files.shards, opened.tensors)

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
