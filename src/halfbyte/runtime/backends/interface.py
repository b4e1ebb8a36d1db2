"""What a back end is: two functions over packed modules."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from halfbyte.runtime.packed import PackedExperts, PackedLinear, PackedModule


class Backend(Protocol):
    """Computes packed linears and experts. One object serves a whole model.

    rearranges: `prepare` has replaced the file's bytes by another layout, so the model can no longer be saved.
    An activation scale (float32 []) means: round that GEMM's input to NVFP4 with it first; None: leave it alone.
    """

    name: str
    rearranges: bool

    def prepare(self, packed: "Mapping[str, PackedModule]") -> None:
        """Called once when loading is done, before any computation."""

    def linear(self, module: "PackedLinear", hidden: Tensor, scale: Tensor | None) -> Tensor:
        """hidden [M, K] -> [M, N], hidden's dtype, without the bias."""
        ...

    def experts(
        self,
        module: "PackedExperts",
        hidden: Tensor,
        top_k_index: Tensor,
        top_k_weights: Tensor,
        scale: Tensor | None,
        down_scale: Tensor | None,
    ) -> Tensor:
        """hidden [M, H], top_k_index int64 [M, k], top_k_weights [M, k] -> [M, H], hidden's dtype.

        The weighted sum over k of down(act(gate(x)) * up(x)). An index of num_experts or more adds nothing.
        """
        ...
