"""Branches: what changes nothing gives the model's own bits, what changes weights those of a changed checkpoint."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from halfbyte.stream.branch import Branch
from halfbyte.stream.executor import Streamed
from halfbyte.stream.observer import Observer
from stream.models import LENGTHS, checkpoint, sequences, whole_model


class Scaled(Branch):
    """Every matrix from its layer on times a power of two. stop: layer in which the process kills itself."""

    def __init__(self, layer: int, factor: float = 1.0, stop: int = -1) -> None:
        super().__init__(layer)
        self._factor, self._stop = factor, stop

    def plain(self, layer: int, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if layer == self._stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return {name: weight * self._factor for name, weight in weights.items()}

    def expert(self, layer: int, gate_up: Tensor, down: Tensor) -> tuple[Tensor, Tensor] | None:
        return gate_up * self._factor, down * self._factor


class Seen(Observer):
    def __init__(self) -> None:
        self.sequences_seen: set[int] = set()
        self.rows = 0

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        self.sequences_seen.add(sequence)

    def expert(self, layer: int, expert: int, hidden: Tensor, rows: object, gate_up: Tensor, down: Tensor) -> None:
        self.rows += len(hidden)


def run(folder: Path, branches: list[Branch], observer: Observer | None = None, **options: Any) -> list[list[Tensor]]:
    """Logits of the model itself and of each branch."""
    ids = sequences()
    with Streamed.open(folder, **options) as model:
        model.start(ids, branches=branches)
        while model.next_layer < model.layers:
            model.step(observer)
        count = len(ids)
        return [
            [model.logits(count * number + i, 0, len(row)) for i, row in enumerate(ids)]
            for number in range(1 + len(branches))
        ]


@pytest.mark.parametrize("name", ["GLM-5.2", "Qwen3-30B-A3B", "GLM-4.5-Air", "DeepSeek-V3.2"])
def test_what_changes_nothing_has_the_same_bits(name: str) -> None:
    """From every layer on; indexers, and layers that share what one selected, included."""
    folder = checkpoint(name)
    with Streamed.open(folder) as model:
        layers = model.layers
    own, *others = run(folder, [Branch(layer) if layer % 2 else Scaled(layer) for layer in range(layers)])
    assert len(others) == layers
    for other in others:
        assert all(torch.equal(one, same) for one, same in zip(own, other, strict=True))


@pytest.mark.parametrize("name", ["GLM-5.2", "Qwen3-30B-A3B"])
def test_changed_weights_are_a_changed_model(name: str) -> None:
    folder, first, ids = checkpoint(name), 2, sequences()
    _, found = run(folder, [Scaled(first, 0.5)])
    model = whole_model(folder)
    for layer in model.base_model.layers[first:]:
        for module in layer.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.data *= 0.5
        experts = getattr(layer.mlp, "experts", None)
        for parameter in () if experts is None else experts.parameters():
            parameter.data *= 0.5
    with torch.no_grad():
        wanted = [model(row[None], use_cache=False).logits[0] for row in ids]
    for one, same in zip(wanted, found, strict=True):
        torch.testing.assert_close(one, same, rtol=1e-5, atol=1e-5)


def test_observers_see_the_model_itself_alone() -> None:
    alone, beside = Seen(), Seen()
    run(checkpoint(), [], alone)
    run(checkpoint(), [Scaled(0, 0.5), Scaled(3, 2.0)], beside)
    assert alone.sequences_seen == beside.sequences_seen == set(range(len(LENGTHS)))
    assert alone.rows == beside.rows > 0


KILLED = """
import sys
from pathlib import Path
from stream.models import checkpoint
from stream.test_branch import Scaled, run, spilling
run(Path(sys.argv[1]), [Scaled(1, 0.5, stop=4), Scaled(4, 2.0)], work=Path(sys.argv[2]), **spilling(sys.argv[3]))
"""


def spilling(where: str) -> dict[str, int]:
    """Options that put activations into memory or into files."""
    if where == "file":
        from halfbyte.stream import budget

        budget._placed = lambda sizes, room, place: []  # nothing fits
        return {"memory_budget": 10_000_000_000}
    return {}


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_killed_run_goes_on_with_its_branches(where: str, tmp_path: Path) -> None:
    folder, work = checkpoint(), tmp_path / "work"
    words = [sys.executable, "-c", KILLED, str(folder), str(work), where]
    assert subprocess.run(words, env=os.environ | {"PYTHONPATH": "tests:src"}).returncode == -signal.SIGKILL
    budget: dict[str, Any] = {"memory_budget": 10_000_000_000} if where == "file" else {}
    branches: list[Branch] = [Scaled(1, 0.5), Scaled(4, 2.0)]
    wanted = run(folder, branches)
    with Streamed.open(folder, work=work, **budget) as model:
        model.start(sequences(), branches=branches)
        assert model.next_layer == 4
    found = run(folder, branches, work=work, **budget)
    for one, other in zip(wanted, found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
