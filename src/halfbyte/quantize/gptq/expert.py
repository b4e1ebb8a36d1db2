"""One expert: gate and up together, then down on what the rounded gate and up give it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import linear

from halfbyte.errors import NonFiniteError
from halfbyte.quantize.gptq.columns import Rounded, nearest_rounded, rounded
from halfbyte.quantize.gptq.descent import descended
from halfbyte.quantize.gptq.factor import factorised
from halfbyte.quantize.gptq.grid import shared_scale_2
from halfbyte.quantize.gptq.hessian import mixed, second_moment
from halfbyte.quantize.gptq.settings import Settings

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RoundedExpert:
    """gate_up: [2I, H], gate rows first. down: [H, I]. dampings: that gate/up and down took."""

    gate_up: Rounded
    down: Rounded
    dampings: tuple[float, float]


def rounded_expert(
    gate_up: Tensor, down: Tensor, inputs: Tensor, sample: Tensor, act: Activation, settings: Settings, name: str
) -> RoundedExpert:
    """Round an expert for the tokens routed to it.

    gate_up: float32 [2I, H]. down: float32 [H, I]. inputs: [n, H], n may be 0. sample: [m, H], of all the layer's
    tokens. name: for errors. Raises NonFiniteError for NaN or Inf in weights or inputs.
    """
    for part, weight in (("gate_proj and up_proj", gate_up), ("down_proj", down)):
        if not bool(weight.isfinite().all()):
            raise NonFiniteError(
                f"{name}: NaN or Inf in {part}", hint="the source is damaged or overflowed in training"
            )
    first, damping = _matrix(gate_up, inputs, sample, settings, f"{name}, gate_proj and up_proj")
    values = first.dequantized()
    inner, inner_sample = (_intermediate(x.float(), values, act) for x in (inputs, sample))
    second, damping_down = _matrix(down, inner, inner_sample, settings, f"{name}, down_proj")
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


def _matrix(weight: Tensor, x: Tensor, sample: Tensor, settings: Settings, name: str) -> tuple[Rounded, float]:
    own = second_moment(x, name)
    prior = second_moment(sample, f"{name} (layer sample)")
    hessian = mixed(own, len(x), prior, settings.prior_tokens if len(sample) else 0)
    factor = factorised(hessian, settings.damping)
    first = rounded(weight, factor, shared_scale_2(weight, settings.headroom))
    return descended(weight, first, hessian, factor.damping, settings.sweeps), factor.damping


def _intermediate(x: Tensor, gate_up: Tensor, act: Activation) -> Tensor:
    gate, up = linear(x, gate_up).chunk(2, dim=-1)
    return act(gate) * up


def _output(x: Tensor, gate_up: Tensor, down: Tensor, act: Activation) -> Tensor:
    return linear(_intermediate(x, gate_up, act), down)
