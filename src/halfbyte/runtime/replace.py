"""Which modules of a transformers model are packed: all linears that the checkpoint's exclusions do not name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from halfbyte.engines.engine import SplitFusedError
from halfbyte.engines.vllm import VLLM
from halfbyte.errors import CheckpointError, UnknownTensorError, UnsupportedError
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role, TensorRole
from halfbyte.modules.experts import check_plain, is_experts
from halfbyte.runtime.packed import Backend, PackedExperts, PackedLinear
from halfbyte.runtime.runtime import Runtime

NEVER_PACKED = (Role.ROUTER, Role.EMBEDDING, Role.NORM)


def is_quantized(role: TensorRole, exclusions: Sequence[str]) -> bool:
    """Whether a linear is quantized by the config. vLLM's reading of the patterns: it is the one without surprises.

    Raises CheckpointError where the patterns split a fused pair.
    """
    module = VLLM.runtime_module(role)
    try:
        return role.role not in NEVER_PACKED and not VLLM.excluded(tuple(exclusions), module)
    except SplitFusedError as error:
        raise CheckpointError(f"config.json: quantization_config.ignore: {module}: {error}") from None


def replace_modules(model: Any, roles: RoleMap, exclusions: Sequence[str], runtime: Runtime[Backend]) -> int:
    """Put packed modules (on the meta device) in place of the quantized ones. Returns how many."""
    if not roles.arch.gated_experts:
        raise UnsupportedError(
            f"{roles.family.model_type}: packed experts are multiplied with a gate here, and these have none",
            hint="serve it with vLLM or SGLang, or compare it with its source: that needs no packed experts",
        )
    prefix = "" if hasattr(model, model.base_model_prefix) else f"{model.base_model_prefix}."
    count = 0
    for path, module in list(model.named_modules()):
        packed: nn.Module
        with torch.device("meta"):
            if is_experts(module):
                role = roles.role(f"{prefix}{path}.gate_up_proj")
                assert role.layer is not None
                if not roles.family.stacked:
                    role = roles.role(f"{roles.expert_module(role.layer, 0, 'gate_proj')}.weight")
                if not is_quantized(role, exclusions):
                    continue
                check_plain(module, path)
                experts, double, hidden = module.get_parameter("gate_up_proj").shape
                packed = PackedExperts(experts, hidden, double // 2, module.act_fn, runtime, path)
            elif isinstance(module, nn.Linear):
                try:
                    role = roles.role(f"{prefix}{path}.weight")
                except UnknownTensorError:
                    continue  # a linear that the published checkpoint does not have; the files will tell
                if not is_quantized(role, exclusions):
                    continue
                packed = PackedLinear(module, runtime, path)
            else:
                continue
        model.set_submodule(path, packed)
        count += 1
    return count
