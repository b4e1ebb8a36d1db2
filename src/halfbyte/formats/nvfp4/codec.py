"""The fast NVFP4 encoder and decoder for the CPU: what everything but the tests calls.

Works on numpy arrays of bfloat16 (ml_dtypes), float16 and float32. Equal to `reference`, and so to ModelOpt, bit for
bit; `workers` threads share the rows.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar

import ml_dtypes
import numpy as np
import numpy.typing as npt

from halfbyte.errors import NonFiniteError, UnsupportedError
from halfbyte.formats.nvfp4 import kernels
from halfbyte.formats.nvfp4.format import BLOCK_SIZE, SCALE_LAST
from halfbyte.formats.nvfp4.reference import Encoded, relative_importance, scale_2_of

T = TypeVar("T")
Rounding = Literal["max", "sweep"]
Weight = npt.NDArray[Any]

BF16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(slots=True)
class Measure:
    """What encoding cost: sums over elements and counts of blocks; adds up over parts, tensors and roles.

    max_error: squared error that the max rule would have left; the gain of a better rounding is measured against it.
    """

    squared_error: float = 0.0
    max_error: float = 0.0
    energy: float = 0.0
    clamped_blocks: int = 0
    zero_blocks: int = 0

    def add(self, other: "kernels.Sums | Measure") -> None:
        self.squared_error += other.squared_error
        self.max_error += other.max_error
        self.energy += other.energy
        self.clamped_blocks += other.clamped_blocks
        self.zero_blocks += other.zero_blocks

    @property
    def relative_error(self) -> float:
        """‖w - decoded‖ / ‖w‖, 0 for an all-zero tensor."""
        return float(np.sqrt(self.squared_error / self.energy)) if self.energy else 0.0

    @property
    def max_relative_error(self) -> float:
        """`relative_error` under the max rule."""
        return float(np.sqrt(self.max_error / self.energy)) if self.energy else 0.0

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantization noise in dB; None where nothing was lost."""
        return float(10 * np.log10(self.energy / self.squared_error)) if self.squared_error else None


def amax(weight: Weight, name: str = "matrix", first_row: int = 0) -> np.float32:
    """Largest magnitude of a contiguous array, 0 if empty.

    Raises NonFiniteError naming `name` and the first index of a NaN or Inf; rows count from `first_row`.
    """
    if weight.dtype == BF16 and weight.size % BLOCK_SIZE == 0:
        largest = kernels.largest_bf16(weight.reshape(-1).view(np.uint16))
        result = np.array(largest << 16, np.uint32).view(np.float32)[()]
    else:
        with np.errstate(invalid="ignore"):
            result = np.abs(weight).max(initial=0).astype(np.float32)
    if not np.isfinite(result):
        wrong = ~np.isfinite(weight.reshape(-1).astype(np.float32))
        index = [int(i) for i in np.unravel_index(int(wrong.argmax()), weight.shape)]
        value = float(weight[tuple(index)])
        index[0] += first_row
        raise NonFiniteError(
            f"{name}: {value} at index {index}",
            hint="E2M1 has neither NaN nor Inf; the source is damaged or overflowed in training",
        )
    return np.float32(result)


class Encoder:
    """Encodes any number of row ranges of one tensor (or of tensors that share `scale_2`). Threads may share it."""

    def __init__(
        self, scale_2: np.float32, rounding: Rounding = "max", importance: npt.NDArray[np.float32] | None = None
    ) -> None:
        """importance: [K], weights of the squared errors by column for `sweep`; see `reference.relative_importance`."""
        self.scale_2 = np.float32(scale_2)
        self.sweep = rounding == "sweep"
        self._importance = np.empty(0, np.float32)
        if importance is not None:
            self._importance = np.ascontiguousarray(relative_importance(importance, importance.size))
        self._tables = kernels.build_tables(self.scale_2)
        # Below 2**8 no BF16 value but 0 vanishes in w / (scale * scale_2), so a code has the sign of its weight;
        # above 2**-50 half a step is never rounded.
        self._integers_suffice = 2.0**-50 < float(self.scale_2) < 2.0**8

    def encode_into(self, weight: Weight, codes: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8]) -> kernels.Sums:
        """Encode contiguous `weight` [n, K] (finite: see `amax`) into `codes` [n, K/2] and `scales` [n, K/16]."""
        if self._importance.size and weight.shape[1] != self._importance.size:
            raise UnsupportedError(
                f"importance has {self._importance.size} values, the weight {weight.shape[1]} columns",
                hint="pass the mean square of each input of this linear",
            )
        flat = weight.reshape(-1)
        outputs = codes.reshape(-1), scales.reshape(-1)
        if weight.dtype == BF16 and self._integers_suffice:
            sums = kernels.Sums(
                *kernels.encode_bf16(
                    flat.view(np.uint16), self._tables, self.scale_2, self.sweep, self._importance, *outputs
                )
            )
            # It sums squares in float32; where they do not fit, the float kernel measures (and writes the same bytes)
            if 2.0**-90 < sums.energy < np.inf or sums.zero_blocks == scales.size:
                return sums
        values = flat.astype(np.float32, copy=False)
        return kernels.Sums(*kernels.encode_float(values, self.scale_2, self.sweep, self._importance, *outputs))


def check_shape(shape: tuple[int, ...], name: str = "matrix") -> None:
    """Raise UnsupportedError unless `shape` is [N, K] with K a multiple of 16."""
    if len(shape) != 2 or shape[1] % BLOCK_SIZE:
        raise UnsupportedError(
            f"{name}: shape {list(shape)} cannot be NVFP4: it takes two dimensions and rows that are a multiple of "
            f"{BLOCK_SIZE} long",
            hint="leave this tensor in its own format by the recipe",
        )


def encode(
    weight: Weight,
    scale_2: np.float32 | None = None,
    rounding: Rounding = "max",
    workers: int = 1,
    importance: npt.NDArray[np.float32] | None = None,
) -> tuple[Encoded, Measure]:
    """Encode one matrix [N, K] held in memory. Arguments, result and errors as `reference.encode`, plus the Measure."""
    check_shape(weight.shape)
    weight = np.ascontiguousarray(weight)
    rows, columns = weight.shape
    largest = max(_by_rows(rows, workers, lambda part: amax(weight[part], first_row=part.start)))  # refuses NaN, Inf
    if scale_2 is None:
        scale_2 = scale_2_of(largest, rounding)
    codes = np.empty((rows, columns // 2), np.uint8)
    scales = np.empty((rows, columns // BLOCK_SIZE), np.uint8)
    encoder = Encoder(np.float32(scale_2), rounding, importance)
    measure = Measure()
    for sums in _by_rows(rows, workers, lambda part: encoder.encode_into(weight[part], codes[part], scales[part])):
        measure.add(sums)
    return Encoded(codes, scales, encoder.scale_2), measure


def decode(encoded: Encoded, workers: int = 1) -> npt.NDArray[np.float32]:
    """float32 [N, K] of one encoded matrix. Raises NonFiniteError for a NaN block scale."""
    codes, scales, scale_2 = encoded
    if scales.size and not (scales & 0x7F <= SCALE_LAST).all():
        raise NonFiniteError("a block scale is NaN (E4M3 byte 0x7F or 0xFF)")
    values = np.empty((codes.shape[0], codes.shape[1] * 2), np.float32)

    def part_of(part: slice) -> None:
        kernels.decode(codes[part].reshape(-1), scales[part].reshape(-1), np.float32(scale_2), values[part].reshape(-1))

    _by_rows(len(codes), workers, part_of)
    return values


def _by_rows(rows: int, workers: int, work: Callable[[slice], T]) -> list[T]:
    """Run `work` on `workers` consecutive row ranges, in threads if more than one; results in row order."""
    workers = max(1, min(workers, rows))
    bounds = [rows * i // workers for i in range(workers + 1)]
    parts = [slice(a, b) for a, b in pairwise(bounds)]
    if workers == 1:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, parts))
