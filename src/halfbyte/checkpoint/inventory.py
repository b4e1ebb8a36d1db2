"""What a checkpoint holds, module by module: role, format, logical parameters, bytes on disk. Headers only.

The tensors of one quantized linear (weight and its scales) form one entry, as the weight they are. Everything else is
an entry of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError
from halfbyte.formats.catalogue import LINEAR_PARTS, NUMBER_PARTS, SCALE_PARTS, format_called, recognised
from halfbyte.formats.storage import SCALE, WEIGHT, StorageFormat
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role, TensorRole

Layouts = dict[tuple[tuple[str, str, tuple[int, ...]], ...], tuple[str, tuple[int, ...]]]
"""(part, dtype, shape) of a module's tensors -> format and logical shape: a few serve many thousand modules."""


class Entry(NamedTuple):
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
    def form(self) -> StorageFormat:
        """What the format's name stands for."""
        return format_called(self.format)

    @property
    def parameters(self) -> int:
        return prod(self.shape)


def inventory(tensors: Iterable[Tensor], roles: RoleMap) -> list[Entry]:
    """Entries in the order of `tensors`, without buffers (`RoleMap.is_buffer`), which are no weights.

    Raises UnknownTensorError, CheckpointError (scales without weight, shapes).
    """
    modules: dict[str, tuple[TensorRole, dict[str, Tensor]]] = {}
    for tensor in tensors:
        owner, _, part = tensor.name.rpartition(".")
        module = modules.get(owner)
        if module is None or module[0].fused or part not in LINEAR_PARTS:
            if roles.is_buffer(tensor.name):
                continue
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


def each_entry(tensors: Mapping[str, Tensor], roles: RoleMap) -> Iterator[Entry]:
    """The entries of `inventory` one by one, for whoever sums them up and keeps none: of a million tensors, roles and
    entries take more memory than all headers. Weights that stand alone first. Raises as `inventory` does."""
    scaled = {owner for owner, _, part in (name.rpartition(".") for name in tensors) if part in _BESIDE_WEIGHT}
    gathered = []
    known: Layouts = {}
    for name, tensor in tensors.items():
        owner, _, part = name.rpartition(".")
        if part == WEIGHT and owner not in scaled:
            role = roles.role(name)
            if role.module == owner and role.part == WEIGHT and not role.fused:
                yield _entry(role, {WEIGHT: tensor}, known)
                continue
        gathered.append(tensor)
    yield from inventory(gathered, roles)


_BESIDE_WEIGHT = LINEAR_PARTS - {WEIGHT}


def _entry(role: TensorRole, parts: dict[str, Tensor], known: Layouts) -> Entry:
    numbers = _numbers(parts)
    if numbers is None:
        if len(parts) > 1 or SCALE in parts:
            raise CheckpointError(f"{role.module}: has {', '.join(parts)} but no weight")
        tensor = next(iter(parts.values()))
        if role.part in SCALE_PARTS:
            raise CheckpointError(f"{tensor.name}: a scale without its weight")
        return Entry(role, tensor.dtype.lower(), tensor.shape, tensor.bytes, parts)
    weight = parts[numbers]
    if weight.name != f"{role.module}.{numbers}" and not role.fused:
        raise CheckpointError(f"{weight.name}: is not the weight of {role.module}")
    if next(iter(parts)) != numbers:
        parts = {numbers: weight, **parts}
    layout = tuple([(part, tensor.dtype, tensor.shape) for part, tensor in parts.items()])
    found = known.get(layout)
    if found is None:
        form, shape = recognised(parts)
        found = known[layout] = form.name, shape
    return Entry(role, *found, sum([tensor.stop - tensor.start for tensor in parts.values()]), parts)


def _numbers(parts: dict[str, Tensor]) -> str | None:
    """The part that holds the weight's own numbers, None where there is none."""
    for part in NUMBER_PARTS:
        if part in parts:
            return part
    return None


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
