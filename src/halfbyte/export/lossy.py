"""The GGUF types that an export may round to, for what llama.cpp cannot run in NVFP4: lossy, and said to be so.

`q8_0` and `q4_0` are encoded by the `gguf` package's own quantizers (llama.cpp's, in numpy), `bf16` by rounding to the
nearest. The prebuilt llama.cpp has no quantizer for k-quants that could be called; `llama-quantize` makes them from a
`bf16` export.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import ml_dtypes
import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType, quants

from halfbyte.errors import NonFiniteError, UsageError, said
from halfbyte.export.transforms import Bytes, ScaleError
from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES
from halfbyte.formats.nvfp4.codec import decode
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.nvfp4.reference import Encoded
from halfbyte.models.roles import Role

Lossy = Literal["q8_0", "q4_0", "bf16"]
LOSSY: tuple[Lossy, ...] = get_args(Lossy)
KEY = "halfbyte.lossy"
"""Metadata key that says so, and what was rounded to; absent from a lossless file."""

TYPES = {
    "q8_0": GGMLQuantizationType.Q8_0,
    "q4_0": GGMLQuantizationType.Q4_0,
    "bf16": GGMLQuantizationType.BF16,
}
FILE_TYPES = {
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "bf16": LlamaFileType.MOSTLY_BF16,
}
ROUNDED = frozenset(
    {
        Role.ROUTED_EXPERT,
        Role.SHARED_EXPERT,
        Role.DENSE_MLP,
        Role.ATTENTION,
        Role.LINEAR_ATTENTION,
        Role.LATENT,
        Role.EMBEDDING,
        Role.LM_HEAD,
    }
)
"""Roles whose matrices are rounded; router, norms, indexer and the latent attention's heads stay as they are."""

ENDS = frozenset({Role.EMBEDDING, Role.LM_HEAD})
"""Roles that take eight bits where the others take four, as llama.cpp's own mixes do."""


def lossy_type(text: str | None) -> Lossy | None:
    """Raises UsageError for a type that is none of ours."""
    found = next((known for known in LOSSY if known == text), None)
    if text is not None and found is None:
        raise UsageError(
            said("{type} {text!r}: wanted one of {known}", text=text[:40], known=", ".join(LOSSY)),
            hint="without one the export is lossless; k-quants: llama-quantize makes them from a bf16 export",
        )
    return found


def type_of(lossy: Lossy, role: Role, columns: int) -> GGMLQuantizationType:
    """What a matrix with rows of `columns` elements is rounded to: BF16 where a row is no whole number of blocks."""
    wanted = TYPES["q8_0" if lossy == "q4_0" and role in ENDS else lossy]
    block, _ = GGML_QUANT_SIZES[wanted]
    return wanted if columns % block == 0 else GGMLQuantizationType.BF16


@dataclass(frozen=True, slots=True)
class Rounded:
    """Whole rows of a matrix, rounded. stored: dtype of a plain matrix, or "" for NVFP4 (codes, scales) by `scale_2`.

    rows, columns: logical. There is no way back: `verify` makes them again instead.
    """

    reversible: ClassVar[bool] = False

    rows: int
    columns: int
    target: GGMLQuantizationType
    stored: str
    scale_2: float = 1.0

    @property
    def output_bytes(self) -> int:
        block, size = GGML_QUANT_SIZES[self.target]
        return self.rows * self.columns // block * size

    def values(self, inputs: Sequence[Bytes]) -> npt.NDArray[np.float32]:
        """float32 [rows, columns] of the inputs. Raises ScaleError for NaN and infinity."""
        if self.stored:
            plain: npt.NDArray[np.float32] = (
                inputs[0].view(NUMPY_DTYPES[self.stored]).reshape(self.rows, self.columns).astype(np.float32)
            )
            if not np.isfinite(plain).all():
                raise ScaleError("NaN or infinite")
            return plain
        codes = inputs[0].reshape(self.rows, self.columns // 2)
        scales = inputs[1].reshape(self.rows, self.columns // BLOCK_SIZE)
        try:
            decoded: npt.NDArray[np.float32] = decode(Encoded(codes, scales, np.float32(self.scale_2)))
        except NonFiniteError:
            raise ScaleError("NaN") from None
        return decoded

    def forward(self, inputs: Sequence[Bytes], output: Bytes) -> int:
        values = self.values(inputs)
        if self.target == GGMLQuantizationType.BF16:
            output[:] = values.astype(ml_dtypes.bfloat16).view(np.uint8).reshape(-1)
        else:
            output[:] = quants.quantize(values, self.target).view(np.uint8).reshape(-1)
        return 0

    def inverse(self, output: Bytes, inputs: Sequence[Bytes]) -> bool:
        raise NotImplementedError("what was rounded cannot be turned back")

    def error(self, inputs: Sequence[Bytes], output: Bytes) -> tuple[float, float]:
        """Sums of squares of what the rounding changed, and of what there was."""
        values: npt.NDArray[Any] = self.values(inputs)
        if self.target == GGMLQuantizationType.BF16:
            back = output.view(ml_dtypes.bfloat16).astype(np.float32).reshape(values.shape)
        else:
            block, size = GGML_QUANT_SIZES[self.target]
            back = quants.dequantize(output.reshape(self.rows, self.columns // block * size), self.target)
        return float(np.square(values - back, dtype=np.float64).sum()), float(np.square(values, dtype=np.float64).sum())
