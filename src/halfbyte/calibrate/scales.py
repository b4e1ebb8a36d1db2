"""From what the inputs looked like to one amax for each linear, and to the statistics that stand beside them."""

from collections.abc import Mapping
from typing import Any

from halfbyte.calibrate.blocks import Split
from halfbyte.calibrate.coverage import Coverage
from halfbyte.calibrate.headroom import headroom_scale
from halfbyte.calibrate.inputs import Seen
from halfbyte.calibrate.rule import Rule
from halfbyte.calibrate.shares import CEILING
from halfbyte.calibrate.watch import GATE_UP, LayerSeen
from halfbyte.models.role_map import RoleMap


def group_modules(roles: RoleMap, layer: int) -> tuple[str, str]:
    """Names that stand for the gate/up and the down projections of all experts of a layer."""
    container = roles.experts_path(layer)
    first, last = group_names(roles)
    return f"{container}.{first}", f"{container}.{last}"


def group_names(roles: RoleMap) -> tuple[str, str]:
    """What the linears that read an expert's input are together, and the one behind them: `gate_up_proj` and
    `down_proj`, or `up_proj` and `down_proj`."""
    *first, last = roles.expert_projections
    return (GATE_UP if len(first) > 1 else first[0]), last


def scale_values(
    roles: RoleMap,
    layers: Mapping[int, LayerSeen],
    linears: Mapping[str, Seen],
    linear_blocks: Mapping[str, Split],
    rule: Rule,
    per_expert: bool,
    min_tokens: int,
) -> dict[str, float]:
    """amax by module path. A layer's experts share the largest of theirs, for gate/up and for down, as ModelOpt does.

    per_expert: also one of its own for each expert that saw `min_tokens`; the others take the layer's.
    Left out: whatever saw only zeros, or nothing.
    """
    values: dict[str, float] = {}
    *first, last = roles.expert_projections
    for layer, seen in sorted(layers.items()):
        experts_of = zip(
            group_modules(roles, layer),
            (first, [last]),
            (seen.gate_up, seen.down),
            (seen.gate_up_blocks, seen.down_blocks),
            strict=True,
        )
        for group, projections, experts, blocks in experts_of:
            value = _amax(max(expert.value for expert in experts), blocks, rule)
            if not value:
                continue
            values[group] = value
            for number, expert in enumerate(experts if per_expert else ()):
                if expert.tokens >= min_tokens and expert.value:
                    modules = (roles.expert_module(layer, number, projection) for projection in projections)
                    values |= dict.fromkeys(modules, expert.value)
    for name, one in sorted(linears.items()):
        if value := _amax(one.value, linear_blocks.get(name), rule):
            values[roles.published(name)] = value
    return values


def _amax(value: float, blocks: Split | None, rule: Rule) -> float:
    """value: the rule's, where it is one for single values. Rows that are not whole blocks are never NVFP4."""
    if rule.kind != "headroom" or blocks is None:
        return value
    return CEILING * headroom_scale(blocks.calibration + blocks.held_out)


def expert_statistics(roles: RoleMap, layers: Mapping[int, LayerSeen], coverage: Coverage) -> dict[str, Any]:
    """By layer: tokens and amax of every expert's inputs, and the experts whose scale is inherited."""
    first, last = group_names(roles)
    return {
        str(layer): {
            "tokens": [expert.tokens for expert in seen.gate_up],
            first: _columns(seen.gate_up),
            last: _columns(seen.down),
            "inherited": [e for e, expert in enumerate(seen.gate_up) if expert.tokens < coverage.min_tokens],
        }
        for layer, seen in sorted(layers.items())
    }


def _columns(experts: list[Seen]) -> dict[str, list[float]]:
    return {"largest": [expert.largest for expert in experts], "amax": [expert.value for expert in experts]}
