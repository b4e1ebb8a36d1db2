"""From per-expert tensors to stacked parameters and back, by transformers' own conversion mapping.

transformers merges `experts.*.gate_proj.weight` and `up_proj.weight` into `experts.gate_up_proj`. Codes and block
scales merge in just that way (rows are rows), so each family's own converters are copied for them, whatever it calls
its experts. The scalars want one operation of ours.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightTransform

SUFFIXES = ("_scale", "_scale_2", "_input_scale")
"""What a stacked parameter's name gets for its scales."""


class StackScalars(ConversionOps):  # type: ignore[misc]
    """Scalars of all experts -> [E] for one projection, [E, P] for P projections in the order of the patterns."""

    @torch.no_grad()
    def convert(
        self, input_dict: dict[str, list[Tensor]], source_patterns: list[str], target_patterns: list[str], **_: Any
    ) -> dict[str, Tensor]:
        columns = [torch.stack(input_dict.pop(pattern)) for pattern in source_patterns]
        return {target_patterns[0]: columns[0] if len(columns) == 1 else torch.stack(columns, dim=1)}

    @property
    def reverse_op(self) -> "UnstackScalars":
        return UnstackScalars()


class UnstackScalars(ConversionOps):  # type: ignore[misc]
    """The reverse: [E] or [E, P] -> one scalar [] for each expert and projection."""

    @torch.no_grad()
    def convert(
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **_: Any
    ) -> dict[str, Tensor]:
        (stacked,) = input_dict.values()
        stacked = stacked[0] if isinstance(stacked, list) else stacked
        columns = [stacked] if stacked.ndim == 1 else list(stacked.unbind(1))
        return {
            pattern.replace("*", str(expert)): scalar.clone()
            for pattern, column in zip(target_patterns, columns, strict=True)
            for expert, scalar in enumerate(column)
        }

    @property
    def reverse_op(self) -> StackScalars:
        return StackScalars()


def with_scales(conversions: list[WeightTransform], parameters: set[str]) -> list[WeightTransform]:
    """The model's conversions, and beside each that stacks packed experts one for each kind of scale.

    parameters: names of the model's parameters; they decide which scales exist.
    """
    result: list[WeightTransform] = []
    for conversion in conversions:
        result.append(conversion)
        if not isinstance(conversion, WeightConverter):
            continue
        sources, targets = conversion._original_source_patterns, conversion._original_target_patterns
        if len(targets) != 1 or not all(source.endswith(".weight") for source in sources):
            continue
        for suffix in SUFFIXES:
            target = targets[0] + suffix
            if not any(name.endswith(target) for name in parameters):
                continue
            part = ".input_scale" if suffix == "_input_scale" else f".weight{suffix}"
            renamed = [source.removesuffix(".weight") + part for source in sources]
            operations = list(conversion.operations) if suffix == "_scale" else [StackScalars()]
            result.append(conversion.copy(renamed, [target], operations=operations))
    return result
