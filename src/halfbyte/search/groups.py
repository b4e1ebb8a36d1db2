"""The groups that a search decides over: one role in one decoder layer, of the roles that engines load quantized.

Engines read one precision per layer's routed experts and fuse pairs of linears, so nothing smaller can be chosen.
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
from halfbyte.models.roles import Role, TensorRole
from halfbyte.quantize.linears import split
from halfbyte.recipes.recipe import Recipe


@dataclass(frozen=True)
class Group:
    """bytes_before: in the source. bytes_after: in the format. shapes: of its matrices, [N, K] and how many."""

    role: Role
    layer: int
    parameters: int
    bytes_before: int
    bytes_after: int
    shapes: tuple[tuple[tuple[int, int], int], ...] = ()

    def holds(self, role: TensorRole) -> bool:
        return role.role is self.role and role.layer == self.layer and not role.mtp

    @property
    def label(self) -> str:
        return f"{self.role} {self.layer}"

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
    sizes: dict[tuple[int, Role], tuple[Counter[tuple[int, int]], list[int]]] = {}
    for linear in linears:
        role, shape = linear.role, linear.source.shape
        if role.role not in allowed or role.mtp or role.layer is None:
            continue
        if shape[1] % BLOCK_SIZE:
            allowed = allowed - {role.role}
            continue
        shapes, total = sizes.setdefault((role.layer, role.role), (Counter(), [0, 0, 0]))
        shapes[shape[0], shape[1]] += 1
        total[0] += shape[0] * shape[1]
        total[1] += linear.source.bytes
        total[2] += form.bytes((shape[0], shape[1]))
    order = list(Role)
    found = [
        Group(role, layer, total[0], total[1], total[2], tuple(shapes.items()))
        for (layer, role), (shapes, total) in sorted(
            sizes.items(), key=lambda item: (item[0][0], order.index(item[0][1]))
        )
        if role in allowed
    ]
    if not found:
        raise UnsupportedError(f"{source.folder}: has no linears that engines load in four bits")
    return found


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
    left: dict[tuple[int, ...], list[Role]] = {}
    for role in roles:
        layers = tuple(group.layer for group in groups if group.role is role and group not in chosen)
        if layers:
            left.setdefault(layers, []).append(role)
    overrides = [{"layers": list(layers), "roles": dict.fromkeys(kept, "keep")} for layers, kept in left.items()]
    return Recipe.model_validate(
        {
            "version": 1,
            "name": name,
            "description": description,
            "roles": dict.fromkeys(roles, "nvfp4"),
            "layers": {"overrides": overrides},
        }
    )
