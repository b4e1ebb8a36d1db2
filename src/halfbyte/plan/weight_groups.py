"""The weights of a model as groups of equal tensors: what a plan sums over.

A group comes from the headers of a checkpoint (`groups_of_checkpoint`) or, for a checkpoint that does not exist yet,
from its config (`models.promised_tensors`) with formats by a recipe (`recipes`). Both look the same from here on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from halfbyte.checkpoint.inventory import alike
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """`count` equal tensors of one layer. bytes: of all of them, scales included. layer: None outside the layers.

    projection: standard name of the linear, None for norms and tables. shape: logical, of one tensor.
    """

    role: Role
    mtp: bool
    layer: int | None
    projection: str | None
    shape: tuple[int, ...]
    count: int
    format: str
    bytes: int

    @property
    def inputs(self) -> int:
        """Of a packed matrix, or of the matrices of a packed stack, whose inputs run down."""
        return self.shape[-1] if len(self.shape) == 2 else self.shape[-2]

    @property
    def parameters(self) -> int:
        return self.count * prod(self.shape)


def groups_of_checkpoint(tensors: Mapping[str, Tensor], roles: RoleMap) -> list[WeightGroup]:
    """Groups from headers. Raises UnknownTensorError, CheckpointError as `inventory` does."""
    sums: dict[tuple[Role, bool, int | None, str | None, tuple[int, ...], str], list[int]] = {}
    for entry, count, size in alike(tensors, roles):
        role = entry.role
        key = (role.role, role.mtp, role.layer, role.projection, entry.shape, entry.format)
        total = sums.setdefault(key, [0, 0])
        total[0] += count
        total[1] += size
    return [
        WeightGroup(role, mtp, layer, projection, shape, count, storage, size)
        for (role, mtp, layer, projection, shape, storage), (count, size) in sums.items()
    ]
