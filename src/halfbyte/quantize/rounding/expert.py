"""One expert: gate and up together, then down on what the rounded gate and up give it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from halfbyte.errors import NonFiniteError
from halfbyte.formats.nvfp4.torch import shared_scale_2
from halfbyte.quantize.rounding.columns import Rounded, nearest_rounded
from halfbyte.quantize.rounding.correction import corrected
from halfbyte.quantize.rounding.matrix import rounded_matrix
from halfbyte.quantize.rounding.settings import Settings
from halfbyte.quantize.rounding.tokens import Tokens

Activation = Callable[[Tensor], Tensor]
"""Gate and up [n, 2I], or up alone, to the intermediate [n, I], as the model's own experts do."""


@dataclass(frozen=True)
class RoundedExpert:
    """gate_up: [2I, H], gate rows first, or up alone, [I, H]. down: [H, I]. dampings: that gate/up and down took."""

    gate_up: Rounded
    down: Rounded
    dampings: tuple[float, float]


def rounded_expert(
    gate_up: Tensor, down: Tensor, tokens: Tokens, act: Activation, settings: Settings, name: str
) -> RoundedExpert:
    """Round an expert for the tokens routed to it.

    gate_up: float32 [2I, H]. down: float32 [H, I]. tokens: inputs of the expert. name: for errors.
    Raises NonFiniteError for NaN or Inf in weights or inputs.
    """
    inputs = "gate_proj and up_proj" if len(gate_up) > down.shape[1] else "up_proj"
    for part, weight in ((inputs, gate_up), ("down_proj", down)):
        if not bool(weight.isfinite().all()):
            raise NonFiniteError(
                f"{name}: NaN or Inf in {part}", hint="the source is damaged or overflowed in training"
            )
    count = len(tokens.own.x)
    shares = [(1 - settings.four_bit_share, False), (settings.four_bit_share, True)]
    shares = [(share, coarse) for share, coarse in shares if share]
    outer = [(share, tokens.in_four_bits() if coarse else tokens) for share, coarse in shares]
    hessian = _hessian(outer, settings, f"{name}, {inputs}")
    first, damping = rounded_matrix(gate_up, hessian, settings, settings.damping_for(gate_up.shape[1], count))
    values = first.dequantized()
    exact = [(share, seen.through(lambda x: _intermediate(x, values, act))) for share, seen in outer]
    inner = [
        (share, seen.in_four_bits() if coarse else seen)
        for (share, seen), (_, coarse) in zip(exact, shares, strict=True)
    ]
    hessian = _hessian(inner, settings, f"{name}, down_proj")
    target = down
    if settings.compensate:
        wanted = tokens.through(lambda x: _intermediate(x, gate_up, act))
        cross = torch.stack([share * seen.cross(wanted) for share, seen in inner]).sum(0)
        target = corrected(down, hessian, cross, settings.correction_for(down.shape[1], count))
    second, damping_down = rounded_matrix(target, hessian, settings, settings.damping_for(down.shape[1], count))
    return RoundedExpert(first, second, (damping, damping_down))


def output_errors(
    gate_up: Tensor, down: Tensor, rounded_one: RoundedExpert, x: Tensor, act: Activation
) -> tuple[float, float] | None:
    """Relative error of the expert's output on inputs [n, H]: under the max rule, and as rounded. None without inputs,
    or where the output is zero."""
    wanted = _output(x.float(), gate_up, down, act)
    norm = float(wanted.norm())
    if not norm:
        return None
    plain = [nearest_rounded(weight, shared_scale_2(weight, 1.0)).dequantized() for weight in (gate_up, down)]
    ours = rounded_one.gate_up.dequantized(), rounded_one.down.dequantized()
    before, after = (
        float((_output(x.float(), first, second, act) - wanted).norm()) / norm for first, second in (plain, ours)
    )
    return before, after


def _hessian(seen: Sequence[tuple[float, Tokens]], settings: Settings, name: str) -> Tensor:
    whole = torch.stack([share * tokens.moment(name) for share, tokens in seen]).sum(0)
    return whole if settings.compensate else whole.diagonal().diag()


def _intermediate(x: Tensor, gate_up: Tensor, act: Activation) -> Tensor:
    return act(linear(x.float(), gate_up))


def _output(x: Tensor, gate_up: Tensor, down: Tensor, act: Activation) -> Tensor:
    return linear(_intermediate(x, gate_up, act), down)
