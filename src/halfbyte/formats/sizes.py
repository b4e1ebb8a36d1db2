"""How many bytes a weight takes in each storage format a plan can speak of.

| format | bytes of a matrix [N, K] | source |
|---|---|---|
| bf16, f32 | 2 or 4 a number | safetensors dtypes |
| fp8-block | N*K + 4 * ceil(N/128) * ceil(K/128) | `weight_block_size` [128, 128], float32 `weight_scale_inv` |
| fp8 | N*K + 4 | one float32 scale per tensor |
| nvfp4 | N*K/2 + N*K/16 + 8 | ModelOpt: codes, E4M3 block scales, `weight_scale_2` and `input_scale` |
| nvfp4-w4a16 | N*K/2 + N*K/16 + 4 | the same without `input_scale` |
| mxfp4 | N*K/2 + N*K/32 | OCP MX v1.0: one E8M0 scale for 32 elements |
| int4, int4-gG | N*K/2 + 2*N*K/G + 8 | compressed-tensors packed, group G (32), BF16 scales, shape of two int32 |
| int4-zp, int4-gG-zp | the same + N*K/(2*G) | asymmetric: a four-bit zero point for each group |
"""

import re
from math import ceil, prod

PLAIN_BYTES = {"bf16": 2, "f16": 2, "f32": 4, "i64": 8, "u8": 1, "f8_e4m3": 1}
FP8_TILE = 128
INT4 = re.compile(r"int4(?:-g(\d+))?(-zp)?")
INT4_GROUP = 32


def stored_bytes(shape: tuple[int, ...], storage: str) -> int:
    """Bytes of one tensor of logical `shape` with its scales. Vectors and scalars take plain formats only."""
    if storage in PLAIN_BYTES:
        return prod(shape) * PLAIN_BYTES[storage]
    rows, columns = prod(shape[:-1]), shape[-1]
    numbers = rows * columns
    if storage == "fp8-block":
        return numbers + 4 * ceil(rows / FP8_TILE) * ceil(columns / FP8_TILE)
    if storage == "fp8":
        return numbers + 4
    if storage == "mxfp4":
        return numbers // 2 + numbers // 32
    int4 = INT4.fullmatch(storage)
    if int4:
        groups = ceil(numbers / int(int4.group(1) or INT4_GROUP))
        return numbers // 2 + 2 * groups + (ceil(groups / 2) if int4.group(2) else 0) + 8
    if storage in ("nvfp4", "nvfp4-w4a16"):
        return numbers // 2 + numbers // 16 + (8 if storage == "nvfp4" else 4)
    raise ValueError(f"no such storage format: {storage}")
