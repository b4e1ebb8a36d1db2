"""From per-expert tensors to stacked parameters and back, by transformers' own conversion mapping.

transformers merges `experts.*.gate_proj.weight` and `up_proj.weight` into `experts.gate_up_proj`. Codes and block
scales merge in just that way (rows are rows), so each family's own converters are copied for them, whatever it calls
its experts. The operations are ours: transformers' own stack, then concatenate, and hold a layer twice on the way;
these fill the parameter in place, and know scalars.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import ConversionOps, WeightConverter, WeightTransform

SUFFIXES = ("_scale", "_scale_2", "_input_scale")
"""What a stacked parameter's name gets for its scales."""


class StackMatrices(ConversionOps):
    """Matrices [R, C] of all experts and P projections -> [E, P * R, C], the projections in the order of the patterns.

    Each is copied to its place and let go, so no more than the result is held beside what is still to be copied.
    """

    @torch.no_grad()
    def convert(  # the annotation is narrower than what transformers' own operations do
        self, input_dict: dict[str, list[Tensor]], source_patterns: list[str], target_patterns: list[str], **_: Any
    ) -> dict[str, Tensor]:
        projections = [input_dict.pop(pattern) for pattern in source_patterns]
        first = projections[0][0]
        rows = first.shape[0]
        stack = first.new_empty((len(projections[0]), len(projections) * rows, *first.shape[1:]))
        for number, matrices in enumerate(projections):
            for expert in range(len(matrices)):
                stack[expert, number * rows : (number + 1) * rows] = matrices[expert]
                matrices[expert] = first
        return {target_patterns[0]: stack}

    @property
    def reverse_op(self) -> "UnstackMatrices":
        return UnstackMatrices()


class UnstackMatrices(ConversionOps):
    """The reverse: [E, P * R, C] -> one matrix [R, C] for each expert and projection, views of the stack."""

    @torch.no_grad()
    def convert(  # as above
        self, input_dict: dict[str, Any], source_patterns: list[str], target_patterns: list[str], **_: Any
    ) -> dict[str, Tensor]:
        (stack,) = input_dict.values()
        stack = stack[0] if isinstance(stack, list) else stack
        return {
            pattern.replace("*", str(expert)): matrix
            for pattern, projection in zip(target_patterns, stack.chunk(len(target_patterns), dim=1), strict=True)
            for expert, matrix in enumerate(projection)
        }

    @property
    def reverse_op(self) -> StackMatrices:
        return StackMatrices()


class StackScalars(ConversionOps):
    """Scalars of all experts -> [E] for one projection, [E, P] for P projections in the order of the patterns."""

    @torch.no_grad()
    def convert(  # the annotation is narrower than what transformers' own operations do
        self, input_dict: dict[str, list[Tensor]], source_patterns: list[str], target_patterns: list[str], **_: Any
    ) -> dict[str, Tensor]:
        columns = [torch.stack(input_dict.pop(pattern)) for pattern in source_patterns]
        return {target_patterns[0]: columns[0] if len(columns) == 1 else torch.stack(columns, dim=1)}

    @property
    def reverse_op(self) -> "UnstackScalars":
        return UnstackScalars()


class UnstackScalars(ConversionOps):
    """The reverse: [E] or [E, P] -> one scalar [] for each expert and projection."""

    @torch.no_grad()
    def convert(  # the annotation is narrower than what transformers' own operations do
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


STACKS = {"experts.gate_up_proj": ("gate_proj", "up_proj"), "experts.down_proj": ("down_proj",)}
"""Target of what is stacked -> its projections, where transformers knows a family's stacks alone (Gemma 4)."""


def with_scales(conversions: list[WeightTransform], parameters: set[str]) -> list[WeightTransform]:
    """The model's conversions, and beside each that stacks packed experts one for each kind of scale.

    parameters: names of the model's parameters; they decide which scales exist.
    """
    result: list[WeightTransform] = []
    for conversion in [*conversions, *_stacking(conversions, parameters)]:
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
            if suffix == "_scale":
                result.remove(conversion)
                result.append(conversion.copy(sources, targets, operations=[StackMatrices()]))
            operation = StackMatrices() if suffix == "_scale" else StackScalars()
            result.append(conversion.copy(renamed, [target], operations=[operation]))
    return result


def _stacking(conversions: list[WeightTransform], parameters: set[str]) -> Iterator[WeightConverter]:
    """What stacks experts that no conversion stacks."""
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    stacked = {target for entry in converters for target in entry._original_target_patterns}
    for target, projections in STACKS.items():
        wanted = any(name.endswith(f".{target}") for name in parameters)
        if wanted and not any(known.endswith(target) for known in stacked):
            sources = [f"experts.*.{projection}.weight" for projection in projections]
            yield WeightConverter(sources, target, operations=[StackMatrices()])
