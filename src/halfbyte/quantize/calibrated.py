"""`quantize --calibrate`: the rule that makes input scales of what is measured, and measuring it while staging."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from halfbyte.errors import UsageError
from halfbyte.progress import Progress
from halfbyte.quantize.input_scale import DEFAULT_INPUT_SCALE, InputScales, from_file, parse_input_scale
from halfbyte.quantize.journal import STAGING
from halfbyte.quantize.recipe import Recipe

CALIBRATION = "calibration.json"
RULES = ("max", "headroom")
DEFAULT_RULE = "headroom"
"""Costs nothing that can be measured and survives a token larger than any seen, max does not: see
docs/activation-scales.md."""


@dataclass(frozen=True)
class Bounds:
    """tokens and length: of the data. memory_budget: resident bytes of the calibration. amax: rule of the scales."""

    tokens: int | None
    length: int | None
    memory_budget: int | None
    device: str
    amax: str = DEFAULT_RULE


def measured_by(
    recipe: Recipe, input_scale: str | float | Path | None, calibrate: Sequence[str], on_data: bool
) -> str | None:
    """The rule by which this run measures its input scales, or None if it measures none.

    input_scale: as given, None if it was not. on_data: the weights are rounded on `calibrate` too, which is then of
    use without a rule. Raises UsageError for options that exclude each other.
    """
    rule = input_scale if isinstance(input_scale, str) and input_scale in RULES else None
    if recipe.algorithm != "NVFP4":
        option = f"--input-scale {rule}" if rule else None if on_data or not calibrate else "--calibrate"
        if option:
            raise UsageError(
                f"{option}: recipe {recipe.name} is weight-only and has no input scale", hint="leave it out"
            )
        return None
    if rule and not calibrate:
        raise UsageError(
            f"--input-scale {rule}: is measured on data, and there is none",
            hint="give --calibrate FILE, or a number: --input-scale 1",
        )
    if rule or (calibrate and input_scale is None):
        return rule or DEFAULT_RULE
    if calibrate and not on_data:
        raise UsageError(
            f"--calibrate and --input-scale {input_scale} both say what the input scales are",
            hint=f"give one of them, or --input-scale {' or '.join(RULES)}",
        )
    return None


def known_scales(recipe: Recipe, input_scale: str | float | Path | None, rule: str | None) -> InputScales | None:
    """Input scales as far as they are known before any work. rule: `measured_by`. None for a weight-only recipe."""
    if recipe.algorithm != "NVFP4":
        return None
    if rule:
        return InputScales(f"calibrated by this run, {rule}", constant=np.float32(1))
    return parse_input_scale(DEFAULT_INPUT_SCALE if input_scale is None else input_scale)


def calibrated_scales(
    src: Path, dst: Path, data: Sequence[str], bounds: Bounds, progress: Progress | None
) -> InputScales:
    """Scales measured on `data`. Goes on after a kill, and is done at once if an earlier run had finished it."""
    from halfbyte.calibrate.run import calibrate  # needs torch; the rest of quantize does not

    work = dst / STAGING
    calibrate(
        src,
        data,
        work / CALIBRATION,
        tokens=bounds.tokens,
        max_length=bounds.length,
        memory_budget=bounds.memory_budget,
        device=bounds.device,
        amax=bounds.amax,
        work=work,
        overwrite=True,
        progress=progress,
    )
    return measured_scales(dst)


def measured_scales(dst: Path) -> InputScales:
    """Scales that this run has measured, by `calibrated_scales` or while it rounded on data."""
    found = from_file(dst / STAGING / CALIBRATION)
    about: Any = found.calibration
    data = about["data"]
    room = [one["headroom"] for name, one in about["inputs"].items() if ".experts." in name]
    description = f"calibrated on {data['tokens']:,} tokens of {data['documents']:,} documents"
    if about["model"] != "source":
        description += " as the rounded experts see them"
    return replace(found, description=f"{description}, {about['amax']}{_room(about['amax'], room)}")


def _room(rule: str, headroom: Sequence[float]) -> str:
    if rule != "headroom" or not headroom:
        return ""
    least, most = (f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in (min(headroom), max(headroom)))
    return f": {least} to {most} times the largest input of a layer's experts"
