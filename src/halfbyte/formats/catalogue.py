"""Every storage format there is, by name and by what stands in a file. A new format is a file, and a line here.

| format | bytes of a matrix [N, K] | read | decoded |
|---|---|---|---|
| bf16, f16, f32 and the other dtypes | those of the dtype | yes | floats |
| fp8-block | N*K + 4 * ceil(N/128) * ceil(K/128) | yes | yes |
| fp8-block-e8m0 | N*K + ceil(N/128) * ceil(K/128) | yes | yes |
| fp8 | N*K + 4 | yes | yes |
| nvfp4 | N*K/2 + N*K/16 + 8 | yes | yes |
| nvfp4-w4a16 | N*K/2 + N*K/16 + 4 | as nvfp4 | as nvfp4 |
| nvfp4-ct | N*K/2 + N*K/16 + 8 | yes | yes |
| mxfp4, mxfp4-weight | N*K/2 + N*K/32 | yes | yes |
| stacks of experts in nvfp4 and mxfp4 | as of their matrices, 8 once | yes | one by one |
| int4, int4-gG | N*K/2 + 2*N*K/G + 8 | yes | yes |
| int4-zp, int4-gG-zp | the same + N*K/(2*G) | yes | yes |
"""

from halfbyte.errors import CheckpointError
from halfbyte.formats import fp8, fp8_block, int4, mxfp4, turned
from halfbyte.formats.dtypes import BF16 as BF16_DTYPE
from halfbyte.formats.dtypes import F16 as F16_DTYPE
from halfbyte.formats.dtypes import F32 as F32_DTYPE
from halfbyte.formats.dtypes import I32, I64
from halfbyte.formats.nvfp4 import compressed, stack
from halfbyte.formats.nvfp4 import stored as nvfp4
from halfbyte.formats.plain import PLAIN
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.formats.storage import WEIGHT, Parts, StorageFormat

BF16, F16, F32 = (dtype.lower() for dtype in (BF16_DTYPE, F16_DTYPE, F32_DTYPE))
WHOLE = tuple(dtype.lower() for dtype in (I32, I64))
"""Of numbers that are no weights."""
NVFP4, NVFP4_WEIGHT_ONLY, NVFP4_COMPRESSED = nvfp4.FORMAT.name, nvfp4.WEIGHT_ONLY.name, compressed.FORMAT.name
FP8, FP8_BLOCK, FP8_BLOCK_POWERS = fp8.FORMAT.name, fp8_block.FORMAT.name, fp8_block.POWERS.name
MXFP4, MXFP4_WEIGHT = mxfp4.FORMAT.name, mxfp4.UNDER_WEIGHT.name
INT4, INT4_ZERO_POINTS = int4.FORMAT.name, int4.WITH_ZERO_POINTS.name
"""Names of formats, for those who ask for one by name; `bf16` and the like are dtypes in small letters."""

SCALED: tuple[StorageFormat, ...] = (
    nvfp4.FORMAT,
    nvfp4.WEIGHT_ONLY,
    compressed.FORMAT,
    fp8_block.FORMAT,
    fp8_block.POWERS,
    fp8.FORMAT,
    mxfp4.FORMAT,
    mxfp4.UNDER_WEIGHT,
    int4.FORMAT,
    int4.WITH_ZERO_POINTS,
)
"""The formats with more than one tensor to a weight, in the order in which they are tried."""

STACKS: dict[str, StorageFormat] = {form.name: form for form in (stack.STACK, mxfp4.STACK)}
"""The formats of a whole stack of experts, under the names of their matrices' formats."""
OF_STACKS: tuple[StorageFormat, ...] = (stack.TURNED, mxfp4.OF_STACK)
"""Of one expert's matrix out of such a stack: in no file by itself."""

FORMATS: dict[str, StorageFormat] = {form.name: form for form in (*PLAIN.values(), *SCALED, *OF_STACKS)}


class _Quantized:
    """Container of the names of the formats of fewer bits: int4 has one for each size of group."""

    def __contains__(self, name: object) -> bool:
        return name in _NAMES or (isinstance(name, str) and int4.called(name) is not None)


_NAMES = frozenset(form.name for form in SCALED)
QUANTIZED = _Quantized()
"""Names of the formats of fewer bits."""

SCALE_PARTS = tuple(dict.fromkeys(part for form in SCALED for part in form.scales))
NUMBER_PARTS = tuple(dict.fromkeys(form.numbers for form in SCALED))
LINEAR_PARTS = frozenset((*NUMBER_PARTS, *SCALE_PARTS))
"""What may follow a linear's path, in any format."""
STACK_NUMBERS = tuple(dict.fromkeys(form.numbers for form in STACKS.values()))
STACK_PARTS = (*STACK_NUMBERS, *dict.fromkeys(part for form in STACKS.values() for part in form.scales))
"""What may follow a stack's path, in any format, the numbers first."""


def format_called(name: str) -> StorageFormat:
    """The format of a name. Raises ValueError for a name that is none."""
    found = FORMATS.get(name) or int4.called(name) or turned.called(name)
    if found is None:
        raise ValueError(f"no such storage format: {name}")
    return found


def stored_bytes(shape: tuple[int, ...], name: str) -> int:
    """Bytes of one weight of logical `shape` in the format of this name, with its scales."""
    return format_called(name).bytes(shape)


def recognised(parts: Parts) -> tuple[StorageFormat, tuple[int, ...]]:
    """Format and logical shape of a weight with its scales. Raises CheckpointError for what is no known format."""
    for form in SCALED if len(parts) > 1 else ():
        if form.numbers in parts and form.recognises(parts):
            exact = form.exactly(parts)
            return exact, exact.logical_shape(parts)
    first, *scales = parts
    weight = parts[first]
    if scales or first != WEIGHT:
        beside = f" with {', '.join(sorted(scales))}" if scales else ""
        raise CheckpointError(f"{weight.name}: {weight.dtype}{beside} is no known format")
    return PLAIN[weight.dtype.lower()], weight.shape


def recognised_stack(parts: Parts) -> tuple[StorageFormat, tuple[int, ...]]:
    """The same of a stack of experts."""
    for form in STACKS.values():
        if len(parts) > 1 and form.numbers in parts and form.recognises(parts):
            return form, form.logical_shape(parts)
    return recognised(parts)


def declared(block: QuantizationBlock) -> StorageFormat | None:
    """The format that a quantization block announces, None for one that is not known by it."""
    return next((form for form in SCALED if form.declared(block)), None)
