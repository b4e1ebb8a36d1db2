"""What a checkpoint holds, module by module: role, format, logical parameters, bytes on disk. Headers only.

The tensors of one quantized linear (weight and its scales) form one entry, as the weight they are. Everything else is
an entry of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

from halfbyte.checkpoint.source import Tensor
from halfbyte.errors import CheckpointError
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role, TensorRole

SCALE_PARTS = ("weight_scale", "weight_scale_2", "input_scale", "weight_scale_inv")
LINEAR_PARTS = frozenset({"weight", *SCALE_PARTS})
"""What makes one entry with its module's weight; the role of the first of them is the role of all."""

FP8_TILE = 128

NVFP4 = "nvfp4"
FP8_BLOCK = "fp8-block"
FP8 = "fp8"
QUANTIZED = (NVFP4, FP8_BLOCK, FP8)

Layouts = dict[tuple[tuple[str, str, tuple[int, ...]], ...], tuple[str, tuple[int, ...]]]
"""(part, dtype, shape) of a module's tensors -> format and logical shape: a few serve many thousand modules."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One logical tensor. shape and parameters are those of the unpacked weight; bytes include its scales.

    tensors: part -> the stored tensor ("weight" and, where quantized, its scales).
    """

    role: TensorRole
    format: str
    shape: tuple[int, ...]
    bytes: int
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        return next(iter(self.tensors.values())).name

    @property
    def parameters(self) -> int:
        return prod(self.shape)


def inventory(tensors: Iterable[Tensor], roles: RoleMap) -> list[Entry]:
    """Entries in the order of `tensors`. Raises UnknownTensorError, CheckpointError (scales without weight, shapes)."""
    modules: dict[str, tuple[TensorRole, dict[str, Tensor]]] = {}
    for tensor in tensors:
        owner, _, part = tensor.name.rpartition(".")
        module = modules.get(owner)
        if module is None or module[0].fused or part not in LINEAR_PARTS:
            role = roles.role(tensor.name)
            part = role.part
            if part not in LINEAR_PARTS:
                modules[tensor.name] = (role, {part: tensor})
                continue
            module = modules.setdefault(role.module, (role, {}))
        if part in module[1]:
            raise CheckpointError(f"{tensor.name}: is there twice, also as {module[1][part].name}")
        module[1][part] = tensor
    known: Layouts = {}
    return [_entry(role, parts, known) for role, parts in modules.values()]


def _entry(role: TensorRole, parts: dict[str, Tensor], known: Layouts) -> Entry:
    weight = parts.get("weight")
    if weight is None:
        if len(parts) > 1 or "weight_scale" in parts:
            raise CheckpointError(f"{role.module}: has {', '.join(parts)} but no weight")
        tensor = next(iter(parts.values()))
        if role.part in SCALE_PARTS:
            raise CheckpointError(f"{tensor.name}: a scale without its weight")
        return Entry(role, tensor.dtype.lower(), tensor.shape, tensor.bytes, parts)
    if weight.name != f"{role.module}.weight" and not role.fused:
        raise CheckpointError(f"{weight.name}: is not the weight of {role.module}")
    parts = {"weight": weight, **parts}
    layout = tuple([(part, tensor.dtype, tensor.shape) for part, tensor in parts.items()])
    found = known.get(layout)
    if found is None:
        found = known[layout] = _format(parts)
    return Entry(role, *found, sum([tensor.stop - tensor.start for tensor in parts.values()]), parts)


def _format(parts: dict[str, Tensor]) -> tuple[str, tuple[int, ...]]:
    """Format and logical shape of a weight with its scales. Raises CheckpointError for what is no known format."""
    weight = parts["weight"]
    scales = set(parts) - {"weight"}
    if weight.dtype == "U8" and {"weight_scale", "weight_scale_2"} <= scales <= {*SCALE_PARTS[:3]}:
        return NVFP4, _nvfp4_shape(parts)
    if weight.dtype == "F8_E4M3" and scales == {"weight_scale_inv"}:
        _check_tiles(weight, parts["weight_scale_inv"])
        return FP8_BLOCK, weight.shape
    if weight.dtype == "F8_E4M3" and "weight_scale" in scales and scales <= {"weight_scale", "input_scale"}:
        return FP8, weight.shape
    if scales:
        raise CheckpointError(f"{weight.name}: {weight.dtype} with {', '.join(sorted(scales))} is no known format")
    return weight.dtype.lower(), weight.shape


def _nvfp4_shape(parts: dict[str, Tensor]) -> tuple[int, ...]:
    """Logical shape of a packed matrix, its scales checked against it."""
    weight, scale = parts["weight"], parts["weight_scale"]
    shape = (*weight.shape[:-1], 2 * weight.shape[-1]) if weight.shape else ()
    wanted = (*shape[:-1], shape[-1] // BLOCK_SIZE) if shape else ()
    if len(shape) != 2 or shape[-1] % BLOCK_SIZE or scale.shape != wanted or scale.dtype != "F8_E4M3":
        raise CheckpointError(
            f"{weight.name}: packed {list(weight.shape)} with {scale.dtype} block scales {list(scale.shape)}, wanted "
            f"F8_E4M3 {list(wanted)} (one for {BLOCK_SIZE} elements of a row)"
        )
    for part in ("weight_scale_2", "input_scale"):
        scalar = parts.get(part)
        if scalar is not None and (scalar.dtype != "F32" or prod(scalar.shape) != 1):
            raise CheckpointError(f"{scalar.name}: {scalar.dtype} {list(scalar.shape)}, wanted one F32")
    return shape


def _check_tiles(weight: Tensor, scale: Tensor) -> None:
    wanted = tuple(-(-side // FP8_TILE) for side in weight.shape)
    if scale.shape != wanted:
        raise CheckpointError(
            f"{scale.name}: shape {list(scale.shape)}, wanted {list(wanted)} for {list(weight.shape)}"
        )


def grouped(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Totals by (role, mtp, format), in table order: the `groups` of `inspect --json`."""
    groups: dict[tuple[int, bool, str], dict[str, Any]] = {}
    order = list(Role)
    for entry in entries:
        key = (order.index(entry.role.role), entry.role.mtp, entry.format)
        group = groups.get(key)
        if group is None:
            group = {"role": str(entry.role.role), "mtp": entry.role.mtp, "format": entry.format}
            groups[key] = group | {"tensors": 0, "parameters": 0, "bytes": 0}
            group = groups[key]
        group["tensors"] += 1
        group["parameters"] += entry.parameters
        group["bytes"] += entry.bytes
    return [groups[key] for key in sorted(groups)]
