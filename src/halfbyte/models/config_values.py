"""Values of a config.json, checked where they are read: the one reader of all that Halfbyte takes from there."""

from collections.abc import Sequence
from typing import Any

from halfbyte.errors import CheckpointError

Config = dict[str, Any]

MOST = 1 << 32
MOST_COUNTED = 100_000
"""Layers, experts: things for each of which something is made."""


def positive(config: Config, key: str, default: int | None = None) -> int:
    """A size of the config. With a default, the key may be absent, null or 0 (which mean the default)."""
    value = config.get(key)
    if default is not None and (value is None or value == 0):
        return default
    if type(value) is not int or not 0 < value <= MOST:
        raise _refused(key, value, "a positive integer")
    return value


def count(config: Config, key: str) -> int:
    """A number of things of which each will be looked at, so bounded tightly."""
    value = config.get(key)
    if type(value) is not int or not 0 < value <= MOST_COUNTED:
        raise _refused(key, value, "a positive integer")
    return value


def natural(config: Config, key: str, default: int) -> int:
    """A whole number from 0 on; absent or null means the default."""
    value = config.get(key)
    if value is None:
        return default
    if type(value) is not int or value < 0:
        raise _refused(key, value, "a non-negative integer")
    return value


def per_layer(config: Config, key: str, known: tuple[str, ...], layers: int) -> Sequence[Any]:
    """A list (or string) with one known entry for each decoder layer; entries for MTP layers may follow."""
    value = config[key]
    if not isinstance(value, list | str) or len(value) < layers:
        entries = len(value) if isinstance(value, list | str) else "no"
        raise CheckpointError(f"config.json: {key} has {entries} entries, wanted one for each of {layers} layers")
    for i, entry in enumerate(value[:layers]):
        if entry not in known:
            raise CheckpointError(f"config.json: {key}[{i}] is {str(entry)[:80]!r}, wanted one of {', '.join(known)}")
    return value


def _refused(key: str, value: Any, wanted: str) -> CheckpointError:
    return CheckpointError(f"config.json: {key} is {str(value)[:80]!r}, wanted {wanted}")
