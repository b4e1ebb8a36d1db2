"""The observer that calibrates: every linear's input on its way through the model."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from halfbyte.calibrate.blocks import Blocks, Split
from halfbyte.calibrate.histogram import Histogram
from halfbyte.calibrate.inputs import Inputs, Seen
from halfbyte.calibrate.rule import Rule
from halfbyte.formats.nvfp4.format import BLOCK_SIZE
from halfbyte.stream.observer import Observer

GATE_UP, DOWN = "gate_up_proj", "down_proj"
NOTHING = Split(Histogram.empty(), Histogram.empty())


@dataclass(frozen=True)
class LayerSeen:
    """One layer's experts by projection group, in their order, and the blocks of all of them together.

    An expert without tokens is Seen(0, 0, 0).
    """

    gate_up: list[Seen]
    down: list[Seen]
    gate_up_blocks: Split
    down_blocks: Split

    def __add__(self, other: "LayerSeen") -> "LayerSeen":
        return LayerSeen(
            [one + more for one, more in zip(self.gate_up, other.gate_up, strict=True)],
            [one + more for one, more in zip(self.down, other.down, strict=True)],
            _added(self.gate_up_blocks, other.gate_up_blocks),
            _added(self.down_blocks, other.down_blocks),
        )


class Watch(Observer):
    """layers: of the finished MoE layers. linears: the other linears by their names in the checkpoint.

    linear_blocks: their blocks, of those whose rows are whole blocks.
    """

    def __init__(self, num_experts: int, rule: Rule, seed: int = 0, held_out: Sequence[bool] = ()) -> None:
        """held_out: for each sequence, whether it is held out; none is where it says nothing."""
        self._num_experts, self._rule, self._seed = num_experts, rule, seed
        self._is_held_out = torch.tensor(list(held_out), dtype=torch.bool)
        self.layers: dict[int, LayerSeen] = {}
        self.linears: dict[str, Seen] = {}
        self.linear_blocks: dict[str, Split] = {}
        self._experts: dict[tuple[int, str, int], Inputs] = {}
        self._others: dict[str, Inputs] = {}
        self._blocks: dict[tuple[int, str] | str, Blocks] = {}
        self._routed: dict[int, Tensor] = {}
        self._masks: dict[tuple[int, str, int], Tensor] = {}
        self._now = slice(0, 1)

    def sequences(self, layer: int, first: int, last: int) -> None:
        self._now = slice(first, last + 1)

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        """Keeps the tokens of each sequence that each expert gets."""
        self._routed[sequence] = torch.bincount(expert_index.flatten(), minlength=self._num_experts).cpu()

    def expert_input(self, layer: int, expert: int, x: Tensor) -> None:
        self._see_expert(layer, GATE_UP, expert, x)

    def expert_intermediate(self, layer: int, expert: int, x: Tensor) -> None:
        self._see_expert(layer, DOWN, expert, x)

    def linear_input(self, layer: int, module: str, x: Tensor) -> None:
        if module not in self._others:
            self._others[module] = Inputs(module, self._rule, x.device, self._seed)
        self._others[module].see(x)
        rows = x.flatten(0, -2)
        held_out = self._held_out(self._now)
        self._see_blocks(module, rows, held_out.repeat_interleave(len(rows) // len(held_out)))

    def _see_expert(self, layer: int, group: str, expert: int, x: Tensor) -> None:
        key = (layer, group, expert)
        if key not in self._experts:
            name = f"layer {layer}, expert {expert}, {group}"
            self._experts[key] = Inputs(name, self._rule, x.device, self._seed)
        self._experts[key].see(x)
        left = self._masks[key] if key in self._masks else self._held_out_rows(expert)
        self._see_blocks((layer, group), x, left[: len(x)])
        self._masks[key] = left[len(x) :]

    def _see_blocks(self, key: tuple[int, str] | str, x: Tensor, held_out: Tensor) -> None:
        if x.shape[-1] % BLOCK_SIZE:
            return
        if key not in self._blocks:
            self._blocks[key] = Blocks(x.device)
        self._blocks[key].see(x, held_out.to(x.device))

    def _held_out(self, sequences: slice) -> Tensor:
        """bool [n]."""
        known = self._is_held_out[sequences]
        missing = sequences.stop - sequences.start - len(known)
        return torch.cat((known, torch.zeros(missing, dtype=torch.bool))) if missing else known

    def _held_out_rows(self, expert: int) -> Tensor:
        """bool [n], for all rows of an expert in this layer, which come sequence by sequence."""
        numbers = sorted(self._routed)
        flags = torch.cat([self._held_out(slice(i, i + 1)) for i in numbers])
        return flags.repeat_interleave(torch.stack([self._routed[i][expert] for i in numbers]))

    def settle(self) -> None:
        """Reduce what was gathered to numbers; call it after each layer. Raises NonFiniteError."""
        seen = {key: inputs.seen() for key, inputs in self._experts.items()}
        self.linears |= {module: inputs.seen() for module, inputs in self._others.items()}
        splits = {key: blocks.split() for key, blocks in self._blocks.items()}
        for layer in sorted({layer for layer, _, _ in seen}):
            gate_up, down = (
                [seen.get((layer, group, expert), Seen(0, 0.0, 0.0)) for expert in range(self._num_experts)]
                for group in (GATE_UP, DOWN)
            )
            blocks = (splits.get((layer, group), NOTHING) for group in (GATE_UP, DOWN))
            self.layers[layer] = LayerSeen(gate_up, down, *blocks)
        self.linear_blocks |= {key: split for key, split in splits.items() if isinstance(key, str)}
        self._experts, self._others, self._blocks, self._routed, self._masks = {}, {}, {}, {}, {}

    def state(self) -> bytes:
        self.settle()
        layers = {
            str(layer): {
                "gate_up": [asdict(one) for one in seen.gate_up],
                "down": [asdict(one) for one in seen.down],
                "gate_up_blocks": [one.as_json() for one in seen.gate_up_blocks],
                "down_blocks": [one.as_json() for one in seen.down_blocks],
            }
            for layer, seen in self.layers.items()
        }
        linears = {module: asdict(seen) for module, seen in self.linears.items()}
        blocks = {module: [one.as_json() for one in split] for module, split in self.linear_blocks.items()}
        return json.dumps({"layers": layers, "linears": linears, "linear_blocks": blocks}).encode()

    def add(self, state: bytes) -> None:
        """What another Watch of the same rule, `max` or `headroom`, saw of other sequences: exactly what one of all of
        them would have seen."""
        other = Watch(self._num_experts, self._rule)
        other.load(state)
        for layer, seen in other.layers.items():
            own = self.layers.get(layer)
            self.layers[layer] = seen if own is None else own + seen
        for module, one in other.linears.items():
            self.linears[module] = self.linears.get(module, Seen(0, 0.0, 0.0)) + one
        for module, split in other.linear_blocks.items():
            self.linear_blocks[module] = _added(self.linear_blocks.get(module, NOTHING), split)

    def load(self, state: bytes) -> None:
        document: dict[str, Any] = json.loads(state)
        self.linears = {module: Seen(**seen) for module, seen in document["linears"].items()}
        self.linear_blocks = {module: _split(parts) for module, parts in document["linear_blocks"].items()}
        self.layers = {
            int(layer): LayerSeen(
                gate_up=[Seen(**one) for one in groups["gate_up"]],
                down=[Seen(**one) for one in groups["down"]],
                gate_up_blocks=_split(groups["gate_up_blocks"]),
                down_blocks=_split(groups["down_blocks"]),
            )
            for layer, groups in document["layers"].items()
        }


def _added(one: Split, other: Split) -> Split:
    return Split(*(mine + theirs for mine, theirs in zip(one, other, strict=True)))


def _split(parts: list[dict[str, Any]]) -> Split:
    return Split(*(Histogram.from_json(part) for part in parts))
