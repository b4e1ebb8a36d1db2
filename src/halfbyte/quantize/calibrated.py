"""`quantize --calibrate`: measure the input scales first, in the destination's staging folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from halfbyte.progress import Progress
from halfbyte.quantize.input_scale import InputScales, from_file
from halfbyte.quantize.journal import STAGING

CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Bounds:
    """tokens and length: of the data. memory_budget: resident bytes of the calibration."""

    tokens: int | None
    length: int | None
    memory_budget: int | None
    device: str


def calibrated_scales(
    src: Path, dst: Path, data: Sequence[str], bounds: Bounds, progress: Progress | None
) -> InputScales:
    """Scales measured on `data`. Goes on after a kill, and is done at once if an earlier run had finished it."""
    from halfbyte.calibrate.run import calibrate  # needs torch; the rest of quantize does not

    work = dst / STAGING
    result = calibrate(
        src,
        data,
        work / CALIBRATION,
        tokens=bounds.tokens,
        max_length=bounds.length,
        memory_budget=bounds.memory_budget,
        device=bounds.device,
        work=work,
        overwrite=True,
        progress=progress,
    )
    description = f"calibrated on {result.tokens:,} tokens of {result.documents:,} documents"
    return replace(from_file(work / CALIBRATION), description=description)
