"""What a harness left of one model's answers: samples by suite, whoever ran them.

A sample is scored, or it is not: `unscorable` (a judge or parser that gave nothing) and `failed` (a server, a network)
are neither wrong nor dropped. Truncation is a state of its own, reported before accuracy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

State = Literal["scored", "unscorable", "failed"]


class Sample(NamedTuple):
    """One answer to one item. score: 0 to 1, None unless scored. What a harness does not record is None.

    refused: it begins as refusals do. unparsed: nothing in it could be read as an answer. epoch: number of the run.
    attempts: requests until it came. judge_failed: the judge gave no grade. part: of an answer that is scored in parts
    (SciCode's sub-problems), which; each part counts as an item.
    """

    item: str
    state: State
    score: float | None = None
    truncated: bool = False
    cluster: str | None = None
    output_tokens: int | None = None
    refused: bool | None = None
    unparsed: bool | None = None
    epoch: int = 1
    attempts: int | None = None
    seed: int | None = None
    judge_failed: bool = False
    part: str | None = None

    @property
    def key(self) -> str:
        """By which it is paired."""
        return self.item if self.part is None else f"{self.item}/{self.part}"


@dataclass
class Arm:
    """One model's answers. harness: who ran them. conditions: by suite, what must be equal in both arms."""

    harness: str
    suites: dict[str, list[Sample]] = field(default_factory=dict)
    conditions: dict[str, Mapping[str, Any]] = field(default_factory=dict)
