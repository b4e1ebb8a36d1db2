"""GPTQ rounding of one full-size MoE layer: seconds per expert and per layer, by step.

    python benchmarks/gptq_layer.py                 GLM-5.2: 256 experts of 6144 x 2048, 32,768 tokens, top-8 (CUDA)
    python benchmarks/gptq_layer.py --smoke         small shapes on a CPU, to see that it runs

Weights and inputs are random, made on the fly; every expert gets tokens * top_k / experts rows. Steps: `hessian` (its
inputs' and the layer sample's second moments, their mixture), `factor` (Cholesky and its blocks), `columns` (the
column loop, scales included), `descent` (block coordinate descent), `intermediate` (the expert on its inputs).
The layer's figure is the mean of the experts timed, times all experts. --compile: the 16-column block by
torch.compile, compiled before the clock starts.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from table import record, show
from torch import Tensor
from torch.nn.functional import linear, silu

from halfbyte.quantize.gptq import columns, descent
from halfbyte.quantize.gptq.factor import factorised
from halfbyte.quantize.gptq.grid import shared_scale_2
from halfbyte.quantize.gptq.hessian import mixed, second_moment
from halfbyte.quantize.gptq.settings import Settings


class Clock:
    """Seconds by step, with the device waited for at both ends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._wait()
        began = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] += time.perf_counter() - began

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def matrix(weight: Tensor, x: Tensor, prior: Tensor, settings: Settings, clock: Clock) -> Tensor:
    with clock.step("hessian"):
        hessian = mixed(second_moment(x, "x"), len(x), prior, settings.prior_tokens)
    with clock.step("factor"):
        factor = factorised(hessian, settings.damping)
    with clock.step("columns"):
        first = columns.rounded(weight, factor, shared_scale_2(weight, settings.headroom))
    with clock.step("descent"):
        last = descent.descended(weight, first, hessian, factor.damping, settings.sweeps)
    return last.dequantized()


def expert(hidden: int, width: int, rows: int, sample: Tensor, prior: Tensor, settings: Settings, clock: Clock) -> None:
    """One expert, made and rounded. The layer-wide prior of gate/up is made once a layer."""
    gate_up = torch.randn(2 * width, hidden, device=sample.device) * 0.02
    down = torch.randn(hidden, width, device=sample.device) * 0.02
    x = torch.randn(rows, hidden, device=sample.device)
    values = matrix(gate_up, x, prior, settings, clock)
    with clock.step("intermediate"):
        inner, inner_sample = (silu(gate) * up for gate, up in (linear(y, values).chunk(2, -1) for y in (x, sample)))
    with clock.step("hessian"):
        own_prior = second_moment(inner_sample, "sample")
    matrix(down, inner, own_prior, settings, clock)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--smoke", action="store_true")
    options.add_argument("--experts", type=int, default=256)
    options.add_argument("--timed", type=int, default=8, help="experts that are really rounded")
    options.add_argument("--hidden", type=int, default=6144)
    options.add_argument("--width", type=int, default=2048)
    options.add_argument("--tokens", type=int, default=32_768)
    options.add_argument("--sweeps", type=int, default=Settings().sweeps)
    options.add_argument("--compile", action="store_true")
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.experts, chosen.timed, chosen.hidden, chosen.width, chosen.tokens = 8, 2, 128, 64, 256
    device = torch.device("cpu" if chosen.smoke or not torch.cuda.is_available() else "cuda")
    if chosen.compile:
        columns._columns = torch.compile(columns._columns, dynamic=False)
    settings = Settings(sweeps=chosen.sweeps)
    torch.manual_seed(0)
    rows = chosen.tokens * 8 // chosen.experts
    with torch.no_grad():
        sample = torch.randn(min(settings.sample_tokens, chosen.tokens), chosen.hidden, device=device)
        clock = Clock(device)
        with clock.step("layer prior"):
            prior = second_moment(sample, "sample")
        arguments = chosen.hidden, chosen.width, rows, sample, prior, settings
        expert(*arguments, Clock(device))  # compiles, and fills the allocator
        timed = Clock(device)
        for _ in range(chosen.timed):
            expert(*arguments, timed)
    per_expert = {name: seconds / chosen.timed for name, seconds in timed.seconds.items()}
    layer = {name: seconds * chosen.experts for name, seconds in per_expert.items()} | clock.seconds
    cells = [[name, f"{per_expert.get(name, 0):.4f}", f"{seconds:.2f}"] for name, seconds in layer.items()]
    cells.append(["total", f"{sum(per_expert.values()):.4f}", f"{sum(layer.values()):.2f}"])
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    show(
        f"{chosen.experts} experts of {chosen.hidden} x {chosen.width}, {chosen.tokens} tokens, {where}",
        ["step", "seconds per expert", "seconds per layer"],
        cells,
    )
    if not chosen.smoke:
        record("gptq_layer", vars(chosen) | {"device": where, "torch": torch.__version__, "layer_seconds": layer})


if __name__ == "__main__":
    main()
