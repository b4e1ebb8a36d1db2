"""What a user calls a checkpoint: a folder, a hub name (`owner/name`), the https:// base URL of a folder, or a folder
of an object store."""

import os
from pathlib import Path

from halfbyte.checkpoint.files import ConfinedFiles, Files, LocalFiles
from halfbyte.checkpoint.names import REMOTE_SECONDS, is_hub_name, is_store, is_url


def is_remote(target: str) -> bool:
    """Whether it is to be fetched: a URL, or a hub name that is no path here."""
    # os.path, unlike Path, has no OSError for a name that is too long
    return is_url(target) or is_store(target) or (not os.path.exists(target) and is_hub_name(target))


def files_of(target: str, confined: bool = False, seconds: float = REMOTE_SECONDS) -> Files | None:
    """The files of a target, None for what is none of the three. confined: see ConfinedFiles. seconds: for all that is
    asked of a server."""
    if is_remote(target):
        if is_store(target):
            from halfbyte.checkpoint.object_store import StoreFiles

            return StoreFiles(target)
        from halfbyte.checkpoint.remote import RemoteFiles  # httpx is slow to import

        return RemoteFiles(target, seconds=seconds)
    if os.path.isdir(target):
        return ConfinedFiles(Path(target)) if confined else LocalFiles(Path(target))
    return None
