"""From what the inputs looked like to one amax for each linear, and to the statistics that stand beside them."""

from collections.abc import Mapping
from typing import Any

from halfbyte.calibrate.coverage import Coverage
from halfbyte.calibrate.inputs import Seen
from halfbyte.calibrate.watch import LayerSeen
from halfbyte.checkpoint.roles import RoleMap

GROUPS = ("gate_up_proj", "down_proj")


def scale_values(
    roles: RoleMap, layers: Mapping[int, LayerSeen], linears: Mapping[str, Seen], per_expert: bool, min_tokens: int
) -> dict[str, float]:
    """amax by module path. A layer's experts share the largest of theirs, for gate/up and for down, as ModelOpt does.

    per_expert: also one of its own for each expert that saw `min_tokens`; the others take the layer's.
    Left out: whatever saw only zeros, or nothing.
    """
    values: dict[str, float] = {}
    for layer, seen in sorted(layers.items()):
        container = roles.expert_module(layer, 0, "down_proj").partition(".experts.")[0]
        for group, experts in zip(GROUPS, (seen.gate_up, seen.down), strict=True):
            largest = max(expert.value for expert in experts)
            if not largest:
                continue
            values[f"{container}.experts.{group}"] = largest
            for number, expert in enumerate(experts if per_expert else ()):
                if expert.tokens >= min_tokens and expert.value:
                    projections = ("gate_proj", "up_proj") if group == "gate_up_proj" else ("down_proj",)
                    modules = (roles.expert_module(layer, number, projection) for projection in projections)
                    values |= dict.fromkeys(modules, expert.value)
    return values | {roles.published(name): seen.value for name, seen in sorted(linears.items()) if seen.value}


def expert_statistics(layers: Mapping[int, LayerSeen], coverage: Coverage) -> dict[str, Any]:
    """By layer: tokens and amax of every expert's inputs, and the experts whose scale is inherited."""
    return {
        str(layer): {
            "tokens": [expert.tokens for expert in seen.gate_up],
            "gate_up_proj": _columns(seen.gate_up),
            "down_proj": _columns(seen.down),
            "inherited": [e for e, expert in enumerate(seen.gate_up) if expert.tokens < coverage.min_tokens],
        }
        for layer, seen in sorted(layers.items())
    }


def _columns(experts: list[Seen]) -> dict[str, list[float]]:
    return {"largest": [expert.largest for expert in experts], "amax": [expert.value for expert in experts]}
