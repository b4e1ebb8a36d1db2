"""The tokens that an expert is rounded on, and what their inputs look like on the way through it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from halfbyte.quantize.rounding.hessian import Inputs, checked, cross_moment, mixed


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

    def in_four_bits(self) -> "Tokens":
        """The same tokens as a Blackwell engine sees them."""
        return Tokens(self.own.in_four_bits, self.layer.in_four_bits, self.prior)

    def moment(self, name: str) -> Tensor:
        """Second moment, float32 [K, K]. Raises NonFiniteError."""
        own = checked(self.own.second_moment, self.own, name)
        return self._mixed(own, checked(self.layer.second_moment, self.layer, f"{name} (layer sample)"))

    def cross(self, others: "Tokens") -> Tensor:
        """Cross moment with other values of the same tokens, float32 [K, L]."""
        return self._mixed(cross_moment(self.own, others.own.x), cross_moment(self.layer, others.layer.x))

    def _mixed(self, own: Tensor, layer: Tensor) -> Tensor:
        return mixed(own, len(self.own.x), layer, self.prior if len(self.layer.x) else 0)
