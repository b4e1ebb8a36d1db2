"""Values of a config.json, checked where they are read."""

from typing import Any

from halfbyte.errors import CheckpointError

MOST = 1 << 32


def positive(text: dict[str, Any], key: str, default: int | None = None) -> int:
    """A count of the config. With a default, the key may be absent, null or 0 (which mean the default)."""
    value = text.get(key)
    if default is not None and (value is None or value == 0):
        return default
    if type(value) is not int or not 0 < value <= MOST:
        raise CheckpointError(f"config.json: {key} is {str(value)[:80]!r}, wanted a positive integer")
    return value
