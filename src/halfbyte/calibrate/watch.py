"""The observer that calibrates: every linear's input on its way through the model."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from halfbyte.calibrate.inputs import Inputs, Seen
from halfbyte.calibrate.rule import Rule
from halfbyte.stream.observer import Observer

GATE_UP, DOWN = "gate_up_proj", "down_proj"


@dataclass
class LayerSeen:
    """One layer's experts by projection group, in their order. An expert without tokens is Seen(0, 0, 0)."""

    gate_up: list[Seen]
    down: list[Seen]


class Watch(Observer):
    """layers: of the finished MoE layers. linears: the other linears by their names in the checkpoint."""

    def __init__(self, num_experts: int, rule: Rule, seed: int = 0) -> None:
        self._num_experts, self._rule, self._seed = num_experts, rule, seed
        self.layers: dict[int, LayerSeen] = {}
        self.linears: dict[str, Seen] = {}
        self._experts: dict[tuple[int, str, int], Inputs] = {}
        self._others: dict[str, Inputs] = {}

    def expert_input(self, layer: int, expert: int, x: Tensor) -> None:
        self._see_expert(layer, GATE_UP, expert, x)

    def expert_intermediate(self, layer: int, expert: int, x: Tensor) -> None:
        self._see_expert(layer, DOWN, expert, x)

    def linear_input(self, layer: int, module: str, x: Tensor) -> None:
        if module not in self._others:
            self._others[module] = Inputs(module, self._rule, x.device, self._seed)
        self._others[module].see(x)

    def _see_expert(self, layer: int, group: str, expert: int, x: Tensor) -> None:
        key = (layer, group, expert)
        if key not in self._experts:
            name = f"layer {layer}, expert {expert}, {group}"
            self._experts[key] = Inputs(name, self._rule, x.device, self._seed)
        self._experts[key].see(x)

    def settle(self) -> None:
        """Reduce what was gathered to numbers; call it after each layer. Raises NonFiniteError."""
        seen = {key: inputs.seen() for key, inputs in self._experts.items()}
        for layer in sorted({layer for layer, _, _ in seen}):
            groups = [
                [seen.get((layer, group, expert), Seen(0, 0.0, 0.0)) for expert in range(self._num_experts)]
                for group in (GATE_UP, DOWN)
            ]
            self.layers[layer] = LayerSeen(*groups)
        self.linears |= {module: inputs.seen() for module, inputs in self._others.items()}
        self._experts, self._others = {}, {}

    def state(self) -> bytes:
        self.settle()
        layers = {str(layer): asdict(seen) for layer, seen in self.layers.items()}
        linears = {module: asdict(seen) for module, seen in self.linears.items()}
        return json.dumps({"layers": layers, "linears": linears}).encode()

    def load(self, state: bytes) -> None:
        document: dict[str, Any] = json.loads(state)
        self.linears = {module: Seen(**seen) for module, seen in document["linears"].items()}
        self.layers = {
            int(layer): LayerSeen(*([Seen(**one) for one in groups[name]] for name in ("gate_up", "down")))
            for layer, groups in document["layers"].items()
        }
