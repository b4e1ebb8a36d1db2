"""Whatever a family's own published checkpoints contain is known by its file in models/."""

from collections.abc import Iterator
from math import prod

import pytest

from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.models import promised_tensors, roles_of

from .published import PUBLISHED, Line, lines

LISTS = {name: list(lines(found.text)) for name, found in PUBLISHED.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_lists_are_whole(name: str) -> None:
    assert sum(line.count for line in LISTS[name]) == PUBLISHED[name].tensors
    numbers = sum(line.count * prod(line.shape) for line in LISTS[name])
    assert numbers == PUBLISHED[name].numbers or not PUBLISHED[name].numbers


def tensors_of(line: Line) -> list[Tensor]:
    size = DTYPE_BYTES[line.dtype]
    for side in line.shape:
        size *= side
    return [Tensor(name, "model.safetensors", line.dtype, line.shape, 0, size) for name in line.names(few=True)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_tensor_is_explained(name: str) -> None:
    """Two layers and two experts of each line stand for all: numbers are checked against the config elsewhere."""
    roles = roles_of(PUBLISHED[name].described)
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
    roles = roles_of(PUBLISHED[name].described)
    arch = roles.arch
    ends = {0, arch.layers + arch.mtp_layers - 1}
    for tensor in promised_tensors(arch):
        if tensor.layer is None or tensor.layer in ends:
            wanted = roles.wrapping.outer(tensor.name.format(e=0))
            assert any(name in names for name in stored_as(wanted)), wanted


def stored_as(name: str) -> Iterator[str]:
    """A tensor's name, as packed integers, and in a stack of experts."""
    yield from (name, f"{name}_packed", f"{name}_blocks")
    path, found, last = name.partition(".experts.0.")
    if found:
        yield f"{path}.experts.{'down_proj' if last == 'down_proj.weight' else 'gate_up_proj'}"
