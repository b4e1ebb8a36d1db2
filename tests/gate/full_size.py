"""GLM-5.2 in NVFP4 as it is published and as it could be, at full size: real headers over holes instead of weights."""

import json
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from families.configs import config
from families.headers import header_set

from halfbyte.checkpoint.header import serialize_header
from halfbyte.engines.exclusions import exclusion_entries
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.models import roles_of
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role, TensorRole

from .tokenizers import tokenizer_for

SHARDS = 282
Header = tuple[str, tuple[int, ...]]
Kind = Callable[[TensorRole], bool]

_LINEARS = {Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP, Role.ATTENTION}
KINDS: dict[str, Kind] = {
    "routed experts (as NVIDIA publishes it)": lambda role: role.role is Role.ROUTED_EXPERT,
    "routed and shared experts": lambda role: role.role in (Role.ROUTED_EXPERT, Role.SHARED_EXPERT),
    "routed experts, last two layers kept": lambda role: role.role is Role.ROUTED_EXPERT and (role.layer or 0) < 76,
    "blanket": lambda role: role.role in _LINEARS,
}
"""What is packed, MTP layer excepted."""


def write_full_size(folder: Path, kind: str) -> Path:
    """About 30 MB of headers; the weights behind them are holes in sparse files."""
    folder.mkdir(parents=True)
    document, source = config("GLM-5.2-NVFP4"), header_set("GLM-5.2")
    roles = roles_of(document)
    tensors, kept, packed = _tensors(source, roles, KINDS[kind])
    if kind.startswith("routed experts (as"):
        exclusions = document["quantization_config"]["ignore"]
    else:
        exclusions = document["quantization_config"]["ignore"] = exclusion_entries(kept, packed, roles)
    weight_map: dict[str, str] = {}
    names, total = list(tensors), 0
    for i in range(SHARDS):
        part = names[len(names) * i // SHARDS : len(names) * (i + 1) // SHARDS]
        file = f"model-{i + 1:05d}-of-{SHARDS:05d}.safetensors"
        entries = [(name, *tensors[name], prod(tensors[name][1]) * DTYPE_BYTES[tensors[name][0]]) for name in part]
        header, size = serialize_header(entries, {"format": "pt"}), sum(entry[3] for entry in entries)
        with open(folder / file, "wb") as shard:
            shard.write(header)
            shard.truncate(len(header) + size)
        weight_map |= dict.fromkeys(part, file)
        total += size
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map})
    )
    _write_metadata(folder, document, exclusions)
    return folder


def _tensors(source: dict[str, Header], roles: RoleMap, kind: Kind) -> tuple[dict[str, Header], list[str], list[str]]:
    tensors: dict[str, Header] = {}
    kept, packed = [], []
    for name, (dtype, shape) in source.items():
        role = roles.role(name)
        if role.part != "weight" or len(shape) != 2 or role.mtp or not kind(role):
            tensors[name] = dtype, shape
            if role.part == "weight" and len(shape) == 2:
                kept.append(role.module)
            continue
        packed.append(role.module)
        tensors[f"{role.module}.weight"] = "U8", (shape[0], shape[1] // 2)
        tensors[f"{role.module}.weight_scale"] = "F8_E4M3", (shape[0], shape[1] // 16)
        tensors[f"{role.module}.weight_scale_2"] = "F32", ()
        tensors[f"{role.module}.input_scale"] = "F32", ()
    return tensors, kept, packed


def _write_metadata(folder: Path, document: dict[str, Any], exclusions: list[str]) -> None:
    quantization = {
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": "FP8",
        "group_size": 16,
        "exclude_modules": exclusions,
    }
    producer = document["quantization_config"]["producer"]
    (folder / "config.json").write_text(json.dumps(document))
    (folder / "hf_quant_config.json").write_text(json.dumps({"producer": producer, "quantization": quantization}))
    (folder / "tokenizer.json").write_text(tokenizer_for(document["vocab_size"]))
    card = "---\nlicense: mit\nbase_model: zai-org/GLM-5.2\n---\nCalibration data: not known to this fixture.\n"
    (folder / "README.md").write_text(card)
