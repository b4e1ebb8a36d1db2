"""The loop over the routed experts of a layer: expert after expert in ascending order, each over all its tokens.

A token's results add up in that order too, as in transformers' own loop, and a sequence's rows are multiplied together
and apart from those of others. That makes float32 results on a CPU the same bits as the whole model's.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import linear

from halfbyte.formats.nvfp4 import torch as values
from halfbyte.modules.experts import Biases
from halfbyte.stream.observer import Observer
from halfbyte.stream.routing import ExpertRows
from halfbyte.stream.rows import Rows
from halfbyte.stream.weights import ActivationScales, ExpertWeights


class Asked:
    """The weights that compute, expert by expert: the observer's, if it has others. As many experts are with the
    observer at a time as it allows; they come back in order."""

    def __init__(self, layer: int, inputs: Rows, observer: Observer) -> None:
        self._layer, self._inputs, self._observer = layer, inputs, observer
        self._most = observer.side_by_side if observer.wants("expert") else 1
        self._pool = ThreadPoolExecutor(self._most) if self._most > 1 else None
        self._waiting: deque[tuple[Any, Future[ExpertWeights]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def put(
        self, expert: int, weights: ExpertWeights, rows: ExpertRows, beside: Any
    ) -> Iterator[tuple[Any, ExpertWeights]]:
        """Hand one over; what is due comes back with what was put `beside` it."""
        if self._pool is None:
            yield beside, self._answer(expert, weights, rows, None)
            return
        hidden = self._inputs.gather(rows.token)
        self._waiting.append((beside, self._pool.submit(self._answer, expert, weights, rows, hidden)))
        if len(self._waiting) >= self._most:
            yield self._first()

    def rest(self) -> Iterator[tuple[Any, ExpertWeights]]:
        while self._waiting:
            yield self._first()

    def _first(self) -> tuple[Any, ExpertWeights]:
        beside, future = self._waiting.popleft()
        return beside, future.result()

    def _answer(self, expert: int, weights: ExpertWeights, rows: ExpertRows, hidden: Tensor | None) -> ExpertWeights:
        if not self._observer.wants("expert"):
            return weights
        given = self._inputs.gather(rows.token) if hidden is None else hidden
        with torch.no_grad():  # a setting of each thread
            others = self._observer.expert(self._layer, expert, given, rows, weights.gate_up, weights.down)
        if others is None:
            return weights
        dtype = weights.gate_up.dtype
        return ExpertWeights(others[0].to(dtype), others[1].to(dtype))


def run_expert(
    weights: ExpertWeights,
    scales: ActivationScales,
    join: Callable[[Tensor], Tensor],
    rows: ExpertRows,
    inputs: Rows,
    outputs: Rows,
    together: int | None,
    look: Callable[[str, Tensor], None] = lambda name, x: None,
    biases: Biases = Biases(),  # noqa: B008  frozen
) -> None:
    """Add one expert's weighted results to `outputs`.

    join: gate and up [n, 2I] to the intermediate [n, I]. together: rows multiplied at a time; None for each sequence
    alone. look: told `expert_input` and `expert_intermediate` of each part.
    """
    for part in rows.chunks(together):
        token = rows.token[part]
        x = inputs.gather(token)
        look("expert_input", x)
        x = join(_added(linear(_rounded(x, scales.gate_up), weights.gate_up), biases.gate_up))
        look("expert_intermediate", x)
        x = _added(linear(_rounded(x, scales.down), weights.down), biases.down)
        outputs.add(token, x * rows.weight[part, None])


def run_scored_expert(
    weights: ExpertWeights,
    scales: ActivationScales,
    join: Callable[[Tensor], Tensor],
    rows: ExpertRows,
    inputs: Rows,
    outputs: Rows,
    together: int | None,
    look: Callable[[str, Tensor], None] = lambda name, x: None,
) -> None:
    """As `run_expert`, where scores multiply what an expert is given (Llama 4). weights: as their inputs lie down.

    On a CPU an expert takes all tokens of a sequence, zeros where it was not chosen, and a product of batches: as
    transformers' module, for how many rows there are decides how a GEMM rounds. That module adds up the experts in
    parts of 16; two results of a token, or one, come to the same bits in any order.
    """
    for part in rows.chunks(together):
        token = rows.token[part]
        x = inputs.gather(token) * rows.weight[part, None]
        look("expert_input", x)
        own: Tensor | slice = slice(None)
        if together is None:
            sequence = bisect_right(inputs.offsets, int(token[0])) - 1
            own = token - inputs.offsets[sequence]
            length = inputs.offsets[sequence + 1] - inputs.offsets[sequence]
            x = x.new_zeros(length, x.shape[1]).index_copy(0, own, x)
        x = join(_from_right(_rounded(x, scales.gate_up), weights.gate_up))
        look("expert_intermediate", x[own])
        outputs.add(token, _from_right(_rounded(x, scales.down), weights.down)[own])


def add_themselves(rows: ExpertRows, inputs: Rows, outputs: Rows) -> None:
    """What an expert without weights does: its tokens as they are, times their scores."""
    for part in rows.parts:
        token = rows.token[part]
        outputs.add(token, inputs.gather(token) * rows.weight[part, None])


def _from_right(x: Tensor, weight: Tensor) -> Tensor:
    """x [n, K] times a stack's matrix [K, N], given as its transpose."""
    return torch.bmm(x.unsqueeze(0), weight.t().unsqueeze(0)).squeeze(0)


def _rounded(x: Tensor, scale: Tensor | None) -> Tensor:
    """Activations as a Blackwell engine would see them, in a4-sim."""
    return x if scale is None else values.fake_quantized(x, scale).to(x.dtype)


def _added(x: Tensor, bias: Tensor | None) -> Tensor:
    return x if bias is None else x + bias


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
