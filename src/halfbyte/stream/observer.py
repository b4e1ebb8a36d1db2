"""What a pass over a model may look at, and change. Subclass `Observer` and override what is wanted.

A method that is left alone costs nothing: the executor asks `wants` before it prepares an argument. All tensors are
on the executor's device, in its compute dtype unless said otherwise, and must not be kept (copy what is needed).
"""

from torch import Tensor

from halfbyte.stream.routing import ExpertRows


class Observer:
    """Sees a layer while it is computed, always in the same order: routing first, then expert after expert.

    side_by_side: how many experts may be asked about (`expert`) at a time, each in a thread; all else is told in order.
    """

    side_by_side = 1

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        """Chosen experts of one sequence. expert_index: int64 [T, top_k]."""

    def moe_input(self, layer: int, sequence: int, x: Tensor, energy: Tensor) -> None:
        """Input [T, H] of a layer's experts, all tokens of one sequence: before any expert runs.

        energy: float32 [T], mean square of the residual that the experts' output is added to.
        """

    def selection(self, layer: int, sequence: int, indices: Tensor) -> None:
        """Keys that the indexer of a layer selects; not called where a layer shares an earlier selection.

        indices: int [T, at most index_topk], -1 for none, in no particular order.
        """

    def sequences(self, layer: int, first: int, last: int) -> None:
        """What follows, up to the next call, belongs to sequences `first` to `last`, which are equally long.

        Comes before `router`, `moe_input`, `selection` and `linear_input`; experts see all sequences one by one.
        """

    def linear_input(self, layer: int, module: str, x: Tensor) -> None:
        """Input [..., K] of a linear outside the routed experts; once for each sequence or part of one.

        module: its name in the checkpoint, such as `model.layers.3.mlp.shared_experts.down_proj`. Not called for
        `kv_b_proj` of sequences that take the sparse attention, which absorbs it into its neighbours.
        """

    def expert_input(self, layer: int, expert: int, x: Tensor) -> None:
        """Input [n, H] of gate_proj and up_proj, in parts that together are all tokens routed to the expert.

        H: of the experts, narrower than the model's where they work in a space of their own.
        """

    def expert(
        self, layer: int, expert: int, hidden: Tensor, rows: ExpertRows, gate_up: Tensor, down: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Once for every expert of the model, also one without tokens: all its inputs at once and its weights.

        hidden: [n, H]. rows: which tokens these are, and their router weights. gate_up: [2I, H], gate rows first; up
        alone, [I, H], in experts without a gate. down: [H, I]. Weights that it returns (same shapes) take the place of
        the model's own: they compute this layer's output, which the next layer sees.
        """
        return None

    def expert_intermediate(self, layer: int, expert: int, x: Tensor) -> None:
        """Input [n, I] of down_proj, such as act(gate) * up, in the same parts and order as `expert_input`."""

    def state(self) -> bytes:
        """Everything gathered so far; kept with each finished layer so that a run can go on after a kill."""
        return b""

    def load(self, state: bytes) -> None:
        """Go on from what `state` returned when the last finished layer was finished."""

    def wants(self, method: str) -> bool:
        """Whether `method` is overridden."""
        return getattr(type(self), method) is not getattr(Observer, method)
