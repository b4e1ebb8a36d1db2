"""How the bytes of a checkpoint become the bytes of a GGUF tensor, piece by piece. Every transform can be undone.

`forward` writes the output of one piece from its inputs; `inverse` recovers the inputs from the output, which is how
`verify_gguf` proves that nothing was lost. All arrays are flat uint8 in memory order; a transform keeps no data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from halfbyte.export import blocks
from halfbyte.formats.nvfp4.format import BLOCK_SIZE

Bytes = npt.NDArray[np.uint8]


class ScaleError(ValueError):
    """A block scale that llama.cpp cannot hold. The caller knows the tensor's name."""


class Transform(Protocol):
    """forward returns how many NVFP4 blocks have a scale of 0 over codes that are not (they decode to 0 either way)."""

    @property
    def output_bytes(self) -> int: ...
    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int: ...
    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        """Fill `inputs` from `output`. False if `output` holds anything that `forward` could not have written."""
        ...


@dataclass(frozen=True, slots=True)
class Copy:
    """The same bytes."""

    output_bytes: int

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        output[:] = inputs[0]
        return 0

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        inputs[0][:] = output
        return True


@dataclass(frozen=True, slots=True)
class WidenBf16:
    """BF16 to float32, exactly: the 16 bits become the upper half."""

    elements: int

    @property
    def output_bytes(self) -> int:
        return 4 * self.elements

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        np.left_shift(inputs[0].view(np.uint16), np.uint32(16), out=output.view(np.uint32), dtype=np.uint32)
        return 0

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        halves = output.view(np.uint16).reshape(-1, 2)
        inputs[0].view(np.uint16)[:] = halves[:, 1]
        return not halves[:, 0].any()


@dataclass(frozen=True, slots=True)
class WidenF16:
    """Float16 to float32, which holds every float16 value."""

    elements: int

    @property
    def output_bytes(self) -> int:
        return 4 * self.elements

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        output.view(np.float32)[:] = inputs[0].view(np.float16)
        return 0

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        wide = output.view(np.float32)
        with np.errstate(over="ignore"):
            inputs[0].view(np.float16)[:] = wide
        return bool(np.array_equal(inputs[0].view(np.float16).astype(np.float32), wide, equal_nan=True))


@dataclass(frozen=True, slots=True)
class Transpose:
    """One matrix [rows, columns] of 2- or 4-byte elements to [columns, rows]: the k half of one head of `kv_b_proj`."""

    rows: int
    columns: int
    element_bytes: int

    @property
    def output_bytes(self) -> int:
        return self.rows * self.columns * self.element_bytes

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        unit = np.dtype(f"u{self.element_bytes}")
        output.view(unit).reshape(self.columns, self.rows)[:] = inputs[0].view(unit).reshape(self.rows, self.columns).T
        return 0

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        Transpose(self.columns, self.rows, self.element_bytes).forward([output], inputs[0])
        return True


@dataclass(frozen=True, slots=True)
class PackNvfp4:
    """Codes and block scales (inputs in this order) of whole rows, `elements` in all, as llama.cpp's blocks."""

    elements: int

    @property
    def output_bytes(self) -> int:
        return self.elements // blocks.ELEMENTS * blocks.BLOCK_BYTES

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        packed = blocks.pack(inputs[0], inputs[1], output)
        if packed.fault == blocks.NOT_A_NUMBER:
            raise ScaleError("NaN")
        if packed.fault == blocks.NEGATIVE:
            raise ScaleError("negative")
        return packed.silenced

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        blocks.unpack(output, inputs[0], inputs[1])
        return True


@dataclass(frozen=True, slots=True)
class RopeRows:
    """One attention head whose rows llama.cpp wants with rotary pairs side by side, then `inner`.

    Row i of the first half and row i of the second become rows 2i and 2i+1: the `llama` architecture rotates
    neighbours, the published weights halves. rows: rows of the head, in each input alike.
    """

    rows: int
    inner: Transform

    @property
    def output_bytes(self) -> int:
        return self.inner.output_bytes

    def paired(self, inputs: Sequence[Bytes]) -> list[Bytes]:
        """The inputs with their rows in the new order."""
        return [data.reshape(2, self.rows // 2, -1).swapaxes(0, 1).reshape(-1) for data in inputs]

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        return self.inner.forward(self.paired(inputs), output)

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        paired = [np.empty_like(data) for data in inputs]
        sound = self.inner.inverse(output, paired)
        for data, pairs in zip(inputs, paired, strict=True):
            data[:] = pairs.reshape(self.rows // 2, 2, -1).swapaxes(0, 1).reshape(-1)
        return sound


def nvfp4_inputs(elements: int) -> tuple[int, int]:
    """Bytes of the two inputs of `PackNvfp4`."""
    return elements // 2, elements // BLOCK_SIZE
