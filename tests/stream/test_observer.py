"""What observers are shown, and what they may change."""

import torch
from torch import Tensor

from halfbyte.stream.observer import Observer
from halfbyte.stream.routing import ExpertRows
from stream.models import checkpoint, sequences, streamed_logits, whole_logits, whole_model


class Everything(Observer):
    def __init__(self) -> None:
        self.routed: dict[tuple[int, int], Tensor] = {}
        self.selected: dict[tuple[int, int], Tensor] = {}
        self.experts: dict[tuple[int, int], Tensor] = {}
        self.inputs: dict[tuple[int, int], list[Tensor]] = {}
        self.intermediate: dict[tuple[int, int], list[Tensor]] = {}
        self.linears: dict[str, int] = {}

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        self.routed[layer, sequence] = expert_index.clone()

    def selection(self, layer: int, sequence: int, indices: Tensor) -> None:
        self.selected[layer, sequence] = indices.clone()

    def linear_input(self, layer: int, module: str, x: Tensor) -> None:
        assert f"layers.{layer}." in module
        self.linears[module] = self.linears.get(module, 0) + x[..., 0].numel()

    def expert_input(self, layer: int, expert: int, x: Tensor) -> None:
        self.inputs.setdefault((layer, expert), []).append(x.clone())

    def expert(self, layer: int, expert: int, hidden: Tensor, rows: ExpertRows, gate_up: Tensor, down: Tensor) -> None:
        assert rows.importance().shape == hidden.shape[:1]
        assert gate_up.shape == (64, 64)
        assert down.shape == (64, 32)
        self.experts[layer, expert] = hidden.clone()

    def expert_intermediate(self, layer: int, expert: int, x: Tensor) -> None:
        self.intermediate.setdefault((layer, expert), []).append(x.clone())


def test_every_token_is_shown_to_its_experts_once() -> None:
    ids, seen = sequences(), Everything()
    streamed_logits(checkpoint(), ids, seen)
    tokens = sum(len(row) for row in ids)
    assert sorted(seen.routed) == [(layer, i) for layer in (3, 4) for i in range(len(ids))]
    for layer in (3, 4):
        chosen = torch.cat([seen.routed[layer, i] for i in range(len(ids))])
        assert chosen.shape == (tokens, 2)
        for expert in range(4):
            count = int((chosen == expert).sum())
            assert seen.experts[layer, expert].shape == (count, 64)
            if count:
                assert torch.equal(torch.cat(seen.inputs[layer, expert]), seen.experts[layer, expert])
                assert torch.cat(seen.intermediate[layer, expert]).shape == (count, 32)
    assert seen.linears["model.layers.0.mlp.down_proj"] == tokens
    assert seen.linears["model.layers.4.mlp.shared_experts.gate_proj"] == tokens
    assert seen.linears["model.layers.4.self_attn.o_proj"] == tokens


def test_selections_are_the_indexers_own_without_the_future() -> None:
    ids, seen, own = sequences(), Everything(), []
    model = whole_model(checkpoint())
    model.model.layers[2].self_attn.indexer.register_forward_hook(lambda _, __, output: own.append(output[0]))
    with torch.no_grad():
        for row in ids:
            model(row[None], use_cache=False)
    for attention in ("eager", "sparse"):
        streamed_logits(checkpoint(), ids, seen, attention=attention)
        assert {layer for layer, _ in seen.selected} == {0, 1, 2}
        for sequence, theirs in enumerate(own):
            ours = seen.selected[2, sequence]
            for position in range(len(ids[sequence])):
                wanted = {int(key) for key in theirs[position] if key <= position}
                got = [int(key) for key in ours[position] if key >= 0]
                assert len(got) == len(set(got))
                assert set(got) == wanted


def test_weights_that_an_observer_returns_compute() -> None:
    class Halves(Observer):
        def expert(
            self, layer: int, expert: int, hidden: Tensor, rows: ExpertRows, gate_up: Tensor, down: Tensor
        ) -> tuple[Tensor, Tensor] | None:
            return (gate_up * 2, down * 3) if (layer, expert) != (4, 0) else None

    ids = sequences()
    model = whole_model(checkpoint())
    with torch.no_grad():
        for layer in (3, 4):
            experts = model.model.layers[layer].mlp.experts
            first = 0 if layer == 3 else 1
            experts.gate_up_proj[first:] *= 2
            experts.down_proj[first:] *= 3
        wanted = [model(row[None], use_cache=False).logits[0] for row in ids]
    plain = whole_logits(checkpoint(), ids)
    for got, want, before in zip(streamed_logits(checkpoint(), ids, Halves()), wanted, plain, strict=True):
        assert torch.equal(got, want)
        assert not torch.equal(got, before)


def test_an_observer_is_asked_for_nothing_that_it_does_not_override() -> None:
    class Router(Observer):
        def router(self, layer: int, sequence: int, expert_index: Tensor) -> None: ...

    observer = Router()
    assert [name for name in ("router", "selection", "expert", "state") if observer.wants(name)] == ["router"]
