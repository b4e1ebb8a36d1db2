"""The tokens that an expert is rounded on, and what their inputs look like on the way through it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from halfbyte.nvfp4.format import AMAX_TO_SCALE_2
from halfbyte.quantize.gptq.hessian import Inputs, checked, cross_moment, mixed
from halfbyte.runtime.values import fake_quantized


@dataclass(frozen=True)
class Tokens:
    """own: those routed to the expert, maybe none. layer: a sample of all the layer's tokens, which stands for
    `prior` tokens."""

    own: Inputs
    layer: Inputs
    prior: int

    def through(self, function: Callable[[Tensor], Tensor]) -> "Tokens":
        """The same tokens after `function`, [n, K] to [n, L]."""
        return Tokens(self.own.of(function(self.own.x)), self.layer.of(function(self.layer.x)), self.prior)

    def moment(self, name: str) -> Tensor:
        """Second moment, float32 [K, K]. Raises NonFiniteError."""
        own = checked(self.own.second_moment, self.own, name)
        return self._mixed(own, checked(self.layer.second_moment, self.layer, f"{name} (layer sample)"))

    def cross(self, others: "Tokens") -> Tensor:
        """Cross moment with other values of the same tokens, float32 [K, L]."""
        return self._mixed(cross_moment(self.own, others.own.x), cross_moment(self.layer, others.layer.x))

    def _mixed(self, own: Tensor, layer: Tensor) -> Tensor:
        return mixed(own, len(self.own.x), layer, self.prior if len(self.layer.x) else 0)


def four_bits(x: Tensor) -> Tensor:
    """x [n, K] as a Blackwell engine sees it, with the largest of these values as amax."""
    amax = x.float().abs().amax() if x.numel() else x.new_zeros(())
    return fake_quantized(x, amax.float() / float(AMAX_TO_SCALE_2)) if bool(amax > 0) else x
