"""Which GPUs run four-bit experts, and how. Compute capabilities; read in both engines (docs/engines.md 4)."""

NATIVE = (10, 12)
"""Compute majors with FP4 tensor cores: 10 is B200, GB200 (10.0) and B300 (10.3), 12 the RTX PRO 6000 and its kin."""

SPARSE_FROM = 9
"""No engine has sparse-attention (DSA) kernels below Hopper."""
