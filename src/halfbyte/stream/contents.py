"""What a checkpoint holds, in the order in which a pass needs it: layer by layer, the experts last.

Formats and roles come from `checkpoint.inventory`; stacks over all experts are cut into experts here. MTP layers are
left out: no engine runs them in a plain forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from halfbyte.checkpoint.inventory import Entry, inventory
from halfbyte.checkpoint.packed import check_stack, expert_of
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError
from halfbyte.formats.plain import PLAIN
from halfbyte.formats.turned import Turned
from halfbyte.models import find, is_wrapped, roles_of
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import CACHE_SCALES, Role


@dataclass
class Layer:
    """One decoder layer. plain: everything but the routed experts. experts[e]: its matrices, gate before up and down.

    The matrices of an expert are gate_proj, up_proj and down_proj, or gate_up_proj and down_proj out of a stack; those
    of one without a gate are up_proj and down_proj.
    """

    plain: list[Entry] = field(default_factory=list)
    experts: list[list[Entry]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.plain) + sum(entry.bytes for e in self.experts for entry in e)


@dataclass(frozen=True)
class Contents:
    """A checkpoint opened for a pass. outside: embedding, final norm and head by role. mixer: what makes one residual
    stream of several before that norm."""

    checkpoint: Checkpoint
    roles: RoleMap
    outside: dict[Role, Entry]
    mixer: list[Entry]
    layers: list[Layer]

    @classmethod
    def of(cls, checkpoint: Checkpoint, model_config: Any) -> "Contents":
        """Checked by headers. model_config: transformers' config object.

        Raises CheckpointError for missing layers and experts, UnknownTensorError, UnsupportedError (family).
        """
        roles = roles_of(_with_expert_count(checkpoint.config, model_config))
        outside, mixer = dict[Role, Entry](), list[Entry]()
        layers = [Layer() for _ in range(roles.layers)]
        routed: list[dict[tuple[int, str], Entry]] = [{} for _ in range(roles.layers)]
        for entry in inventory(checkpoint.tensors, roles):
            role = entry.role
            if role.mtp or role.part in CACHE_SCALES or role.role is Role.TOWER:
                continue
            if role.layer is None and role.role is Role.HYPER_CONNECTION:
                mixer.append(entry)
            elif role.layer is None:
                outside[role.role] = entry
            elif role.role is Role.ROUTED_EXPERT and role.projection is not None:
                for expert, projection, matrix in _matrices(entry, roles):
                    routed[role.layer][expert, projection] = matrix
            else:
                layers[role.layer].plain.append(entry)
        for number, layer in enumerate(layers):
            if not layer.plain:
                raise CheckpointError(f"{roles.layer_path(number)} is missing", hint="complete the download")
            if roles.is_moe(number):
                layer.experts = [_expert(routed[number], number, e, roles) for e in range(roles.num_experts)]
        return cls(checkpoint, roles, outside, mixer, layers)

    def parcels(self, first_layer: int, plain_bytes: int) -> "list[list[Entry]]":
        """All entries from a layer on, in reading order: a layer's plain ones by `plain_bytes`, then single experts."""
        result: list[list[Entry]] = []
        for layer in self.layers[first_layer:]:
            result += plain_parcels(layer.plain, plain_bytes)
            result += layer.experts
        return result


def plain_parcels(entries: Sequence[Entry], limit_bytes: int) -> list[list[Entry]]:
    """Consecutive entries together while they are small."""
    parcels: list[list[Entry]] = []
    size = limit_bytes
    for entry in entries:
        if size + entry.bytes > limit_bytes:
            parcels.append([])
            size = 0
        parcels[-1].append(entry)
        size += entry.bytes
    return parcels


def _with_expert_count(config: dict[str, Any], model_config: Any) -> dict[str, Any]:
    """config.json; what transformers itself has saved lacks keys that it renames (`num_experts` of qwen3_moe)."""
    family = find(config.get("model_type"))
    if family is None or config.get(family.experts_key) is not None or is_wrapped(config):
        return config
    return config | {family.experts_key: getattr(model_config, family.experts_key, None)}


def _matrices(entry: Entry, roles: RoleMap) -> list[tuple[int, str, Entry]]:
    """Expert number, projection and matrix: one, or one for each expert of a stack [E, N, K]."""
    role = entry.role
    assert role.projection is not None
    if not role.fused:
        assert role.expert is not None
        return [(role.expert, role.projection, entry)]
    if roles.family.stacked:
        check_stack(entry, roles)
        return [(number, role.projection, _of_stack(entry, number)) for number in range(roles.num_experts)]
    stack = entry.tensors["weight"]
    if len(stack.shape) != 3 or stack.shape[0] != roles.num_experts:
        raise CheckpointError(f"{stack.name}: shape {list(stack.shape)}, wanted [{roles.num_experts}, rows, columns]")
    rows, columns = stack.shape[1:]
    turned = roles.is_turned(role, stack.shape)
    form, shape = (Turned(PLAIN[entry.format]).name, (columns, rows)) if turned else (entry.format, (rows, columns))
    result = []
    for expert in range(roles.num_experts):
        part = stack.part(expert * rows * columns, (rows, columns))
        matrix = Entry(role._replace(expert=expert, fused=False), form, shape, part.bytes, {"weight": part})
        result.append((expert, role.projection, matrix))
    return result


def _of_stack(entry: Entry, number: int) -> Entry:
    matrix = expert_of(entry, number)
    role = entry.role._replace(expert=number, fused=False)
    return Entry(role, matrix.form.name, matrix.shape, matrix.bytes, matrix.parts)


def _expert(found: dict[tuple[int, str], Entry], layer: int, expert: int, roles: RoleMap) -> list[Entry]:
    """The matrices of one expert in the order of use. Raises CheckpointError if one is missing."""
    if (expert, "gate_up_proj") in found and (expert, "down_proj") in found:
        return [found[expert, "gate_up_proj"], found[expert, "down_proj"]]
    for projection in roles.expert_projections:
        if (expert, projection) not in found:
            stack = f"{roles.experts_path(layer)}.{projection}" if roles.family.stacked else None
            name = stack or f"{roles.expert_module(layer, expert, projection)}.weight"
            raise CheckpointError(f"{name} is missing", hint="complete the download")
    return [found[expert, projection] for projection in roles.expert_projections]
