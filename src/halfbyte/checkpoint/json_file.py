"""JSON objects from files of others: bounded in size, and every fault an error that names the file."""

import json
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.pointers import refuse_pointer
from halfbyte.disk import is_missing, read_regular
from halfbyte.errors import CheckpointError

JSON_LIMIT_BYTES = 256_000_000
"""What the index of the largest model takes, ten times over."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of sane size. Raises CheckpointError with the file's name."""
    if is_missing(path):
        raise CheckpointError(f"{path}: missing", hint="a checkpoint folder holds config.json and *.safetensors")
    return object_of(read_regular(path, JSON_LIMIT_BYTES), str(path))


def object_of(content: bytes, where: str) -> dict[str, Any]:
    """The JSON object that a file's bytes spell. Raises CheckpointError, `where` in front."""
    refuse_pointer(content, where)
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: not valid JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{where}: not a JSON object")
    return document
