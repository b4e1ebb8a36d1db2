"""A copy of a checkpoint in which some matrices hold what a format would leave of them, decoded to float32.

It runs wherever the source runs, whatever the format, so the damage of any group can be measured. Shards that hold
none of the matrices are links to the source's. Memory: the matrices of one shard, in float32.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.header import serialize_header
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.packed import Source
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.checkpoint.writer import ShardWriter
from halfbyte.formats.dtypes import DTYPE_BYTES, F32, FLOATS
from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES
from halfbyte.formats.storage import StorageFormat
from halfbyte.models import roles_of
from halfbyte.models.roles import TensorRole
from halfbyte.quantize.linears import Linear, split
from halfbyte.quantize.units import sharing, unit_key

Decoded = npt.NDArray[np.float32]


def rounded_copy(source: Checkpoint, folder: Path, chosen: Callable[[TensorRole], bool], form: StorageFormat) -> None:
    """Write the copy into new `folder`. chosen: asked for every matrix of the model. Raises HalfbyteError."""
    folder.mkdir(parents=True)
    roles = roles_of(source.config)
    linears, _ = split(inventory(source.tensors, roles), roles)
    picked = [linear for linear in linears if chosen(linear.role)]
    decoded = _decoded(source, picked, form)
    changed = {source.tensors[name].shard for name in decoded}
    for path in source.folder.iterdir():
        if path.is_file() and path.name not in changed:
            os.symlink(path.resolve(), folder / path.name)
    for shard in changed:
        tensors = [tensor for tensor in source.tensors.values() if tensor.shard == shard]
        _write_shard(source, tensors, decoded, folder / shard)


def _decoded(source: Checkpoint, picked: list[Linear], form: StorageFormat) -> dict[str, Decoded]:
    """Source tensor -> all its values in float32, the picked matrices in it rounded."""
    units: dict[tuple[object, ...], list[Linear]] = {}
    for linear in picked:
        units.setdefault(unit_key(linear.role), []).append(linear)
    whole: dict[str, Decoded] = {}
    for members in units.values():
        for together in sharing(members):
            values = form.rounded([_read(source, linear.source) for linear in together])
            for linear, rounded in zip(together, values, strict=True):
                assert isinstance(linear.source, Tensor)
                tensor = source.tensors[linear.source.name]
                if tensor.name not in whole:
                    whole[tensor.name] = _read(source, tensor).astype(np.float32)
                first = (linear.source.start - tensor.start) // DTYPE_BYTES[tensor.dtype]
                whole[tensor.name].reshape(-1)[first : first + rounded.size] = rounded.reshape(-1)
    return whole


def _read(source: Checkpoint, tensor: Source) -> np.ndarray:
    assert isinstance(tensor, Tensor)
    assert tensor.dtype in FLOATS, f"{tensor.name}: {tensor.dtype} was to be refused before"
    buffer = bytearray(tensor.bytes)
    source.read_into(tensor, memoryview(buffer))
    return np.frombuffer(buffer, NUMPY_DTYPES[tensor.dtype]).reshape(tensor.shape)


def _write_shard(source: Checkpoint, tensors: list[Tensor], decoded: dict[str, Decoded], path: Path) -> None:
    entries = [
        (tensor.name, F32, tensor.shape, decoded[tensor.name].nbytes)
        if tensor.name in decoded
        else (tensor.name, tensor.dtype, tensor.shape, tensor.bytes)
        for tensor in tensors
    ]
    entries.sort(key=lambda entry: -DTYPE_BYTES[entry[1]])  # wide dtypes first: all data is aligned
    header = serialize_header(entries, {"format": "pt"})
    writer = ShardWriter(path, header, len(header) + sum(entry[3] for entry in entries))
    try:
        offset = len(header)
        for name, _, _, size in entries:
            if name in decoded:
                data = decoded[name].tobytes()
            else:
                buffer = bytearray(size)
                source.read_into(source.tensors[name], memoryview(buffer))
                data = bytes(buffer)
            writer.write(memoryview(data), offset)
            offset += size
    except BaseException:
        writer.abandon()
        raise
    writer.finish()
