"""`quantize --calibrate`: the rule that makes input scales of what is measured, and measuring it while staging."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from halfbyte.data.documents import Documents, load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.errors import DataError, HalfbyteError, InputScaleError, UsageError
from halfbyte.formats.modelopt import WITH_ACTIVATIONS
from halfbyte.progress import Progress
from halfbyte.quantize.input_scale import DEFAULT_INPUT_SCALE, InputScales, from_file, parse_input_scale
from halfbyte.quantize.journal import STAGING
from halfbyte.recipes.recipe import Recipe

CALIBRATION = "calibration.json"
ACTIVATIONS = "activations"
"""Work folder of a rounding pass, in the staging folder; a pass that only calibrates works in the staging folder."""

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
    if recipe.algorithm != WITH_ACTIVATIONS:
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
    if recipe.algorithm != WITH_ACTIVATIONS:
        return None
    if rule:
        return InputScales(f"calibrated by this run, {rule}", constant=np.float32(1))
    return parse_input_scale(DEFAULT_INPUT_SCALE if input_scale is None else input_scale)


def calibration_documents(src: Path, data: Sequence[str], bounds: Bounds) -> Documents:
    """What the run calibrates on, read and tokenized.

    Raises UsageError for a device that is none, DataError for a document that the model has no positions for, and what
    `data.documents.load` raises.
    """
    if bounds.device.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(f"--device {bounds.device}: wanted cpu or cuda")
    tokenizer = open_tokenizer(src)
    with our_option_names():
        documents = load(list(data), tokenizer, max_length=bounds.length, tokens=bounds.tokens)
    longest = max(documents.documents, key=lambda document: len(document.ids))
    if isinstance(tokenizer.context, int) and len(longest.ids) > tokenizer.context:
        raise DataError(
            f"{longest.source}:{longest.row}: {len(longest.ids)} tokens, the model has {tokenizer.context} positions",
            hint=f"cut documents off: --calibration-length {tokenizer.context}",
        )
    return documents


@contextmanager
def our_option_names() -> Iterator[None]:
    """Errors of what `calibrate` and `compare` use too, under the names that their options have here."""
    try:
        yield
    except HalfbyteError as error:
        message, hint = _RENAMED.sub(_ours, error.message), error.hint and _RENAMED.sub(_ours, error.hint)
        raise type(error)(message, hint=hint) from None


_NAMES = {"--max-length": "--calibration-length", "--tokens": "--calibration-tokens", "--data": "--calibrate"}
_RENAMED = re.compile("|".join(rf"{name}\b" for name in _NAMES))


def _ours(found: re.Match[str]) -> str:
    return _NAMES[found[0]]


def calibrated_scales(
    src: Path, dst: Path, data: Sequence[str], bounds: Bounds, progress: Progress | None
) -> InputScales:
    """Scales measured on `data`. Goes on after a kill, and is done at once if an earlier run had finished it."""
    from halfbyte.calibrate.calibration import calibrate  # needs torch; the rest of quantize does not

    work = dst / STAGING
    with our_option_names():
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
    return measured_scales(work)


def measured_scales(work: Path) -> InputScales:
    """Scales that this run has measured, by `calibrated_scales` or while it rounded on data, in folder `work`."""
    found = from_file(work / CALIBRATION)
    about = found.calibration
    if about is None or about.data is None or about.amax is None:
        raise InputScaleError(f"{work / CALIBRATION}: does not say what it was measured on", hint="remove it")
    room = [one.headroom for name, one in about.inputs.items() if ".experts." in name]
    description = f"calibrated on {about.data.tokens:,} tokens of {about.data.documents:,} documents"
    if about.model != "source":
        description += " as the rounded experts see them"
    return replace(found, description=f"{description}, {about.amax}{_room(about.amax, room)}")


def _room(rule: str, headroom: Sequence[float]) -> str:
    if rule != "headroom" or not headroom:
        return ""
    least, most = (f"{value:,.0f}" if value >= 10 else f"{value:.1f}" for value in (min(headroom), max(headroom)))
    return f": {least} to {most} times the largest input of a layer's experts"
