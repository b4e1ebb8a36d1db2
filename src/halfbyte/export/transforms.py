"""How the bytes of a checkpoint become the bytes of a GGUF tensor, piece by piece. Every transform can be undone.

`forward` writes the output of one piece from its inputs; `inverse` recovers the inputs from the output, which is how
`verify_gguf` proves that nothing was lost. All arrays are flat uint8 in memory order; a transform keeps no data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from halfbyte.export import blocks
from halfbyte.formats import mxfp4
from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES
from halfbyte.formats.nvfp4.format import BLOCK_SIZE
from halfbyte.models.llama_cpp import Change

Bytes = npt.NDArray[np.uint8]

MXFP4_BYTES = 1 + mxfp4.HALF_BLOCK
"""Of a block of `GGML_TYPE_MXFP4`. Source: `block_mxfp4` in ggml-common.h of llama.cpp."""


class ScaleError(ValueError):
    """A block scale that llama.cpp cannot hold. The caller knows the tensor's name."""


class Transform(Protocol):
    """forward returns how many NVFP4 blocks have a scale of 0 over codes that are not (they decode to 0 either way)."""

    @property
    def reversible(self) -> bool:
        """Whether there is an inverse."""
        ...

    @property
    def output_bytes(self) -> int: ...
    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int: ...
    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        """Fill `inputs` from `output`. False if `output` holds anything that `forward` could not have written."""
        ...


@dataclass(frozen=True, slots=True)
class Copy:
    """The same bytes."""

    reversible: ClassVar[bool] = True
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

    reversible: ClassVar[bool] = True
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

    reversible: ClassVar[bool] = True
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

    reversible: ClassVar[bool] = True
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

    reversible: ClassVar[bool] = True
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
class PackMxfp4:
    """Codes and block scales (inputs in this order) of `blocks` blocks of 32, as llama.cpp's `block_mxfp4`: the scale,
    then 16 bytes, byte j of which holds element j in the low nibble and element j+16 in the high one."""

    blocks: int

    reversible: ClassVar[bool] = True

    @property
    def output_bytes(self) -> int:
        return self.blocks * MXFP4_BYTES

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        if (inputs[1] == mxfp4.NAN).any():
            raise ScaleError("NaN")
        seen = output.reshape(self.blocks, MXFP4_BYTES)
        codes = inputs[0].reshape(self.blocks, mxfp4.HALF_BLOCK)
        elements = np.stack([codes & 15, codes >> 4], axis=-1).reshape(self.blocks, 2, mxfp4.HALF_BLOCK)
        seen[:, 0] = inputs[1]
        seen[:, 1:] = elements[:, 0] | elements[:, 1] << 4
        return 0

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        seen = output.reshape(self.blocks, MXFP4_BYTES)
        elements = np.concatenate([seen[:, 1:] & 15, seen[:, 1:] >> 4], axis=1)
        inputs[1][:] = seen[:, 0]
        inputs[0].reshape(self.blocks, -1)[:] = elements[:, 0::2] | elements[:, 1::2] << 4
        return True


@dataclass(frozen=True, slots=True)
class Computed:
    """float32 of what llama.cpp keeps instead of a number: 1 more, or the negated exponential.

    Not every number comes back from that (1 + 2^-30 is 1), so `verify` makes them again. dtype: of the source.
    """

    elements: int
    dtype: str
    change: Change

    reversible: ClassVar[bool] = False

    @property
    def output_bytes(self) -> int:
        return 4 * self.elements

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        values = inputs[0].view(NUMPY_DTYPES[self.dtype]).astype(np.float32)
        with np.errstate(over="ignore"):
            made = values + np.float32(1) if self.change == "one more" else -np.exp(values.astype(np.float64))
            output.view(np.float32)[:] = made
        return 0

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        raise NotImplementedError("what was computed cannot be turned back")


def nvfp4_inputs(elements: int) -> tuple[int, int]:
    """Bytes of the two inputs of `PackNvfp4`."""
    return elements // 2, elements // BLOCK_SIZE
