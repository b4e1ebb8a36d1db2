"""GGUF files made for llama.cpp, one per checkpoint, kept in the user's cache and reused by hash."""

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from halfbyte.checkpoint.json_file import JSON_LIMIT_BYTES
from halfbyte.checkpoint.resume import source_identity
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import output_error
from halfbyte.disk import check_apart, is_missing, read_regular
from halfbyte.errors import OutputError, said
from halfbyte.evidence.dossier import Dossier
from halfbyte.evidence.names import DOSSIER
from halfbyte.export import export
from halfbyte.progress import Progress

LARGE_BYTES = 20_000_000_000
"""Above this a cache file is made only after asking."""


def cache_folder() -> Path:
    """`$HALFBYTE_CACHE`, else `$XDG_CACHE_HOME/halfbyte`, else `~/.cache/halfbyte`."""
    if chosen := os.environ.get("HALFBYTE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "halfbyte"


def cached_gguf(path: Path, progress: Progress, confirm: Callable[[str], bool], follow_links: bool = False) -> Path:
    """The GGUF of a checkpoint folder, exported now if it is not in the cache. Says where it is and how large.

    Raises OutputError if it would be large and `confirm` says no to the question; what `export` raises otherwise.
    """
    with Checkpoint.open(path, follow_links) as checkpoint:
        size_bytes, digest = checkpoint.bytes, fingerprint(checkpoint)
    name = os.fsdecode(os.fsencode(path.resolve().name)[:200])
    file = cache_folder() / "gguf" / f"{name}-{digest[:16]}.gguf"
    check_apart(path, file.parent)
    if file.exists():
        progress.note(f"using {file} ({file.stat().st_size / 1e9:.2f} GB)")
        return file
    large = f"llama.cpp needs a GGUF of about {size_bytes / 1e9:.0f} GB, to be kept as {file}"
    if size_bytes > LARGE_BYTES and not confirm(large):
        raise OutputError(
            f"{path}: {large}",
            hint=said("say {yes}, or export it yourself with `halfbyte export` and chat with the .gguf"),
        )
    progress.note(f"exporting about {size_bytes / 1e9:.2f} GB for llama.cpp, kept as {file}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(file.parent, error) from None
    export(path, file, progress=progress, follow_links=follow_links)
    return file


def fingerprint(checkpoint: Checkpoint) -> str:
    """Identifies the checkpoint's content: the hashes in halfbyte.json where there are any, else sizes and times."""
    digest = sha256()
    path = checkpoint.folder / DOSSIER
    hashes = {row.file: row.sha256 for row in Dossier.read(path).shards} if path.exists() else {}
    for name, *rest in source_identity(checkpoint.shards.values()):
        digest.update(repr((name, *rest, hashes.get(name, ""))).encode())
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tiktoken.model"):
        if not is_missing(path := checkpoint.folder / name):
            digest.update(name.encode() + sha256(read_regular(path, JSON_LIMIT_BYTES)).digest())
    return digest.hexdigest()
