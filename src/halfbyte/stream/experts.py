"""The loop over the routed experts of a layer: expert after expert in ascending order, each over all its tokens.

A token's results add up in that order too, as in transformers' own loop, and a sequence's rows are multiplied together
and apart from those of others. That makes float32 results on a CPU the same bits as the whole model's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from halfbyte.formats.nvfp4 import torch as values
from halfbyte.stream.observer import Observer
from halfbyte.stream.routing import ExpertRows
from halfbyte.stream.rows import Rows
from halfbyte.stream.weights import ActivationScales, ExpertWeights


def replaced(
    weights: ExpertWeights, rows: ExpertRows, inputs: Rows, layer: int, expert: int, observer: Observer
) -> ExpertWeights:
    """The weights that compute: the observer's, if it has others."""
    if not observer.wants("expert"):
        return weights
    others = observer.expert(layer, expert, inputs.gather(rows.token), rows, weights.gate_up, weights.down)
    if others is None:
        return weights
    dtype = weights.gate_up.dtype
    return ExpertWeights(others[0].to(dtype), others[1].to(dtype))


def run_expert(
    weights: ExpertWeights,
    scales: ActivationScales,
    act: Callable[[Tensor], Tensor],
    rows: ExpertRows,
    inputs: Rows,
    outputs: Rows,
    together: int | None,
    look: Callable[[str, Tensor], None] = lambda name, x: None,
) -> None:
    """Add one expert's weighted results to `outputs`.

    together: rows multiplied at a time; None for each sequence alone. look: told `expert_input` and
    `expert_intermediate` of each part.
    """
    for part in rows.chunks(together):
        token = rows.token[part]
        x = inputs.gather(token)
        look("expert_input", x)
        gate, up = linear(_rounded(x, scales.gate_up), weights.gate_up).chunk(2, dim=-1)
        x = act(gate) * up
        look("expert_intermediate", x)
        x = linear(_rounded(x, scales.down), weights.down)
        outputs.add(token, x * rows.weight[part, None])


def _rounded(x: Tensor, scale: Tensor | None) -> Tensor:
    """Activations as a Blackwell engine would see them, in a4-sim."""
    return x if scale is None else values.fake_quantized(x, scale).to(x.dtype)


def looker(observer: Observer, layer: int, expert: int) -> Callable[[str, Tensor], None]:
    """Passes on what the observer wants to see."""
    wanted: dict[str, Any] = {
        name: getattr(observer, name) for name in ("expert_input", "expert_intermediate") if observer.wants(name)
    }

    def look(name: str, x: Tensor) -> None:
        if name in wanted:
            wanted[name](layer, expert, x)

    return look


def device_rows(device: torch.device) -> int | None:
    """How many rows an expert multiplies at a time: on a CPU a sequence's, so that results are transformers' bits."""
    return None if device.type == "cpu" else 32_768
