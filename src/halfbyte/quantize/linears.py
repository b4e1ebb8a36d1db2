"""The weight matrices of a source as linears under their output names, stacks of experts cut apart; their checks."""

from dataclasses import dataclass
from math import prod

from halfbyte.checkpoint.inventory import Entry
from halfbyte.checkpoint.packed import Packed, Source, Stacked, check_stack
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.dtypes import FLOATS
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.plain import PLAIN
from halfbyte.formats.storage import WEIGHT
from halfbyte.formats.turned import Turned
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import TensorRole

Kept = tuple[TensorRole, str, Tensor]
"""A tensor that is no matrix: role, output name, source."""


@dataclass(frozen=True, slots=True)
class Linear:
    """One weight matrix on its way: what it is, where it lies in the source (maybe part of a stack), what it becomes;
    or a whole stack, where that is what engines load.

    role.module is the path in the output.
    """

    role: TensorRole
    source: Source
    quantize: bool


def split(entries: list[Entry], roles: RoleMap) -> tuple[list[Linear], list[Kept]]:
    """All weight matrices as linears (stacks cut into experts), everything else as kept tensors, under output names."""
    linears: list[Linear] = []
    kept: list[Kept] = []
    for entry in entries:
        if entry.role.fused and roles.family.stacked:
            linears.append(_stack(entry, roles))
        elif entry.role.fused:
            linears += _unstacked(entry, roles)
        elif len(entry.shape) == 2 and (entry.role.part == WEIGHT or entry.form.quantized):
            role = entry.role._replace(module=roles.published(entry.role.module), part=WEIGHT)
            linears.append(Linear(role, Packed.of(entry) if entry.form.quantized else entry.tensors[WEIGHT], False))
        else:
            tensor = next(iter(entry.tensors.values()))
            kept.append((entry.role, roles.published(tensor.name), tensor))
    return linears, kept


def _stack(entry: Entry, roles: RoleMap) -> Linear:
    """A 3-D stack as it is: gate_up_proj [E, H, 2I], or down_proj [E, I, H]."""
    check_stack(entry, roles)
    return Linear(entry.role._replace(part=WEIGHT), Stacked.of(entry), False)


def _unstacked(entry: Entry, roles: RoleMap) -> list[Linear]:
    """The expert matrices of a 3-D stack: gate_up_proj [E, 2I, H] (gate rows first), up_proj [E, I, H] without a gate,
    or down_proj [E, H, I]; the other way round where the family has such."""
    tensor = entry.tensors["weight"]
    stack = entry.role.projection
    assert stack is not None
    parts = ("gate_proj", "up_proj") if stack == "gate_up_proj" else (stack,)
    halves = len(parts)
    turned = roles.is_turned(entry.role, tensor.shape)
    if len(tensor.shape) != 3 or tensor.shape[0] != roles.num_experts or tensor.shape[2 if turned else 1] % halves:
        raise CheckpointError(
            f"{tensor.name}: shape {list(tensor.shape)}, wanted [{roles.num_experts}, "
            + {"gate_up_proj": "2 * width, hidden]", "up_proj": "width, hidden]"}.get(stack, "hidden, width]")
        )
    sides = tensor.shape[1:][::-1] if turned else tensor.shape[1:]
    rows, columns = sides[0] // halves, sides[1]
    layer = entry.role.layer
    assert layer is not None
    linears = []
    for expert in range(roles.num_experts):
        for half, projection in enumerate(parts):
            module = roles.expert_module(layer, expert, projection)
            role = entry.role._replace(module=module, expert=expert, projection=projection, fused=False)
            if turned:
                whole = tensor.part(expert * halves * rows * columns, tensor.shape[1:])
                source: Source = Packed(Turned(PLAIN[entry.format], half, halves), (rows, columns), {WEIGHT: whole})
            else:
                source = tensor.part((expert * halves + half) * rows * columns, (rows, columns))
            linears.append(Linear(role, source, False))
    return linears


def check_complete(linears: list[Linear], roles: RoleMap) -> None:
    """Every decoder layer present; every expert of a layer with all its projections, and of one shape."""
    layers: set[int] = set()
    experts: dict[tuple[int, str], dict[int, Linear]] = {}
    stacks: set[tuple[int | None, str | None]] = set()
    for linear in linears:
        role = linear.role
        if role.layer is not None:
            layers.add(role.layer)
        if role.fused:
            stacks.add((role.layer, role.projection))
        if role.expert is not None and role.layer is not None and role.projection is not None:
            found = experts.setdefault((role.layer, role.projection), {})
            if role.expert in found:
                raise CheckpointError(
                    f"{role.module} is given twice: {found[role.expert].source.name} and {linear.source.name}"
                )
            found[role.expert] = linear
    for layer in range(roles.layers + roles.mtp_layers):
        if layer not in layers:
            if layer < roles.layers:
                raise CheckpointError(f"{roles.layer_path(layer)} is missing", hint="complete the download")
            continue
        for projection in roles.expert_projections if roles.is_moe(layer) else ():
            if roles.family.stacked:
                if (layer, projection) not in stacks:
                    stack = f"{roles.experts_path(layer)}.{projection}"
                    raise CheckpointError(f"{stack} is missing", hint="complete the download")
                continue
            found = experts.get((layer, projection), {})
            for expert in range(roles.num_experts):
                if expert not in found:
                    module = roles.expert_module(layer, expert, projection)
                    raise CheckpointError(f"{module}.weight is missing", hint="complete the download")
                if found[expert].source.shape != found[0].source.shape:
                    raise CheckpointError(
                        f"{found[expert].source.name}: shape {list(found[expert].source.shape)}, the layer's other "
                        f"experts have {list(found[0].source.shape)}"
                    )


def check_quantizable(linear: Linear) -> None:
    shape, dtype = linear.source.shape, linear.source.dtype
    if dtype not in FLOATS:
        raise UnsupportedError(f"{linear.source.name}: {dtype} cannot be quantized", hint=f"wanted {', '.join(FLOATS)}")
    if shape[1] % BLOCK_SIZE or not prod(shape):
        raise UnsupportedError(
            f"{linear.source.name}: shape {list(shape)} cannot be NVFP4: rows must be a multiple of {BLOCK_SIZE} long",
            hint="keep this role or layer by the recipe",
        )
