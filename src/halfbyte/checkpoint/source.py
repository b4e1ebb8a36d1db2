"""A checkpoint opened by its headers: name -> shard, dtype, shape, byte range. Weights are read on demand.

`read_headers` works on any files, in a folder or behind HTTP; `Checkpoint` is a folder whose weights can be read too.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from halfbyte.checkpoint.files import Files, LocalFiles, check_folder, pooled
from halfbyte.checkpoint.header import Header, parse_header
from halfbyte.checkpoint.index import (
    INDEX_NAME,
    SHARD_SUFFIX,
    SINGLE_NAME,
    Sums,
    agrees,
    merged,
    refuse,
    short_index,
    weight_map_of,
)
from halfbyte.checkpoint.json_file import object_of
from halfbyte.checkpoint.shard import Shard
from halfbyte.checkpoint.snapshots import snapshot_of
from halfbyte.checkpoint.targets import is_remote
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.disk import reason
from halfbyte.errors import CheckpointError, HalfbyteError, UnsupportedError
from halfbyte.formats.foreign import refuse_foreign
from halfbyte.models import roles_of

if TYPE_CHECKING:
    from halfbyte.checkpoint.remote_shard import RemoteShard
    from halfbyte.checkpoint.remote_source import RemoteSource

CONFIG_NAME = "config.json"


class Opened(NamedTuple):
    """config.json and all tensors, in the order in which they lie in the files, shard after shard.

    left_out: safetensors files of the folder that are not part of it -> why.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    left_out: dict[str, str]


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
    where = files.place(INDEX_NAME)
    summed, weight_map = _index(files, where)
    if summed is not None:
        names = sorted(summed)
    else:
        names = [_only_shard(files)] if weight_map is None else sorted(set(weight_map.values()))
    headers: dict[str, Header] = {}
    for name, header in zip(names, pooled(files, lambda name: _header(files, name), names), strict=True):
        if header is not None:
            headers[name] = header
    missing = [name for name in names if name not in headers]
    if missing:
        raise CheckpointError(
            f"{files.where}: the index names {len(missing)} missing shard(s), first {missing[0]}"
            if weight_map is not None or summed is not None
            else f"{files.place(missing[0])}: missing",
            hint="complete the download",
        )
    if summed is not None and not agrees(summed, headers):
        weight_map = _weight_map(files.text(INDEX_NAME) or b"", where)  # what differs is to be named
    tensors = merged(headers, weight_map, where, refuse)
    refuse_foreign(config, tensors, files.where)
    return _with_unindexed(files, Opened(config, tensors, {}), set(names))


def _index(files: Files, where: str) -> tuple[Sums | None, dict[str, str] | None]:
    """The index in short, or (spelt as few spell it, or with a fault to be named) whole; both None if there is none."""
    content = files.text(INDEX_NAME)
    if content is None:
        return None, None
    short = short_index(content)
    return (None, _weight_map(content, where)) if short is None else (short.sums, None)


def _weight_map(content: bytes, where: str) -> dict[str, str] | None:
    return weight_map_of(object_of(content, where), where, refuse)


def _with_unindexed(files: Files, opened: Opened, known: set[str]) -> Opened:
    """With the MTP layer that some publishers put into a file of its own, which no index names.

    It is one if all of its tensors are of that layer and none is there already; any other file is left out. known:
    shards that were read.
    """
    listing = (None if files.remote else files.listing()) or {}
    extra = [name for name in listing if name.endswith(SHARD_SUFFIX) and name not in known]
    if not extra:
        return opened
    tensors = dict(opened.tensors)
    for name in extra:
        try:
            header = _header(files, name)
            why = "is not there" if header is None else _no_mtp_layer(opened.config, header, tensors)
        except HalfbyteError as error:
            header, why = None, error.message
        if why is not None or header is None:
            files.forget(name)
            opened.left_out[name] = f"the index does not name it, and {why}"
        else:
            tensors |= header.tensors
    return opened._replace(tensors=tensors)


def _no_mtp_layer(config: dict[str, Any], header: Header, tensors: Mapping[str, Tensor]) -> str | None:
    """Why a file is not the MTP layer, None if it is."""
    roles = roles_of(config)
    for name in header.tensors:
        if name in tensors:
            return f"its {name[:200]!r} is in {tensors[name].shard} too"
        if not roles.role(name).mtp:
            return f"its {name[:200]!r} is not of the MTP layer"
    return None if header.tensors else "it holds no tensor"


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
        self,
        folder: Path,
        config: dict[str, Any],
        shards: "Mapping[str, Shard | RemoteShard]",
        tensors: dict[str, Tensor],
        left_out: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """left_out: see Opened."""
        self._folder = folder
        self._remote: RemoteSource | None = None
        self.config = config
        self.shards = shards
        self.tensors = tensors
        self.left_out = left_out

    @classmethod
    def open(cls, folder: str | Path, follow_links: bool | None = None) -> "Checkpoint":
        """Open a checkpoint: a folder, one of a hub's cache, a hub's `owner/name[@revision]`, or the URL of a folder.

        Raises CheckpointError (damaged, inconsistent) or UnsupportedError (not safetensors).

        follow_links: whether links may lead out of the folder, for whoever copies or hands on what is there; every
        file is looked at then (`files.check_folder`). None where weights alone are read.
        """
        if is_remote(str(folder)):
            return cls._open_remote(str(folder))
        folder = snapshot_of(folder)
        if follow_links is not None:
            check_folder(folder, follow_links)
        files = LocalFiles(Path(folder))
        try:
            opened = read_headers(files)
        except BaseException:
            files.close()
            raise
        return cls(files.folder, opened.config, files.shards, opened.tensors, opened.left_out)

    @classmethod
    @contextmanager
    def of(cls, source: "str | Path | Checkpoint") -> "Iterator[Checkpoint]":
        """One that is open already, left so, or opened for a while with its links looked at (see `open`)."""
        if isinstance(source, Checkpoint):
            yield source
            return
        with cls.open(source, follow_links=True) as opened:
            yield opened

    @classmethod
    def _open_remote(cls, target: str) -> "Checkpoint":
        from halfbyte.checkpoint.remote_source import RemoteSource  # httpx is slow to import

        remote = RemoteSource(target)
        try:
            opened = read_headers(remote.files)
            shards = remote.shards(tensor.shard for tensor in opened.tensors.values())
        except BaseException:
            remote.close()
            raise
        found = cls(Path(remote.files.where), opened.config, shards, opened.tensors, opened.left_out)
        found._remote = remote
        return found

    @property
    def folder(self) -> Path:
        """Where the files beside the weights are; of a checkpoint that is not here, a copy of them."""
        return self._folder if self._remote is None else self._remote.folder

    @property
    def where(self) -> str:
        """What the user calls it, a revision pinned."""
        return str(self._folder) if self._remote is None else self._remote.files.where

    def kept_apart(self) -> list[Path]:
        """What nothing may be written into: the folder, if it lies here."""
        return [] if self.is_remote else [self._folder]

    @property
    def is_remote(self) -> bool:
        """Whether its weights come over the network."""
        return self._remote is not None

    def read_into(self, tensor: Tensor, buffer: memoryview, offset: int = 0) -> None:
        """Read len(buffer) bytes of a tensor from its byte `offset`."""
        self.shards[tensor.shard].read_into(buffer, tensor.start + offset)

    def release(self, tensor: Tensor) -> None:
        """Say that it will not be read again."""
        self.shards[tensor.shard].release(tensor.start, tensor.bytes)

    @cached_property
    def bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors.values())

    def check_unchanged(self) -> None:
        """Raises CheckpointError if a shard is no longer the file that was opened."""
        if self._remote is not None:
            self._remote.check_unchanged()
            return
        for name, shard in self.shards.items():
            try:
                status = shard.path.stat()
            except OSError as error:
                raise CheckpointError(
                    f"{shard.path}: went away while it was read: {reason(error)}",
                    hint=f"run again with an intact {name}",
                ) from None
            if (status.st_size, status.st_mtime_ns) != (shard.bytes, shard.mtime_ns):
                raise CheckpointError(
                    f"{shard.path}: changed while it was read", hint=f"run again with an intact {name}"
                )

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()
        if self._remote is not None:
            self._remote.close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
