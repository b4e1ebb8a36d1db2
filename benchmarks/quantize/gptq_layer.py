"""GPTQ rounding of one full-size MoE layer: seconds per expert and per layer, by step.

    python -m benchmarks.quantize.gptq_layer            GLM-5.2: 256 experts of 6144 x 2048, 32,768 tokens, top-8 (CUDA)
    python -m benchmarks.quantize.gptq_layer --smoke    small shapes on a CPU, to see that it runs

Weights and inputs are random, made on the fly; every expert gets tokens * top_k / experts rows. Steps: `moments`
(second moments of its inputs and of the layer's sample), `factor` (Cholesky and its blocks), `correction` (least
squares of down_proj), `rounding` (column loop and descent, scales included), `rest` (the expert on its inputs,
mixtures). The layer's figure is the mean of the experts timed, times all experts.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.functional import silu

from benchmarks.table import record, show
from halfbyte.quantize.rounding import expert, graph, hessian, matrix, passes, tokens
from halfbyte.quantize.rounding.settings import Settings


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


STEPS = {
    "moments": [(hessian, "cross_moment"), (tokens, "cross_moment")],
    "factor": [(matrix, "factorised"), (matrix, "damped"), (matrix, "diagonal_blocks")],
    "correction": [(expert, "corrected")],
    "rounding": [(graph if torch.cuda.is_available() else passes, "rounded_grid")],
}
"""Where the work of each step is done; each place is timed."""


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return silu(gate) * up


def timed(function: Callable[..., Any], name: str, clock: Clock) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        with clock.step(name):
            return function(*arguments)

    return run


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--smoke", action="store_true")
    options.add_argument("--experts", type=int, default=256)
    options.add_argument("--timed", type=int, default=8, help="experts that are really rounded")
    options.add_argument("--hidden", type=int, default=6144)
    options.add_argument("--width", type=int, default=2048)
    options.add_argument("--tokens", type=int, default=32_768)
    options.add_argument("--sweeps", type=int, default=Settings().sweeps)
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.experts, chosen.timed, chosen.hidden, chosen.width, chosen.tokens = 8, 2, 128, 64, 256
    device = torch.device("cpu" if chosen.smoke or not torch.cuda.is_available() else "cuda")
    settings = Settings(sweeps=chosen.sweeps)
    torch.manual_seed(0)
    rows = chosen.tokens * 8 // chosen.experts
    clock = Clock(device)
    for name, places in STEPS.items():
        for module, function in places:
            setattr(module, function, timed(getattr(module, function), name, clock))
    normal, uniform = partial(torch.randn, device=device), partial(torch.rand, device=device)
    with torch.no_grad():
        sample = normal(min(settings.sample_tokens, chosen.tokens), chosen.hidden)
        layer = hessian.Inputs(sample, uniform(len(sample)))
        for number in range(chosen.timed + 1):
            if number == 1:  # the first compiles, captures, fills the allocator and makes the layer's moment
                clock.seconds.clear()
            gate_up = normal(2 * chosen.width, chosen.hidden) * 0.02
            down = normal(chosen.hidden, chosen.width) * 0.02
            own = hessian.Inputs(normal(rows, chosen.hidden), uniform(rows))
            with clock.step("total"):
                seen = tokens.Tokens(own, layer, settings.prior_tokens)
                expert.rounded_expert(gate_up, down, seen, swiglu, settings, "expert")
    clock.seconds["rest"] = 2 * clock.seconds["total"] - sum(clock.seconds.values())
    per_expert = {name: seconds / chosen.timed for name, seconds in clock.seconds.items() if name != "total"}
    by_step = {name: seconds * chosen.experts for name, seconds in per_expert.items()}
    cells = [[name, f"{per_expert.get(name, 0):.4f}", f"{seconds:.2f}"] for name, seconds in by_step.items()]
    cells.append(["total", f"{sum(per_expert.values()):.4f}", f"{sum(by_step.values()):.2f}"])
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    show(
        f"{chosen.experts} experts of {chosen.hidden} x {chosen.width}, {chosen.tokens} tokens, {where}",
        ["step", "seconds per expert", "seconds per layer"],
        cells,
    )
    if not chosen.smoke:
        record("gptq_layer", vars(chosen) | {"device": where, "torch": torch.__version__, "layer_seconds": by_step})


if __name__ == "__main__":
    main()
