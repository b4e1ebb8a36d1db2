"""What `calibrate` can be asked for; every default stands here alone. Needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from halfbyte.calibrate.rule import Rule, parse_rule
from halfbyte.errors import UsageError, said


@dataclass(frozen=True)
class CalibrateOptions:
    """tokens, max_length, seed, pack: see `data.documents.load`. memory_budget: resident bytes. work: folder to go on
    from after a kill. min_tokens: experts with fewer are reported, and take their layer's value. amax: `max`,
    `headroom`, `percentile:P` or `mse`. per_expert: write every covered expert's own value too (engines reduce them to
    the layer's largest). overwrite: replace an existing file. ray: address of
    a cluster whose machines run a share of the documents each.

    Raises UsageError for what cannot be.
    """

    tokens: int | None = None
    max_length: int | None = None
    seed: int = 0
    pack: bool = False
    memory_budget: int | None = None
    work: str | Path | None = None
    device: str = "cpu"
    min_tokens: int = 64
    amax: str = "max"
    per_expert: bool = False
    overwrite: bool = False
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.per_expert and self.rule.kind == "headroom":
            message = said("{per_expert}: {amax} headroom is a rule for all experts of a layer")
            raise UsageError(message, hint="leave one out")
        if self.ray is not None and self.rule.kind not in ("max", "headroom"):
            raise UsageError(
                said("{amax} {rule} looks at all documents at once; {ray} adds up shares", rule=self.amax),
                hint=said("use {amax} max or headroom, or leave {ray} out"),
            )
        if self.min_tokens < 1:
            raise UsageError(said("{min_tokens} {value}: wanted at least 1", value=self.min_tokens))

    @property
    def rule(self) -> Rule:
        return parse_rule(self.amax)
