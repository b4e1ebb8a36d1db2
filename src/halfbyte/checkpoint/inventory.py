"""What a checkpoint holds, module by module: role, format, logical parameters, bytes on disk. Headers only.

The tensors of one quantized linear (weight and its scales) form one entry, as the weight they are. Everything else is
an entry of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError, UnknownTensorError
from halfbyte.formats.catalogue import (
    LINEAR_PARTS,
    NUMBER_PARTS,
    SCALE_PARTS,
    STACK_NUMBERS,
    STACK_PARTS,
    STACKS,
    format_called,
    recognised,
    recognised_stack,
)
from halfbyte.formats.storage import BARE_SCALE, SCALE, WEIGHT, StorageFormat
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
        found = STACKS.get(self.format) if self.role.fused else None
        return format_called(self.format) if found is None else found

    @property
    def parameters(self) -> int:
        return prod(self.shape)


def inventory(tensors: Mapping[str, Tensor], roles: RoleMap) -> list[Entry]:
    """Entries in the order of `tensors` (of the weights among them), without buffers (`RoleMap.is_buffer`), which are
    no weights. Raises UnknownTensorError, CheckpointError (scales without weight, shapes)."""
    return list(each_entry(tensors, roles))


OnDamage = Callable[[str, CheckpointError], None]
"""What is told of a name, or of a module whose tensors do not fit together, and why."""


def refuse(_: str, error: CheckpointError) -> None:
    """Raise: what is wrong ends the work."""
    raise error


def each_entry(
    tensors: Mapping[str, Tensor], roles: RoleMap, on_damage: OnDamage = refuse, *, every_name: bool = False
) -> Iterator[Entry]:
    """The entries of `inventory` one by one, for whoever sums them up and keeps none: of a million tensors, roles and
    entries take more memory than all headers.

    on_damage: where it does not raise, the entries of what is sound go on. every_name: ask for the role of every
    tensor, so that each unknown one is told, and not one of its module for all.
    """
    parts = sorted({name[name.rfind(".") + 1 :] for name in tensors} & LINEAR_PARTS, key=_ORDER.__getitem__)
    known: Layouts = {}
    for name, tensor in tensors.items():
        follows = _follows(name, parts, tensors, roles)
        if (follows and not every_name) or roles.is_buffer(name):
            continue
        try:
            role = roles.role(name)
        except UnknownTensorError as error:
            on_damage(name, error)
            continue
        try:
            if not follows and (not role.fused or role.part == _first_of_stack(role, tensors)):
                yield _entry(role, _parts(role, tensor, parts, tensors), known)
        except CheckpointError as error:
            on_damage(role.module, error)


_ORDER = {part: number for number, part in enumerate((*NUMBER_PARTS, *SCALE_PARTS))}
"""The parts of a linear in the order in which one stands for all: the weight's own numbers first."""


def _follows(name: str, parts: list[str], tensors: Mapping[str, Tensor], roles: RoleMap) -> bool:
    """Whether a tensor belongs to the entry of another one: a scale to its weight's."""
    owner, _, part = name.rpartition(".")
    if part not in _ORDER or part == parts[0]:
        return False
    for first in parts:
        if first == part:
            return False
        if f"{owner}.{first}" in tensors:
            return not roles.is_stack(f"{owner}.{first}")
    return False


def _first_of_stack(role: TensorRole, tensors: Mapping[str, Tensor]) -> str:
    """The part that stands for all of a stack: its numbers, where they are there."""
    return next((part for part in STACK_PARTS if role.named(part) in tensors), role.part)


def _parts(role: TensorRole, tensor: Tensor, parts: list[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that is stored of one entry, `tensor` first. Raises CheckpointError for a stack that is there twice."""
    found = {role.part: tensor}
    if role.fused:
        other = f"{role.module}.{WEIGHT}"
        if tensor.name == role.module and other in tensors:
            raise CheckpointError(f"{tensor.name}: is there twice, also as {other}")
        found |= {part: tensors[role.named(part)] for part in STACK_PARTS if role.named(part) in tensors}
    elif role.part in _ORDER and len(parts) > 1:
        for part in parts:
            beside = tensors.get(f"{role.module}.{part}")
            if beside is not None:
                found[part] = beside
    return found


class Alike(NamedTuple):
    """Entries of one layer that differ in the expert's number alone. entries: how many. bytes: of all of them."""

    first: Entry
    entries: int
    bytes: int

    @property
    def parameters(self) -> int:
        return self.entries * self.first.parameters


def alike(tensors: Mapping[str, Tensor], roles: RoleMap) -> list[Alike]:
    """What `inventory` holds, a layer's experts as one: the names of a layer are looked at as a pattern, and explained
    once. In the order of the first of each. Raises as `inventory` does."""
    found = _by_patterns(tensors, roles)
    return summed(each_entry(tensors, roles)) if found is None else found


def summed(entries: Iterable[Entry]) -> list[Alike]:
    """Entries that are alike as one. What is no routed expert stands alone."""
    sums: dict[tuple[object, ...], list[Any]] = {}
    for entry in entries:
        role = entry.role
        expert = role.role is Role.ROUTED_EXPERT
        place = (role.layer, role.projection, role.part, role.fused) if expert else (entry.name,)
        key = (*place, entry.format, entry.shape, *entry.tensors)
        known = sums.get(key)
        if known is None:
            sums[key] = [entry, 1, entry.bytes]
        else:
            known[1] += 1
            known[2] += entry.bytes
    return [Alike(*one) for one in sums.values()]


class _Pattern:
    """The tensors of one layer's experts that differ in the expert's number alone. which: a sum over the numbers."""

    __slots__ = ("count", "first", "which")

    def __init__(self, first: Tensor) -> None:
        self.first, self.count, self.which = first, 0, 0


def _by_patterns(tensors: Mapping[str, Tensor], roles: RoleMap) -> list[Alike] | None:
    """None where a layer's experts are not all stored alike, or some part of some expert is not there."""
    patterns: dict[tuple[str, str], _Pattern] = {}  # by what is before the number and after it
    shown: dict[tuple[str, str], str] = {}  # the linear of all experts -> number of the one that stands for them
    few: dict[str, Tensor] = {}
    explained: set[str] = set()
    for name, tensor in tensors.items():
        head, _, below = name.partition(_EXPERTS)
        number, _, tail = below.partition(".")
        if not (tail and number.isdigit()):
            few[name] = tensor
            continue
        if number not in explained:
            if roles.is_buffer(name):
                continue
            roles.role(name)
            explained.add(number)
        pattern = patterns.get((head, tail))
        if pattern is None:
            roles.role(name)
            pattern = patterns[head, tail] = _Pattern(tensor)
            if shown.setdefault((head, _linear(tail)), number) == number:
                few[name] = tensor
        if tensor.dtype != pattern.first.dtype or tensor.shape != pattern.first.shape:
            return None
        pattern.count += 1
        pattern.which += hash(number)
    sums: dict[str, tuple[int, int, int]] = {}
    for (head, tail), pattern in patterns.items():
        linear = _linear(tail)
        owner, same = f"{head}{_EXPERTS}{shown[head, linear]}.", (pattern.count, pattern.which)
        *before, size = sums.get(owner + linear, (*same, 0))
        if owner + tail not in tensors or tuple(before) != same:
            return None
        few[owner + tail] = tensors[owner + tail]
        sums[owner + linear] = (*same, size + pattern.count * pattern.first.bytes)
    found = []
    for entry in each_entry(few, roles):
        linear = entry.role.module if entry.role.part in _ORDER else entry.name
        count, _, size = sums.get(linear, (1, 0, entry.bytes))
        found.append(Alike(entry, count, size))
    return found


_EXPERTS = ".experts."


def _linear(tail: str) -> str:
    """What an expert's tensor belongs to: the linear, or itself."""
    module, _, part = tail.rpartition(".")
    return module if part in _ORDER else tail


def _entry(role: TensorRole, parts: dict[str, Tensor], known: Layouts) -> Entry:
    first, tensor = next(iter(parts.items()))
    if role.fused:
        if first not in STACK_NUMBERS:
            raise CheckpointError(f"{tensor.name}: a scale without its weight")
    elif first not in NUMBER_PARTS:
        if len(parts) > 1 or SCALE in parts:
            raise CheckpointError(f"{role.module}: has {', '.join(parts)} but no weight")
        if first in SCALE_PARTS and first != BARE_SCALE:
            raise CheckpointError(f"{tensor.name}: a scale without its weight")
        return Entry(role, tensor.dtype.lower(), tensor.shape, tensor.bytes, parts)
    layout = tuple([(part, tensor.dtype, tensor.shape) for part, tensor in parts.items()])
    found = known.get(layout)
    if found is None:
        form, shape = recognised_stack(parts) if role.fused else recognised(parts)
        found = known[layout] = form.name, shape
    return Entry(role, *found, sum([tensor.stop - tensor.start for tensor in parts.values()]), parts)


def grouped(found: Iterable[Alike]) -> list[dict[str, Any]]:
    """Totals by (role, mtp, format), in table order: the `groups` of `inspect --json`."""
    groups: dict[tuple[int, bool, str], dict[str, Any]] = {}
    order = list(Role)
    for entry, count, size in found:
        key = (order.index(entry.role.role), entry.role.mtp, entry.format)
        group = groups.get(key)
        if group is None:
            group = {"role": str(entry.role.role), "mtp": entry.role.mtp, "format": entry.format}
            groups[key] = group | {"tensors": 0, "parameters": 0, "bytes": 0}
            group = groups[key]
        group["tensors"] += count
        group["parameters"] += count * entry.parameters
        group["bytes"] += size
    return [groups[key] for key in sorted(groups)]
