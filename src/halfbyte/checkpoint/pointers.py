"""git-LFS pointers: what `git clone` leaves in place of a large file where git-lfs is not installed."""

from halfbyte.errors import CheckpointError

POINTER = b"version https://git-lfs.github.com/spec/"
MOST_BYTES = 1024
"""By the specification of git-LFS: no pointer is larger."""

HINT = "fetch it: git lfs pull, or download the checkpoint again"


def is_pointer(content: bytes) -> bool:
    """content: the first bytes of a file, at least as many as POINTER has."""
    return content.startswith(POINTER)


def refuse_pointer(content: bytes, where: str) -> None:
    """Raises CheckpointError, `where` in front."""
    if is_pointer(content):
        raise CheckpointError(f"{where}: is a git-LFS pointer, not the file itself", hint=HINT)
