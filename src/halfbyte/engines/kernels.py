"""Which GPUs run four-bit experts, and how. Compute capabilities; read in both engines (docs/engines.md 4)."""

NATIVE = (10, 12)
"""Compute majors with FP4 tensor cores: 10 is B200, GB200 (10.0) and B300 (10.3), 12 the RTX PRO 6000 and its kin."""


def gpu_family(major: int, minor: int) -> str:
    """What kernels are chosen by: sm80, sm89, sm90, sm100 (B200, B300 and their GB kin), sm120."""
    if major == 8:
        return "sm89" if minor == 9 else "sm80"
    return {9: "sm90", 10: "sm100", 12: "sm120"}.get(major, f"sm{major}0")


SPARSE_FROM = 9
"""No engine has sparse-attention (DSA) kernels below Hopper."""
