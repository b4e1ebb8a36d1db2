"""Second moments of inputs: H = sum w x x^T / sum w, and their mixture with the layer's."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from halfbyte.errors import NonFiniteError
from halfbyte.formats.nvfp4.format import AMAX_TO_SCALE_2
from halfbyte.formats.nvfp4.torch import fake_quantized

CHUNK_ROWS = 8192
"""Rows multiplied at a time, always the same: the sum's order, and so its bits, follow from the rows alone."""


@dataclass(frozen=True)
class Inputs:
    """Inputs of one linear. x: [n, K]. importance: float32 [n], not negative; a token counts by it."""

    x: Tensor
    importance: Tensor

    def of(self, x: Tensor) -> "Inputs":
        """Other values of the same tokens."""
        return self if x is self.x else Inputs(x, self.importance)

    @cached_property
    def second_moment(self) -> Tensor:
        """float32 [K, K]; zeros for no inputs."""
        return cross_moment(self, self.x)

    @cached_property
    def in_four_bits(self) -> "Inputs":
        """The same tokens as a Blackwell engine sees them. Kept, because a layer's sample serves all its experts."""
        return self.of(four_bits(self.x))


def checked(moment: Tensor, inputs: Inputs, name: str) -> Tensor:
    """The second moment of inputs. Raises NonFiniteError naming `name` for NaN or Inf inputs."""
    if not bool(moment.isfinite().all() & moment.diagonal().sum().isfinite()):
        raise NonFiniteError(
            f"{name}: NaN or Inf among its {len(inputs.x)} calibration inputs",
            hint="the model overflows on this text; check the weights, or compute in another dtype",
        )
    return moment


def cross_moment(inputs: Inputs, others: Tensor) -> Tensor:
    """sum w x y^T / sum w, float32 [K, L]. others: y [n, L], of the same tokens."""
    total = torch.zeros((inputs.x.shape[1], others.shape[1]), dtype=torch.float32, device=inputs.x.device)
    weight = inputs.importance.sum()
    share = (inputs.importance / weight).sqrt() if bool(weight > 0) else inputs.importance
    for start in range(0, len(inputs.x), CHUNK_ROWS):
        own = share[start : start + CHUNK_ROWS, None]
        left = inputs.x[start : start + CHUNK_ROWS].float() * own
        right = left if others is inputs.x else others[start : start + CHUNK_ROWS].float() * own
        total.addmm_(left.t(), right)
    return total


def mixed(own: Tensor, tokens: int, prior: Tensor, prior_tokens: int) -> Tensor:
    """(n * own + tau * prior) / (n + tau): the prior stands for tau tokens of the layer at large."""
    total = tokens + prior_tokens
    return own if total == 0 else (tokens * own + prior_tokens * prior) / total


def four_bits(x: Tensor) -> Tensor:
    """x [n, K] as a Blackwell engine sees it, with the largest of these values as amax."""
    amax = x.float().abs().amax() if x.numel() else x.new_zeros(())
    return fake_quantized(x, amax.float() / float(AMAX_TO_SCALE_2)) if bool(amax > 0) else x
