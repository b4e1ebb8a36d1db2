"""Where every output tensor goes: shard and byte offset, known before a weight is read."""

from dataclasses import dataclass, field

from halfbyte.checkpoint.header import serialize_header
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.formats.modelopt import Algorithm, format_of
from halfbyte.formats.nvfp4.stack import stack_tensors
from halfbyte.quantize.units import Unit


@dataclass(slots=True)
class OutputShard:
    """One file of the output. offsets: absolute byte of every tensor's data. header: the bytes before the data."""

    file: str
    units: list[Unit]
    header: bytes = b""
    offsets: dict[str, int] = field(default_factory=dict)
    bytes: int = 0


def lay_out(units: list[Unit], algorithm: Algorithm, max_shard_bytes: int) -> list[OutputShard]:
    """Fill shards in order; one unit never spans two. Names carry the final count."""
    packed: list[list[Unit]] = [[]]
    filled = 0
    for unit in units:
        size = sum(tensor[3] for tensor in tensors_of(unit, algorithm))
        if packed[-1] and filled + size > max_shard_bytes:
            packed.append([])
            filled = 0
        packed[-1].append(unit)
        filled += size
    names = [f"model-{i + 1:05d}-of-{len(packed):05d}.safetensors" for i in range(len(packed))]
    return [_laid_out(OutputShard(name, group), algorithm) for name, group in zip(names, packed, strict=True)]


def _laid_out(shard: OutputShard, algorithm: Algorithm) -> OutputShard:
    """Give every tensor its offset: wide dtypes first, as safetensors itself does, so that all data is aligned."""
    tensors = [tensor for unit in shard.units for tensor in tensors_of(unit, algorithm)]
    tensors.sort(key=lambda tensor: -DTYPE_BYTES[tensor[1]])
    shard.header = serialize_header(tensors, {"format": "pt"})
    position = len(shard.header)
    for name, _, _, size in tensors:
        shard.offsets[name] = position
        position += size
    shard.bytes = position
    return shard


def tensors_of(unit: Unit, algorithm: Algorithm) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Name, dtype, shape, bytes of all output tensors of a unit."""
    tensors = [(name, tensor.dtype, tensor.shape, tensor.plain_bytes) for name, tensor in unit.kept]
    form = format_of(algorithm)
    for linear in unit.linears:
        described = stack_tensors(form, linear.role.module, linear.source.shape) if linear.role.fused else None
        tensors += described or form.tensors(linear.role.module, linear.source.shape)
    return tensors
