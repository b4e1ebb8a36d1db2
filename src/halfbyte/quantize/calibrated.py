"""Input scales that a run measures on its data: the rule that makes them, and measuring them while staging."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.documents import Documents, load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.errors import DataError, InputScaleError, UsageError, options_called, said
from halfbyte.formats.modelopt import WITH_ACTIVATIONS
from halfbyte.progress import Progress
from halfbyte.quantize.input_scale import DEFAULT_INPUT_SCALE, InputScales, from_file, parse_input_scale
from halfbyte.quantize.journal import STAGING
from halfbyte.quantize.options import RULES, QuantizeOptions
from halfbyte.recipes.recipe import Recipe

CALIBRATION = "calibration.json"
ACTIVATIONS = "activations"
"""Work folder of a rounding pass, in the staging folder; a pass that only calibrates works in the staging folder."""

DEFAULT_RULE = "headroom"
"""Costs nothing that can be measured and survives a token larger than any seen, max does not: see
docs/activation-scales.md."""

OURS = {"max_length": "calibration_length", "tokens": "calibration_tokens", "data": "calibrate"}
"""What options of `calibrate` are called where `quantize` has them."""


@dataclass(frozen=True)
class DataBounds:
    """tokens and length: of the data. memory_budget: resident bytes of the calibration. amax: rule of the scales."""

    tokens: int | None
    length: int | None
    memory_budget: int | None
    device: str
    amax: str = DEFAULT_RULE

    @classmethod
    def of(cls, options: QuantizeOptions, rule: str | None) -> "DataBounds":
        """rule: `measured_by`."""
        tokens, length = options.calibration_tokens, options.calibration_length
        return cls(tokens, length, options.memory_budget, options.device, rule or "max")


def measured_by(recipe: Recipe, options: QuantizeOptions) -> str | None:
    """The rule by which a run measures its input scales, or None if it measures none.

    Raises UsageError for options that exclude each other.
    """
    rule, calibrate, on_data = options.measured_rule, options.calibrate, options.on_data is not None
    if recipe.algorithm != WITH_ACTIVATIONS:
        weight_only = "recipe {name} is weight-only and has no input scale"
        if rule:
            message = said("{input_scale} {rule}: " + weight_only, rule=rule, name=recipe.name)
            raise UsageError(message, hint="leave it out")
        if calibrate and not on_data:  # data to round on are of use all the same
            raise UsageError(said("{calibrate}: " + weight_only, name=recipe.name), hint="leave it out")
        return None
    if rule and not calibrate:
        raise UsageError(
            said("{input_scale} {rule}: is measured on data, and there is none", rule=rule),
            hint=said("give {calibrate} FILE, or a number: {input_scale} 1"),
        )
    if rule or (calibrate and options.input_scale is None):
        return rule or DEFAULT_RULE
    if calibrate and not on_data:
        raise UsageError(
            said("{calibrate} and {input_scale} {given} both say what the input scales are", given=options.input_scale),
            hint=said("give one of them, or {input_scale} {rules}", rules=" or ".join(RULES)),
        )
    return None


def known_scales(recipe: Recipe, options: QuantizeOptions, rule: str | None) -> InputScales | None:
    """Input scales as far as they are known before any work. rule: `measured_by`. None for a weight-only recipe."""
    if recipe.algorithm != WITH_ACTIVATIONS:
        return None
    if rule:
        return InputScales(f"calibrated by this run, {rule}", constant=np.float32(1))
    return parse_input_scale(DEFAULT_INPUT_SCALE if options.input_scale is None else options.input_scale)


def calibration_documents(src: Path, data: Sequence[str], bounds: DataBounds) -> Documents:
    """What the run calibrates on, read and tokenized.

    Raises UsageError for a device that is none, DataError for a document that the model has no positions for, and what
    `data.documents.load` raises.
    """
    if bounds.device.partition(":")[0] not in ("cpu", "cuda"):
        raise UsageError(said("{device} {name}: wanted cpu or cuda", name=bounds.device))
    tokenizer = open_tokenizer(src)
    with options_called(**OURS):
        documents = load(list(data), tokenizer, max_length=bounds.length, tokens=bounds.tokens)
    longest = max(documents.documents, key=lambda document: len(document.ids))
    if isinstance(tokenizer.context, int) and len(longest.ids) > tokenizer.context:
        raise DataError(
            f"{longest.source}:{longest.row}: {len(longest.ids)} tokens, the model has {tokenizer.context} positions",
            hint=said("cut documents off: {calibration_length} {most}", most=tokenizer.context),
        )
    return documents


def calibrated_scales(
    src: Checkpoint, dst: Path, data: Sequence[str], bounds: DataBounds, progress: Progress
) -> InputScales:
    """Scales measured on `data`. Goes on after a kill, and is done at once if an earlier run had finished it."""
    from halfbyte.calibrate.calibration import calibrate  # needs torch; the rest of quantize does not

    work = dst / STAGING
    with options_called(**OURS):
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
