"""Statistics of packed tensors, read once in constant memory: one piece of one tensor per thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.inventory import Entry, inventory
from halfbyte.checkpoint.packed import Stacked
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import HalfbyteError
from halfbyte.formats.catalogue import NVFP4
from halfbyte.formats.dtypes import BF16, F16, F32, F64
from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES
from halfbyte.formats.nvfp4.codec import decode
from halfbyte.formats.nvfp4.compressed import GLOBAL_SCALE, INPUT_GLOBAL_SCALE
from halfbyte.formats.nvfp4.format import SCALE_FIRST, SCALE_LAST
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.nvfp4.reference import Encoded
from halfbyte.formats.nvfp4.stack import straightened
from halfbyte.gate import kernels
from halfbyte.gate.facts import Facts
from halfbyte.gate.measures import TensorStatistics
from halfbyte.process import cores
from halfbyte.quantize.linears import split
from halfbyte.quantize.rows import RowReader

PIECE_BYTES = 1 << 20
NAN_BYTES = (0x7F, 0xFF)
DIVISORS = (GLOBAL_SCALE, INPUT_GLOBAL_SCALE)


def statistics(facts: Facts) -> list[TensorStatistics]:
    """Of every packed linear; read on first use, in constant memory."""
    if facts.measured is None:
        facts.measured = measure(facts)
    return facts.measured


def measure(facts: Facts) -> list[TensorStatistics]:
    """Statistics of every packed linear, in file order. Reads scales, at depth full also codes (and the source)."""
    full = facts.options.depth == "full"
    originals = _originals(facts) if full and facts.source is not None else {}
    parts = ("weight_scale", "weight") if full else ("weight_scale",)
    packed = [entry for entry in facts.each_entry() if entry.format == NVFP4]
    facts.progress.start("numerics", sum(entry.tensors[part].bytes for entry in packed for part in parts))

    def one(entry: Entry) -> TensorStatistics:
        found = _scales(facts, entry)
        if full:
            _codes(facts, found, originals.get(entry.role.module))
        facts.progress.advance(sum(entry.tensors[part].bytes for part in parts))
        return found

    with ThreadPoolExecutor(facts.options.workers or cores()) as pool:
        return list(pool.map(one, packed))


def _originals(facts: Facts) -> dict[str, Tensor | Stacked]:
    """Module -> the source's own weight, a part of a stack where the source is fused, a whole stack where engines load
    stacks. Empty if it is another model."""
    assert facts.source is not None
    assert facts.roles is not None
    try:
        linears, _ = split(inventory(facts.source.tensors, facts.roles), facts.roles)
    except HalfbyteError:
        return {}
    return {linear.role.module: linear.source for linear in linears if isinstance(linear.source, Tensor | Stacked)}


def read(facts: Facts, tensor: Tensor, start: int, size: int) -> npt.NDArray[np.uint8]:
    buffer = np.empty(size, np.uint8)
    facts.files.read_into(tensor, buffer.data, start)
    return buffer


def _second(facts: Facts, tensor: Tensor) -> float:
    """A second scale to multiply by, whichever layout it is of."""
    value = _scalar(facts, tensor)
    if not tensor.name.endswith(DIVISORS):
        return value
    with np.errstate(all="ignore"):
        return float(np.float32(1) / np.float32(value))


def _scalar(facts: Facts, tensor: Tensor) -> float:
    return float(read(facts, tensor, 0, 4).view(np.float32)[0])


def _scales(facts: Facts, entry: Entry) -> TensorStatistics:
    tensor, counts = entry.tensors["weight_scale"], np.zeros(256, np.int64)
    for start in range(0, tensor.bytes, PIECE_BYTES):
        kernels.count_bytes(read(facts, tensor, start, min(PIECE_BYTES, tensor.bytes - start)), counts)
    used = np.flatnonzero(counts[: SCALE_LAST + 1])
    scalar = entry.tensors.get("input_scale")
    return TensorStatistics(
        entry,
        blocks=tensor.bytes,
        nan=int(counts[list(NAN_BYTES)].sum()),
        negative=int(counts[0x81:0xFF].sum()),
        zero=int(counts[0] + counts[0x80]),
        smallest=int(counts[SCALE_FIRST]),
        saturated=int(counts[SCALE_LAST]),
        largest=int(used[-1]) if used.size else 0,
        scale_2=_second(facts, entry.tensors["weight_scale_2"]),
        input_scale=_second(facts, scalar) if scalar is not None else None,
    )


def _codes(facts: Facts, found: TensorStatistics, original: Tensor | Stacked | None) -> None:
    """The codes' part, piece by piece, and the distance to the source."""
    counts, blocks = np.zeros(256, np.int64), np.zeros(2, np.int64)
    comparable = original is not None and original.shape == found.entry.shape and original.dtype in NUMPY_DTYPES
    error = energy = 0.0
    step = max(1, PIECE_BYTES // max(1, 4 * found.entry.shape[-1]))
    for first, packed in _pieces(facts, found):
        kernels.count_codes(packed.codes.reshape(-1), packed.scales.reshape(-1), counts, blocks)
        if comparable and original is not None and facts.source is not None and not found.nan:
            if isinstance(original, Stacked):
                wanted = RowReader(facts.source).matrix(original.matrices[first])
            else:
                wanted = _source_rows(facts.source, original, first, len(packed.codes))
            for start in range(0, len(wanted), step):
                rows = slice(start, start + step)
                numbers = decode(Encoded(packed.codes[rows], packed.scales[rows], packed.scale_2))
                error += float(np.square(numbers - wanted[rows], dtype=np.float64).sum())
                energy += float(np.square(wanted[rows], dtype=np.float64).sum())
    found.codes = counts.reshape(16, 16).sum(axis=0) + counts.reshape(16, 16).sum(axis=1)
    found.zero_blocks, found.lost_blocks = int(blocks[0]), int(blocks[1])
    if energy:
        found.source_error = float(np.sqrt(error / energy))


def _pieces(facts: Facts, found: TensorStatistics) -> Iterator[tuple[int, Encoded]]:
    """Rows of a packed matrix and the number of the first; of a stack matrix by matrix, and the expert's number."""
    weight, scale = found.entry.tensors["weight"], found.entry.tensors["weight_scale"]
    scale_2 = np.float32(found.scale_2)
    if found.entry.role.fused:
        experts, columns, height = found.entry.shape
        for number in range(experts):
            pair = [
                straightened(read(facts, tensor, number * size, size), (-1, height))
                for tensor, size in ((weight, columns * height // 2), (scale, columns * height // BLOCK_SIZE))
            ]
            yield number, Encoded(pair[0], pair[1], scale_2)
        return
    height, columns = found.entry.shape[0], found.entry.shape[-1]
    row_blocks = columns // BLOCK_SIZE
    rows = max(1, PIECE_BYTES // max(1, columns // 2))
    for first in range(0, height, rows):
        count = min(rows, height - first)
        codes = read(facts, weight, first * columns // 2, count * columns // 2)
        scales = read(facts, scale, first * row_blocks, count * row_blocks)
        yield first, Encoded(codes.reshape(count, -1), scales.reshape(count, -1), scale_2)


def _source_rows(source: Checkpoint, tensor: Tensor, first: int, count: int) -> npt.NDArray[np.float32]:
    dtype, columns = NUMPY_DTYPES[tensor.dtype], tensor.shape[-1]
    buffer = np.empty(count * columns * dtype.itemsize, np.uint8)
    source.read_into(tensor, buffer.data, first * columns * dtype.itemsize)
    rows: npt.NDArray[np.float32] = buffer.view(dtype).astype(np.float32).reshape(count, columns)
    return rows


def non_finite(facts: Facts, tensor: Tensor) -> int:
    """How many numbers of an unquantized tensor are NaN or Inf."""
    found = 0
    for start in range(0, tensor.bytes, PIECE_BYTES):
        piece = read(facts, tensor, start, min(PIECE_BYTES, tensor.bytes - start))
        if tensor.dtype == BF16:
            found += int(kernels.count_non_finite(piece.view(np.uint16)))
        elif tensor.dtype in (F16, F32, F64):
            values = piece.view(NUMPY_DTYPES[tensor.dtype])
            found += int(values.size - np.isfinite(values).sum())
    return found


def differs(facts: Facts, tensor: Tensor, original: Tensor) -> bool:
    """Whether a kept tensor's bytes differ from the source's."""
    assert facts.source is not None
    if (tensor.dtype, tensor.shape) != (original.dtype, original.shape):
        return True
    for start in range(0, tensor.bytes, PIECE_BYTES):
        size = min(PIECE_BYTES, tensor.bytes - start)
        theirs = np.empty(size, np.uint8)
        facts.source.read_into(original, theirs.data, start)
        if not np.array_equal(read(facts, tensor, start, size), theirs):
            return True
    return False
