"""What a storage format is: the tensors that one weight becomes in a file, their bytes, and the numbers behind them.

A format is one file or folder of this package, listed in `catalogue`. Its headers' half (parts, recognition, shapes,
bytes) needs neither numpy nor torch; those are imported where numbers are decoded.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from halfbyte.errors import UnsupportedError
from halfbyte.formats.dtypes import BF16
from halfbyte.formats.quantization_block import QuantizationBlock

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

Operand = Literal["bf16", "fp8", "fp4"]
"""The type in which a GEMM multiplies."""

WEIGHT, SCALE, BARE_SCALE = "weight", "weight_scale", "scale"
"""Parts that several formats have. The last is DeepSeek-V4's, and of other modules a parameter of that name."""


class Stored(Protocol):
    """A tensor as a file holds it, or the contiguous run of its elements that holds some rows."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


Parts = Mapping[str, Stored]
"""Part -> stored tensor: all that one weight is in the file, the numbers first."""


class Span(NamedTuple):
    """A contiguous run of a stored tensor's elements: number of the first, and how the run is shaped."""

    first: int
    shape: tuple[int, ...]


class StorageFormat:
    """One way of storing a weight. The methods' defaults are those of a format that is known on paper only.

    name: as tables, policies and `halfbyte.json` spell it. quantized: fewer bits than the model was trained in.
    numbers: the part that holds the weight's own numbers. scales: what may stand beside it, in file order.
    kind: what evidence calls it as a source, where not by its name. operand: what a GEMM over it multiplies in, where
    the hardware can.
    row_step: rows that share a scale; a matrix is decoded by whole multiples of it. kept_as: dtype in which it is
    written where it is decoded and kept.
    """

    quantized = True
    kind = ""
    numbers = WEIGHT
    scales: tuple[str, ...] = ()
    operand: Operand = "bf16"
    row_step = 1
    kept_as = BF16

    def __init__(self, name: str) -> None:
        self.name = name

    def exactly(self, parts: Parts) -> "StorageFormat":
        """This format with what only the shapes of recognised tensors say (the size of groups)."""
        return self

    def recognises(self, parts: Parts) -> bool:
        """Whether a module's tensors are stored so, by names and dtypes. Shapes are `logical_shape`'s to check."""
        return False

    def declared(self, block: QuantizationBlock) -> bool:
        """Whether a checkpoint's quantization block says that its quantized weights are stored so."""
        return False

    def logical_shape(self, parts: Parts) -> tuple[int, ...]:
        """Shape of the weight that recognised tensors stand for. Raises CheckpointError if they contradict."""
        return parts[self.numbers].shape

    def of_expert(self, parts: Parts, number: int) -> "tuple[StorageFormat, dict[str, Span]]":
        """One expert's matrix out of a stack: how it is stored, and what of each stored tensor it is."""
        raise UnsupportedError(f"{parts[self.numbers].name}: {self.name} is no stack of experts")

    def bytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of a weight of logical `shape`, its scales included."""
        raise NotImplementedError

    def rows(self, parts: Parts, first: int, stop: int) -> dict[str, Span]:
        """What of each stored tensor holds the rows [first, stop) of a matrix.

        first: a multiple of `row_step`; stop too, or the last row. The spans are what `decode` takes as parts.
        """
        raise UnsupportedError(f"{parts[self.numbers].name}: {self.name} cannot be read by rows")

    def decode(self, parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "npt.NDArray[np.float32]":
        """float32 weights of the parts' bytes (each uint8, one dimension). Raises NonFiniteError for damaged scales."""
        raise UnsupportedError(f"{parts[self.numbers].name}: {self.name} cannot be decoded")

    def decode_torch(self, parts: Parts, raw: "Mapping[str, torch.Tensor]", dtype: "torch.dtype") -> "torch.Tensor":
        """The weights in `dtype`, on the device of `raw` (each uint8, one dimension); memory of their own.

        Raises UnsupportedError for a dtype that no weight has, CheckpointError for damaged scales.
        """
        raise UnsupportedError(f"{parts[self.numbers].name}: {self.name} cannot be decoded")

    def rounded(self, weights: "Sequence[npt.NDArray[Any]]") -> "list[npt.NDArray[np.float32]]":
        """What this format leaves of matrices that share a scale (gate and up): encoded and decoded again."""
        raise UnsupportedError(f"nothing is written as {self.name}")

    def rounded_torch(self, weights: "Sequence[torch.Tensor]") -> "list[torch.Tensor]":
        """The same of tensors on any device, in float32."""
        from torch import from_numpy

        arrays = self.rounded([weight.float().cpu().numpy() for weight in weights])
        return [from_numpy(array).to(weight.device) for array, weight in zip(arrays, weights, strict=True)]


class WholeStack(StorageFormat):
    """Mixed into the format of a matrix: a stack of experts, which is read one by one (`of_expert`), not as it is."""

    rows, decode, decode_torch = StorageFormat.rows, StorageFormat.decode, StorageFormat.decode_torch


def whole_rows(stored: Stored, first: int, stop: int) -> Span:
    """The rows [first, stop) of a tensor whose first axis is the matrix's own."""
    width = 1
    for side in stored.shape[1:]:
        width *= side
    return Span(first * width, (stop - first, *stored.shape[1:]))


def one_of(stored: Stored, number: int) -> Span:
    """What a tensor whose first axis counts experts has of one of them."""
    width = 1
    for side in stored.shape[1:]:
        width *= side
    return Span(number * width, tuple(stored.shape[1:]))


def typed(parts: Parts, raw: "Mapping[str, npt.NDArray[np.uint8]]") -> "dict[str, npt.NDArray[Any]]":
    """The parts' bytes as numpy arrays of their own dtypes and shapes."""
    from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES

    return {
        part: raw[part].view(NUMPY_DTYPES[_known(stored, NUMPY_DTYPES)]).reshape(stored.shape)
        for part, stored in parts.items()
    }


def typed_torch(parts: Parts, raw: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The parts' bytes as tensors of their own dtypes and shapes."""
    from halfbyte.formats.torch_dtypes import TORCH_DTYPES

    return {
        part: raw[part].view(TORCH_DTYPES[_known(stored, TORCH_DTYPES)]).view(stored.shape)
        for part, stored in parts.items()
    }


def _known(stored: Stored, dtypes: Mapping[str, Any]) -> str:
    if stored.dtype not in dtypes:
        raise UnsupportedError(
            f"{stored.name}: dtype {stored.dtype} cannot be computed with", hint=f"known: {', '.join(dtypes)}"
        )
    return stored.dtype
