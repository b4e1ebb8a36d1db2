"""Units of work: the linears that must be seen together, and the tensors that are only copied."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from halfbyte.checkpoint.inventory import Entry
from halfbyte.checkpoint.packed import Packed, Source, Stacked, kept, packed_form
from halfbyte.formats.nvfp4.layout import packed_bytes
from halfbyte.formats.storage import WEIGHT
from halfbyte.models.roles import GLU, SHARED_SCALE, Role, TensorRole
from halfbyte.quantize.linears import Kept, Linear


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest piece of work: linears that must be seen together (all of an expert), or one kept tensor.

    linears: empty for a kept tensor. kept: (output name, source) of tensors copied byte for byte, all of one weight;
    packed ones are rounded to BF16.
    """

    linears: tuple[Linear, ...]
    kept: tuple[tuple[str, Source], ...]

    @property
    def source_bytes(self) -> int:
        return sum(linear.source.bytes for linear in self.linears) + sum(tensor.bytes for _, tensor in self.kept)

    @property
    def packed_bytes(self) -> int:
        """Of the codes and block scales of its linears."""
        return sum(sum(packed_bytes(linear.source.shape)) for linear in self.linears)

    def sharing(self) -> list[tuple[Linear, ...]]:
        """The linears in groups that share one `weight_scale_2` (and one input)."""
        return sharing(self.linears)


def sharing(linears: Iterable[Linear]) -> list[tuple[Linear, ...]]:
    """Linears that belong together (`unit_key`), in groups that share one `weight_scale_2`."""
    groups: dict[object, list[Linear]] = {}
    for linear in linears:
        names = next((names for names in SHARED_SCALE if linear.role.projection in names), None)
        groups.setdefault(names or linear.role.module, []).append(linear)
    return [tuple(group) for group in groups.values()]


def units_of(linears: list[Linear], kept: list[Kept], entries: list[Entry], as_stored: bool = False) -> list[Unit]:
    """Units in the order in which the source has them, so that it is read front to back.

    as_stored: what is packed and kept stays in its source's format, instead of becoming BF16.
    """
    order = {entry.name: position for position, entry in enumerate(entries)}
    grouped: dict[tuple[object, ...], list[Linear]] = {}
    units: list[tuple[int, Unit]] = []
    for linear in linears:
        if linear.quantize:
            grouped.setdefault(unit_key(linear.role), []).append(linear)
        else:
            units.append((order[linear.source.name], Unit((), tuple(_kept(linear, as_stored)))))
    for members in grouped.values():
        members.sort(key=lambda linear: GLU.index(p) if (p := linear.role.projection) in GLU else 0)
        units.append((min(order[linear.source.name] for linear in members), Unit(tuple(members), ())))
    for _, name, tensor in kept:
        units.append((order[tensor.name], Unit((), ((name, tensor),))))
    return [unit for _, unit in sorted(units, key=lambda item: item[0])]


def _kept(linear: Linear, as_stored: bool) -> Iterator[tuple[str, Source]]:
    source = linear.source
    if as_stored and isinstance(source, Packed | Stacked) and packed_form(source) is not None:
        for part, tensor in source.parts.items():
            yield linear.role.named(part), tensor
    else:
        yield linear.role.named(WEIGHT), kept(source)


def unit_key(role: TensorRole) -> tuple[object, ...]:
    """Linears with equal keys are quantized together."""
    parent = role.module.rpartition(".")[0]
    if role.projection in GLU:
        return (parent,)
    for names in SHARED_SCALE:
        if role.projection in names:
            return (parent, names)
    return (role.module,)


def is_whole_expert(unit: Unit) -> bool:
    """Whether a unit is all of a routed expert that the main model runs (not MTP): what can be rounded on data."""
    return len(unit.linears) > 1 and all(
        linear.role.role is Role.ROUTED_EXPERT and not linear.role.mtp for linear in unit.linears
    )
