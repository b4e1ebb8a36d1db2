"""A stack of all experts, as transformers saves it, cut into what GGUF has: a stack for each projection, inputs across.

| stored | gate and up |
|---|---|
| [E, 2I, H], inputs across | halves of the outputs |
| [E, H, 2I], inputs down | halves of the outputs; gpt-oss: even and odd ones |
| gpt-oss in MXFP4, [E, 2I, H/32, 16] | even and odd rows |
"""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

from halfbyte.checkpoint.inventory import Entry
from halfbyte.errors import CheckpointError
from halfbyte.formats import mxfp4
from halfbyte.formats.catalogue import MXFP4
from halfbyte.formats.storage import SCALE
from halfbyte.models.role_map import RoleMap


class Share(NamedTuple):
    """One projection of all experts. experts: their matrices as stored. outputs: those of a matrix that are its own.
    turned: inputs run down. inputs: of a matrix."""

    projection: str
    experts: list[Entry]
    outputs: range
    inputs: int
    turned: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.experts), len(self.outputs), self.inputs


HALVES = {"gate_up_proj": ("gate_proj", "up_proj"), "up_proj": ("up_proj",), "down_proj": ("down_proj",)}


def shares(entry: Entry, roles: RoleMap, interleaved: bool) -> Iterator[Share]:
    """interleaved: outputs of `gate_up_proj` are gate and up in turn. Raises CheckpointError for another shape."""
    projections, arch = HALVES[entry.role.projection or ""], roles.arch
    turned = roles.is_turned(entry.role, entry.shape)
    down = projections == ("down_proj",)
    outputs, inputs = (arch.expert_hidden, arch.expert_width)[:: 1 if down else -1]
    outputs *= len(projections)
    wanted = (roles.num_experts, *((inputs, outputs) if turned else (outputs, inputs)))
    if entry.shape != wanted:
        raise CheckpointError(f"{entry.name}: shape {list(entry.shape)} is no stack of experts of this model")
    stored = [_expert(entry, number) for number in range(roles.num_experts)]
    for number, projection in enumerate(projections):
        if interleaved:
            own = range(number, outputs, len(projections))
        else:
            own = range(number * outputs // len(projections), (number + 1) * outputs // len(projections))
        yield Share(projection, stored, own, inputs, turned)


def _expert(entry: Entry, number: int) -> Entry:
    """The matrix of one expert, as it is stored; scales of all experts stay."""
    cut = (mxfp4.BLOCKS, mxfp4.SCALES) if entry.format == MXFP4 else (next(iter(entry.tensors)), SCALE)
    tensors = {}
    for part, tensor in entry.tensors.items():
        shape = tensor.shape[1:]
        tensors[part] = tensor.part(number * prod(shape), shape) if part in cut else tensor
    return entry._replace(shape=entry.shape[1:], tensors=tensors)
