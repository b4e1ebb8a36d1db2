"""Whatever a family's own published checkpoints contain is known by its file in models/."""

import pytest

from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.models import promised_tensors, roles_of

from .configs import config
from .published import PUBLISHED, Line, lines

LISTS = {name: list(lines(found.text)) for name, found in PUBLISHED.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_lists_are_whole(name: str) -> None:
    assert sum(line.count for line in LISTS[name]) == PUBLISHED[name].tensors


def tensors_of(line: Line) -> list[Tensor]:
    size = DTYPE_BYTES[line.dtype]
    for side in line.shape:
        size *= side
    return [Tensor(name, "model.safetensors", line.dtype, line.shape, 0, size) for name in line.names(few=True)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_tensor_is_explained(name: str) -> None:
    """Two layers and two experts of each line stand for all: numbers are checked against the config elsewhere."""
    roles = roles_of(config(PUBLISHED[name].config))
    entries = inventory({tensor.name: tensor for line in LISTS[name] for tensor in tensors_of(line)}, roles)
    described: dict[tuple[object, ...], set[tuple[int, ...]]] = {}
    for tensor in promised_tensors(roles.arch):
        described.setdefault((tensor.role, tensor.projection, tensor.mtp), set()).add(tensor.shape)
    for entry in entries:
        key = (entry.role.role, entry.role.projection, entry.role.mtp)
        if len(entry.shape) == 2 and entry.role.projection is not None and entry.role.part == "weight":
            assert entry.shape in described[key], entry.name
    layers = {entry.role.layer for entry in entries}
    assert max(layer for layer in layers if layer is not None) == roles.layers + roles.arch.mtp_layers - 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_promised_tensor_is_published(name: str) -> None:
    published = {line.pattern: line for line in LISTS[name]}
    names = {found for line in published.values() for found in line.names(few=True)}
    roles = roles_of(config(PUBLISHED[name].config))
    arch = roles.arch
    ends = {0, arch.layers + arch.mtp_layers - 1}
    for tensor in promised_tensors(arch):
        if tensor.layer is None or tensor.layer in ends:
            assert roles.wrapping.outer(tensor.name.format(e=0)) in names
