"""A checkpoint opened where it lies: on a hub, or under a URL. Nothing of its weights touches the disk.

A hub's revision is pinned by its commit, every file by its ETag: a source that moves in the middle is refused. Files
beside the weights are fetched into a temporary folder when they are asked for.
"""

import tempfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

from halfbyte.checkpoint.blocks import Blocks
from halfbyte.checkpoint.index import INDEX_NAME, SHARD_SUFFIX
from halfbyte.checkpoint.names import hub_parts, is_store
from halfbyte.checkpoint.object_store import StoreFiles
from halfbyte.checkpoint.remote import RemoteFiles
from halfbyte.checkpoint.remote_shard import RemoteShard
from halfbyte.checkpoint.writer import write_whole
from halfbyte.errors import CheckpointError

WORK_SECONDS = 30 * 86_400.0
"""For the reading of all weights: as long as it takes. A server that sends next to nothing is given up all the same."""

USUAL_NAMES = (
    "README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "added_tokens.json", "chat_template.jinja", "halfbyte.json",
    "chat_template.json", "generation_config.json", "hf_quant_config.json", "merges.txt", "preprocessor_config.json",
    "special_tokens_map.json", "tiktoken.model", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "vocab.json",
)  # fmt: skip
"""Asked for where a server shows no listing."""


class RemoteSource:
    """What a `source.Checkpoint` that is not here reads from. files: of the server, its revision pinned."""

    def __init__(self, target: str) -> None:
        """Raises CheckpointError."""
        self._target = target
        self.files: RemoteFiles | StoreFiles = (
            StoreFiles(target) if is_store(target) else RemoteFiles(target, seconds=WORK_SECONDS)
        )
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._blocks = Blocks(self.files)
        try:
            self.files.pin()
        except BaseException:
            self.close()
            raise

    def shards(self, names: Iterable[str]) -> dict[str, RemoteShard]:
        """Those whose headers were read, of these names."""
        found = {name: self.files.headers_read[name] for name in sorted(set(names))}
        return {
            name: RemoteShard(self._blocks, self.files, name, size, header) for name, (header, size) in found.items()
        }

    @cached_property
    def folder(self) -> Path:
        """What lies beside the weights, config and index among it."""
        self._temporary = tempfile.TemporaryDirectory(prefix="halfbyte-source-")
        folder = Path(self._temporary.name) / _called(self._target)
        folder.mkdir()
        listing = self.files.listing()
        names = list(USUAL_NAMES) if listing is None else [name for name in listing if _beside(name)]
        for name in dict.fromkeys(["config.json", INDEX_NAME, *names]):
            content = self.files.text(name)
            if content is not None:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, content)
        return folder

    def check_unchanged(self) -> None:
        """Raises CheckpointError if the server has other files by now."""
        for name, (_, size) in self.files.headers_read.items():
            self.files.block_into(name, 0, memoryview(bytearray(min(8, size))), size)

    def close(self) -> None:
        self._blocks.close()
        self.files.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def _beside(name: str) -> bool:
    """Whether a file of a listing may be fetched: no weights, and no name that leads elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(part.startswith(".") for part in path.parts):
        return False
    return path.suffix not in (SHARD_SUFFIX, ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack")


def _called(target: str) -> str:
    parts = hub_parts(target)
    name = parts[0].rpartition("/")[2] if parts else target.rstrip("/").rpartition("/")[2].partition("?")[0]
    if not name or name in (".", "..") or not name.isprintable():
        raise CheckpointError(f"{target[:200]}: has no name", hint="give the URL of a folder")
    return name
