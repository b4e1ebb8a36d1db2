"""One unit of work, from source bytes to output bytes, in constant memory.

A matrix is read in pieces that fit the processor's cache, twice: once for its amax, once to encode (the second read
comes from the page cache). So a worker holds a few megabytes whatever the tensor's size, and needs no copy.
"""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.packed import Matrix, Packed, Source, Stacked, matrices_of
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import ShardWriter
from halfbyte.formats import mxfp4
from halfbyte.formats.nvfp4 import kernels
from halfbyte.formats.nvfp4.codec import Encoder, Measure, Rounding, amax
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.nvfp4.reference import Encoded, scale_2_of
from halfbyte.formats.nvfp4.stack import straightened
from halfbyte.formats.nvfp4.stored import INPUT_SCALE, SCALE_2
from halfbyte.formats.storage import SCALE, WEIGHT
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.linears import Linear
from halfbyte.quantize.rounding.store import RoundedExperts
from halfbyte.quantize.rows import EncodeBuffer, RowReader
from halfbyte.quantize.translated import all_mxfp4, is_mxfp4, largest_exponent, second_scale, translate
from halfbyte.quantize.units import Unit, is_whole_expert


class Worker:
    """Does units, one after the other, with buffers of its own. check_stop raises Stopped when the run is over."""

    def __init__(
        self,
        source: Checkpoint,
        rounding: Rounding,
        input_scales: InputScales | None,
        advance: Callable[[int], None],
        check_stop: Callable[[], None],
        rounded: RoundedExperts | None = None,
    ) -> None:
        """rounded: experts whose codes are there already; they are written as they are."""
        self._reader, self._source = RowReader(source, check_stop), source
        self._rounding, self._input_scales, self._advance = rounding, input_scales, advance
        self._rounded = rounded
        self._output = EncodeBuffer()

    def run(self, unit: Unit, shard: OutputShard, out: ShardWriter) -> dict[str, tuple[float, Measure]]:
        """Do one unit. Returns, for each linear's module, its amax (shared by gate and up) and what encoding cost."""
        for name, tensor in unit.kept:
            self._copy(tensor, shard.offsets[name], out)
            self._reader.release(tensor)
        results: dict[str, tuple[float, Measure]] = {}
        given = self._given(unit)
        for group in unit.sharing():
            results |= self._group(group, given, shard, out)
            for linear in group:
                self._reader.release(linear.source)
        return results

    def _group(
        self, group: tuple[Linear, ...], given: dict[str, Encoded], shard: OutputShard, out: ShardWriter
    ) -> dict[str, tuple[float, Measure]]:
        """Linears of one scale. Returns what `run` does."""
        results: dict[str, tuple[float, Measure]] = {}
        largest = np.float32(max(self._amax(linear.source) for linear in group))
        rounding = "max" if given else self._rounding
        if not given and all_mxfp4(group):
            scale_2 = second_scale(self._exponent(linear.source) for linear in group)
            encoder = Encoder(scale_2, rounding)
            for linear in group:
                self._scalars(linear, group, scale_2, shard, out)
                results[linear.role.module] = float(largest), self._write(linear, encoder, True, shard, out)
            return results
        encoder = Encoder(scale_2_of(largest, rounding), rounding)
        for linear in group:
            if given:
                matrix = given[linear.role.module]
                self._scalars(linear, group, matrix.scale_2, shard, out)
                results[linear.role.module] = float(largest), self._store(linear, matrix, encoder, shard, out)
                continue
            self._scalars(linear, group, encoder.scale_2, shard, out)
            results[linear.role.module] = float(largest), self._write(linear, encoder, False, shard, out)
        return results

    def _given(self, unit: Unit) -> dict[str, Encoded]:
        """The codes of an expert that is rounded already, by module; empty for other units."""
        if self._rounded is None or not is_whole_expert(unit):
            return {}
        *first, down = (linear.role for linear in unit.linears)
        if down.layer not in self._rounded.layers:
            return {}
        assert down.expert is not None
        both, last, _ = self._rounded.needed(down.layer, down.expert)
        rows = len(both.codes) // len(first)
        found = {down.module: last}
        for number, role in enumerate(first):
            own = slice(number * rows, (number + 1) * rows)
            found[role.module] = Encoded(both.codes[own], both.scales[own], both.scale_2)
        return found

    def _copy(self, tensor: Source, offset: int, out: ShardWriter) -> None:
        for start, chunk in self._reader.chunks(tensor):
            out.write(chunk, offset + start)
            self._advance(len(chunk) * tensor.bytes // tensor.plain_bytes)

    def _amax(self, source: Source) -> np.float32:
        largest = np.float32(0)
        for matrix in matrices_of(source):
            for first_row, rows in self._reader.rows(matrix):
                largest = max(largest, amax(rows, matrix.name, first_row))
        return largest

    def _write(
        self, linear: Linear, encoder: Encoder, translated: bool, shard: OutputShard, out: ShardWriter
    ) -> Measure:
        """Encode a matrix, or a stack. translated: an MXFP4 one keeps its own codes; the measure's clamped blocks are
        those that could not."""
        source, measure = linear.source, Measure()
        codes_at, scales_at = (shard.offsets[linear.role.named(part)] for part in (WEIGHT, SCALE))
        for number, matrix in enumerate(matrices_of(source)):
            columns, whole = matrix.shape[1], list[Encoded]()
            pieces = self._translate(matrix, encoder) if translated else self._encode(matrix, encoder)
            for first_row, piece, sums in pieces:
                measure.add(sums)
                if isinstance(source, Stacked):
                    whole.append(Encoded(piece.codes.copy(), piece.scales.copy(), encoder.scale_2))
                else:
                    out.write(piece.codes.reshape(-1).data, codes_at + first_row * columns // 2)
                    out.write(piece.scales.reshape(-1).data, scales_at + first_row * columns // BLOCK_SIZE)
                self._advance(len(piece.codes) * matrix.bytes // matrix.shape[0])
            if whole:
                codes, scales = (np.concatenate(parts) for parts in zip(*(piece[:2] for piece in whole), strict=True))
                out.write(straightened(codes, codes.shape).reshape(-1).data, codes_at + number * codes.size)
                out.write(straightened(scales, scales.shape).reshape(-1).data, scales_at + number * scales.size)
        return measure

    def _encode(self, matrix: Matrix, encoder: Encoder) -> Iterator[tuple[int, Encoded, kernels.Sums | Measure]]:
        """First row, codes [n, K/2] and scales [n, K/16], and what they cost; valid until the next."""
        for first_row, rows in self._reader.rows(matrix):
            codes, scales = (view.reshape(len(rows), -1) for view in self._output.views(rows.size))
            sums = encoder.encode_into(rows, codes, scales)
            yield first_row, Encoded(codes, scales, encoder.scale_2), sums

    def _exponent(self, source: Source) -> int | None:
        """The largest of the scales of MXFP4 matrices, as a power of two; None for zeros."""
        found = []
        for matrix in matrices_of(source):
            assert is_mxfp4(matrix)
            found += [largest_exponent(*_codes_and_scales(raw, matrix)) for _, raw in self._reader.raw_rows(matrix)]
        return max((exponent for exponent in found if exponent is not None), default=None)

    def _translate(self, matrix: Matrix, encoder: Encoder) -> Iterator[tuple[int, Encoded, kernels.Sums | Measure]]:
        """As `_encode`, of an MXFP4 matrix with its own codes where the format has its scales."""
        assert is_mxfp4(matrix)
        for (first_row, rows), (_, raw) in zip(
            self._reader.rows(matrix), RowReader(self._source).raw_rows(matrix), strict=True
        ):
            codes, scales = (view.reshape(len(rows), -1) for view in self._output.views(rows.size))
            sums = encoder.encode_into(rows, codes, scales)
            found = translate(*_codes_and_scales(raw, matrix), encoder.scale_2, codes, scales)
            decoded = np.empty(rows.size, np.float32)
            kernels.decode(codes.reshape(-1), scales.reshape(-1), encoder.scale_2, decoded)
            error = rows.reshape(-1).astype(np.float64) - decoded
            lost, zero = 2 * int((~found.exact).sum()), 2 * int(found.zero.sum())
            cost = Measure(float(error @ error), sums.max_error, sums.energy, lost, zero)
            yield first_row, Encoded(codes, scales, encoder.scale_2), cost

    def _store(self, linear: Linear, given: Encoded, encoder: Encoder, shard: OutputShard, out: ShardWriter) -> Measure:
        """Write codes and scales that are given. encoder: the max rule, whose error is measured beside theirs."""
        tensor, module = linear.source, linear.role.module
        assert not isinstance(tensor, Stacked), "only whole experts are rounded on data"
        out.write(memoryview(given.codes.tobytes()), shard.offsets[f"{module}.weight"])
        out.write(memoryview(given.scales.tobytes()), shard.offsets[f"{module}.weight_scale"])
        measure = Measure()
        for first_row, rows in self._reader.rows(tensor):
            sums = encoder.encode_into(rows, *self._output.views(rows.size))
            part = slice(first_row, first_row + len(rows))
            decoded = np.empty(rows.size, np.float32)
            kernels.decode(given.codes[part].reshape(-1), given.scales[part].reshape(-1), given.scale_2, decoded)
            error = rows.reshape(-1).astype(np.float64) - decoded
            measure.add(
                Measure(float(error @ error), sums.max_error, sums.energy, sums.clamped_blocks, sums.zero_blocks)
            )
            self._advance(len(rows) * tensor.bytes // tensor.shape[0])
        return measure

    def _scalars(
        self, linear: Linear, group: tuple[Linear, ...], scale_2: np.float32, shard: OutputShard, out: ShardWriter
    ) -> None:
        scalars = {SCALE_2: scale_2}
        if self._input_scales is not None:
            scalars[INPUT_SCALE] = self._input_scales.of(linear.role, tuple(member.role.module for member in group))
        for part, value in scalars.items():
            out.write(memoryview(np.float32(value).tobytes()), shard.offsets[linear.role.named(part)])


def _codes_and_scales(
    raw: dict[str, npt.NDArray[np.uint8]], source: Packed
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Codes [n, K/2] and E8M0 scales [n, K/32] of an MXFP4 matrix's rows at hand."""
    columns, (scale,) = source.shape[1], source.form.scales
    return raw[source.form.numbers].reshape(-1, columns // 2), raw[scale].reshape(-1, columns // mxfp4.BLOCK_SIZE)
