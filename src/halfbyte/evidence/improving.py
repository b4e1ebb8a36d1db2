"""What `halfbyte.json` says of a checkpoint whose experts are being replaced (`quantize --improve`), for its readers.

A shard is replaced in one rename, its hash in the evidence in another, so for a moment either hash is right. The
evidence allows a hash before its shard is in place: who finds a hash that he does not know reads the evidence again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEY = "improving"


@dataclass(frozen=True)
class Improving:
    """done, of: shards. file: the one in flight, which has the SHA-256 in its row of `shards`, or `sha256`."""

    done: int
    of: int
    file: str | None
    sha256: str | None

    @property
    def statement(self) -> str:
        return f"being improved, {self.done} of {self.of} shards done: run the same command to finish"


def improving(document: Mapping[str, Any] | None) -> Improving | None:
    """From the evidence, whoever wrote it; None for a checkpoint that is finished."""
    about = (document or {}).get(KEY)
    if not isinstance(about, dict):
        return None
    following = about.get("next")
    following = following if isinstance(following, dict) else {}
    return Improving(
        _number(about.get("shards_done")),
        _number(about.get("shards")),
        _text(following.get("file")),
        _text(following.get("sha256")),
    )


def in_flight(document: Mapping[str, Any] | None, file: str) -> str | None:
    """The other SHA-256 that a file may have."""
    state = improving(document)
    return state.sha256 if state is not None and state.file == file else None


def allows(document: Mapping[str, Any] | None, file: str, sha256: str) -> bool:
    """Whether a shard may have this SHA-256."""
    rows = (document or {}).get("shards")
    listed = {"file": file, "sha256": sha256}.items()
    return sha256 == in_flight(document, file) or (
        isinstance(rows, list) and any(isinstance(row, dict) and listed <= row.items() for row in rows)
    )


def _number(value: Any) -> int:
    return value if type(value) is int else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
