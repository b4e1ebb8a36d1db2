"""How a packed matrix may be cut over ranks. Asked by plan, gate and the launcher (docs/engines.md 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

from halfbyte.formats.nvfp4.layout import BLOCK_SIZE

EXPERT_WIDTH_STEP = 64
"""Width of an expert on a rank of which FP4 kernels take multiples: TRT-LLM's round up to it with padding, others
refuse (read in vLLM 0.33 and SGLang 0.5.23)."""

ROW_PARALLEL = ("down_proj", "o_proj")
"""Linears whose columns, and so whose blocks of 16, tensor parallelism cuts."""


FP8_TILE = 128
"""Rows and columns under one scale of FP8 blocks. SGLang refuses experts whose width on a rank is no multiple (fp8.py,
0.5.23, but for AITER on ROCm); vLLM 0.33 refines the grid of scales instead (`weight_scale_refine`, fp8.py)."""


@dataclass(frozen=True)
class Cut:
    """Columns of a packed matrix on one rank, of `columns` over `ranks`."""

    columns: int
    ranks: int

    @property
    def own(self) -> float:
        return self.columns / self.ranks

    @property
    def splits_a_block(self) -> bool:
        return self.columns % self.ranks != 0 or self.columns // self.ranks % BLOCK_SIZE != 0

    @property
    def splits_a_tile(self) -> bool:
        return self.columns % self.ranks != 0 or self.columns // self.ranks % FP8_TILE != 0

    @property
    def off_the_kernels_step(self) -> bool:
        return self.own % EXPERT_WIDTH_STEP != 0

    def by_kernels(self, versions: str, seen: Sequence[str]) -> str:
        """What becomes of experts off the step, for users. seen: by engine, where they have a gate."""
        kernels = f"some FP4 kernels of {versions} pad it, others refuse"
        return "; ".join((f"{self}, no multiple of {EXPERT_WIDTH_STEP}: {kernels}", *seen))

    def __str__(self) -> str:
        return f"{self.columns} over {self.ranks} ranks leave {self.own:g} a rank"
