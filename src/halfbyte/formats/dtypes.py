"""The element types of safetensors files, as their headers spell them. Everything else is built of these."""

BF16, F16, F32, F64 = "BF16", "F16", "F32", "F64"
F8_E4M3, F8_E8M0 = "F8_E4M3", "F8_E8M0"
U8, I8, I32, I64 = "U8", "I8", "I32", "I64"

FLOATS = (BF16, F16, F32)
"""What a weight that is not quantized is stored in."""

DTYPE_BYTES = {
    "BOOL": 1, U8: 1, I8: 1, F8_E4M3: 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, F16: 2, BF16: 2,
    "U32": 4, "I32": 4, F32: 4,
    "U64": 8, "I64": 8, F64: 8,
}  # fmt: skip
