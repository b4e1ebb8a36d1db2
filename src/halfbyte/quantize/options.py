"""What `quantize` and `improve` can be asked for; every default stands here alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from halfbyte.errors import UsageError, said
from halfbyte.process import cores
from halfbyte.recipes.names import DEFAULT_RECIPE

if TYPE_CHECKING:
    from halfbyte.recipes.recipe import Recipe

OnData = Literal["gptq", "weighted-sweep"]
"""Roundings that need data: for the outputs, or for the weights by their inputs' energy."""
Rounding = Literal["max", "sweep", "weighted-sweep", "gptq"]
RULES = ("max", "headroom")
"""Of `input_scale`: how it is made of what is measured."""


@dataclass(frozen=True)
class QuantizeOptions:
    """recipe: shipped name, file, or Recipe. rounding: `max` is ModelOpt's, bit for bit; `sweep` searches the block
    scale with the least squared error; `gptq` rounds routed experts for the least error of their outputs on the
    `calibrate` data, `weighted-sweep` only searches their scales, each column's error weighed by its input's energy
    there; both round everything else by `sweep`. input_scale: a positive constant, a file (`input_scale.from_file`),
    or the rule `max` or `headroom` for what is measured on `calibrate`; by default `headroom` with data and 1 without;
    not used by weight-only recipes. calibrate: data on which to measure the input scales first, by streaming, or on
    which gptq rounds, and measures them as it goes; calibration_tokens and calibration_length bound the data,
    memory_budget the resident bytes, device says where. workers: threads, by default one per processor. dry_run: say
    what would be written. overwrite: replace a checkpoint in `dst`; the old one stays until the new one is complete.
    force: write what engines are known not to load. keep_format: copy what
    the recipe keeps as it is stored, where engines load the mixture, instead of writing it as BF16. follow_links: see
    `Checkpoint.open`.

    Raises UsageError for what cannot be.
    """

    recipe: "str | Path | Recipe" = DEFAULT_RECIPE
    rounding: Rounding = "max"
    input_scale: str | float | Path | None = None
    calibrate: Sequence[str] = ()
    calibration_tokens: int | None = None
    calibration_length: int = 2048
    memory_budget: int | None = None
    device: str = "cpu"
    workers: int | None = None
    max_shard_bytes: int = 5_000_000_000
    dry_run: bool = False
    overwrite: bool = False
    force: bool = False
    keep_format: bool = False
    follow_links: bool = False

    def __post_init__(self) -> None:
        if self.rounding not in get_args(Rounding):
            known = " or ".join(get_args(Rounding))
            raise UsageError(said("{rounding} {value}: wanted {known}", value=self.rounding, known=known))
        if self.on_data and not self.calibrate:
            raise UsageError(
                said("{rounding} {value} rounds on data, and there is none", value=self.rounding),
                hint=said("give {calibrate} FILE, or use sweep"),
            )
        if self.threads < 1 or self.max_shard_bytes < 1:
            raise UsageError(said("{workers} and {max_shard_bytes} take at least 1"))

    @property
    def on_data(self) -> OnData | None:
        """The rounding, if it needs data."""
        return next((one for one in get_args(OnData) if one == self.rounding), None)

    @property
    def measured_rule(self) -> str | None:
        """The rule that `input_scale` asks for, if it is one."""
        return self.input_scale if isinstance(self.input_scale, str) and self.input_scale in RULES else None

    @property
    def threads(self) -> int:
        return self.workers if self.workers is not None else cores()
