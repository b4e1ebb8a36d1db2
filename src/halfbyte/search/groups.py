"""The groups that a search decides over: of one role in one decoder layer, what engines load in one format.

That is a layer's routed experts together, and elsewhere the linears that are fused: gate and up of a shared expert or a
dense MLP are one group and down is another; of attention, q, k and v are one and o is another.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import UnsupportedError
from halfbyte.formats.catalogue import QUANTIZED
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.storage import StorageFormat
from halfbyte.models import roles_of
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import SHARED_SCALE, Role, TensorRole
from halfbyte.quantize.linears import Linear, split
from halfbyte.recipes.recipe import Chosen, Format, Recipe


@dataclass(frozen=True)
class Group:
    """bytes_before: in the source. bytes_after: in the format. shapes: of its matrices, [N, K] and how many. only: the
    projections that it has of its role in its layer; empty for all."""

    role: Role
    layer: int
    parameters: int
    bytes_before: int
    bytes_after: int
    shapes: tuple[tuple[tuple[int, int], int], ...] = ()
    only: tuple[str, ...] = ()

    def holds(self, role: TensorRole) -> bool:
        mine = not self.only or role.projection in self.only
        return mine and role.role is self.role and role.layer == self.layer and not role.mtp

    @property
    def label(self) -> str:
        return " ".join([str(self.role), str(self.layer), *self.only])

    def bytes_in(self, form: StorageFormat) -> int:
        return sum(count * form.bytes(shape) for shape, count in self.shapes)


def groups_of(source: Checkpoint, form: StorageFormat) -> list[Group]:
    """All groups, by layer. Raises UnsupportedError for a quantized source, or one with nothing to choose."""
    roles = roles_of(source.config)
    entries = inventory(source.tensors, roles)
    for entry in entries:
        if entry.format in QUANTIZED:
            raise UnsupportedError(
                f"{source.folder}: already quantized: {entry.name} is {entry.format}",
                hint="search from the BF16 checkpoint",
            )
    if roles.family.stacked:
        raise UnsupportedError(
            f"{source.folder}: a layer's experts are one stack with one weight_scale_2; search weighs experts one by "
            "one",
            hint="there is a recipe for all routed experts: nvfp4-routed-experts",
        )
    linears, _ = split(entries, roles)
    allowed = _loadable(roles)
    sizes: dict[tuple[int, Role], dict[tuple[str, ...], list[Linear]]] = {}
    for linear in linears:
        role = linear.role
        if role.role not in allowed or role.mtp or role.layer is None:
            continue
        if linear.source.shape[1] % BLOCK_SIZE:
            allowed = allowed - {role.role}
            continue
        sizes.setdefault((role.layer, role.role), {}).setdefault(_fused(role), []).append(linear)
    order = list(Role)
    found = [
        _group(role, layer, together, () if len(units) == 1 else only, form)
        for (layer, role), units in sorted(sizes.items(), key=lambda item: (item[0][0], order.index(item[0][1])))
        for only, together in units.items()
        if role in allowed
    ]
    if not found:
        raise UnsupportedError(f"{source.folder}: has no linears that engines load in four bits")
    return found


def _fused(role: TensorRole) -> tuple[str, ...]:
    """The projections that engines run together with a linear's; none of a routed expert, which is one."""
    if role.role is Role.ROUTED_EXPERT or role.projection is None:
        return ()
    return next((names for names in SHARED_SCALE if role.projection in names), (role.projection,))


def _group(role: Role, layer: int, linears: Sequence[Linear], only: tuple[str, ...], form: StorageFormat) -> Group:
    shapes = Counter((linear.source.shape[0], linear.source.shape[1]) for linear in linears)
    there = {linear.role.projection for linear in linears}
    return Group(
        role,
        layer,
        sum(rows * columns * count for (rows, columns), count in shapes.items()),
        sum(linear.source.bytes for linear in linears),
        sum(form.bytes(shape) * count for shape, count in shapes.items()),
        tuple(shapes.items()),
        tuple(name for name in only if name in there),
    )


def _loadable(roles: RoleMap) -> set[Role]:
    """Roles that a recipe may quantize without `--force`."""
    return {
        role
        for role in (Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP, Role.ATTENTION)
        if not Recipe(version=1, name="probe", roles={role: "nvfp4"}).engine_problems(roles)
    }


def recipe_of(chosen: Sequence[Group], groups: Sequence[Group], name: str, description: str) -> Recipe:
    """The recipe that quantizes exactly `chosen` out of `groups`."""
    roles = [role for role in Role if any(group.role is role for group in chosen)]
    left: dict[tuple[int, ...], dict[Role, Chosen]] = {}
    for role in roles:
        apart: dict[tuple[str, ...], list[int]] = {}
        for layer in dict.fromkeys(group.layer for group in groups if group.role is role):
            mine = [group for group in groups if group.role is role and group.layer == layer]
            packed = [group for group in mine if group in chosen]
            if len(packed) < len(mine):
                apart.setdefault(tuple(name for group in packed for name in group.only), []).append(layer)
        for names, layers in apart.items():
            left.setdefault(tuple(layers), {})[role] = _packed(names)
    overrides = [{"layers": list(layers), "roles": kept} for layers, kept in left.items()]
    return Recipe.model_validate(
        {
            "version": 1,
            "name": name,
            "description": description,
            "roles": dict.fromkeys(roles, "nvfp4"),
            "layers": {"overrides": overrides},
        }
    )


def _packed(projections: Sequence[str]) -> Chosen:
    formats: dict[str, Format] = dict.fromkeys(projections, "nvfp4")
    return formats or "keep"
