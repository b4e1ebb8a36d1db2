"""What a run asks: suites of items of ours, or tasks that inspect-evals brings."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect_ai import Task


@dataclass(frozen=True)
class Sampling:
    """temperature, top_p: of the requests. max_tokens: of an answer, reasoning included. epochs: runs of each item.
    seed: from it follows that of each run of each item, by `seed_of`."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 16_384
    epochs: int = 1
    seed: int = 0
    max_connections: int = 8


def seed_of(seed: int, item: str, run: int) -> int:
    """Of one request, 31 bits. With one seed for all items an engine draws the same numbers for each of them, and their
    errors come together: items would be no sample any more."""
    digest = hashlib.sha256(json.dumps([seed, item, run]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclass(frozen=True)
class AskedSuite:
    """One suite. items: ours, each with id, prompt or messages, reference, checker, perhaps tools and cluster; of a
    task that inspect-evals brings, ids alone. task: builds that one. about: versions, checksums, sandbox, languages.
    roles: other models that it needs, `judge` or `user`. data: folder of code that checks answers.
    """

    name: str
    items: tuple[dict[str, Any], ...]
    sampling: Sampling
    task: "Callable[[], Task] | None" = None
    about: dict[str, Any] = field(default_factory=dict)
    roles: frozenset[str] = frozenset()
    data: Path | None = None

    @property
    def sha256(self) -> str:
        """Of everything that is asked."""
        asked = {"items": self.items, "about": self.about}
        return hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
