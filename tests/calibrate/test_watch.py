"""Whose rows are held out: by sequence, however an expert's inputs are cut into parts."""

import json

import numpy as np
import pytest
import torch
from stream.models import checkpoint, sequences
from torch import Tensor

from halfbyte.calibrate.coverage import Coverage
from halfbyte.calibrate.findings import findings
from halfbyte.calibrate.rule import Rule
from halfbyte.calibrate.watch import Watch
from halfbyte.data.document import Document
from halfbyte.data.documents import Documents
from halfbyte.models import roles_of
from halfbyte.stream.executor import Streamed
from halfbyte.stream.observer import Observer

HELD = [False, True, False, True]


class Kept(Observer):
    """Every input whole, by sequence where that is known."""

    def __init__(self) -> None:
        self.choices: dict[tuple[int, int], Tensor] = {}
        self.experts: dict[tuple[int, str, int], list[Tensor]] = {}
        self.linears: dict[tuple[str, int], Tensor] = {}
        self.now = -1

    def sequences(self, layer: int, first: int, last: int) -> None:
        assert first == last
        self.now = first

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        self.choices[layer, sequence] = expert_index.clone()

    def linear_input(self, layer: int, module: str, x: Tensor) -> None:
        self.linears[module, self.now] = x.clone().flatten(0, -2)

    def expert_input(self, layer: int, expert: int, x: Tensor) -> None:
        self.experts.setdefault((layer, "gate_up", expert), []).append(x.clone())

    def expert_intermediate(self, layer: int, expert: int, x: Tensor) -> None:
        self.experts.setdefault((layer, "down", expert), []).append(x.clone())


def run(observer: Observer) -> None:
    with Streamed.open(checkpoint()) as model:
        model.start(sequences(lengths=(17, 40, 33, 64)))
        while model.next_layer < model.layers:
            model.step(observer)
            if isinstance(observer, Watch):
                observer.settle()


def test_held_out_blocks_are_those_of_held_out_sequences() -> None:
    kept, watch = Kept(), Watch(4, Rule(), held_out=HELD)
    run(kept)
    run(watch)
    for layer, seen in watch.layers.items():
        for group, split in (("gate_up", seen.gate_up_blocks), ("down", seen.down_blocks)):
            wanted: dict[bool, list[Tensor]] = {True: [], False: []}
            for expert in {e for number, name, e in kept.experts if (number, name) == (layer, group)}:
                rows = torch.cat(kept.experts[layer, group, expert])
                counts = [int((kept.choices[layer, i] == expert).sum()) for i in range(4)]
                for held, part in zip(HELD, rows.split(counts), strict=True):
                    wanted[held].append(part)
            for held, histogram in ((False, split.calibration), (True, split.held_out)):
                rows = torch.cat(wanted[held])
                assert histogram.counts.sum() == rows.numel() // 16
                assert histogram.largest == float(rows.abs().max())
    assert {module for module, _ in kept.linears} >= set(watch.linear_blocks)
    for module, split in watch.linear_blocks.items():
        for held, histogram in ((False, split.calibration), (True, split.held_out)):
            rows = torch.cat([kept.linears[module, i] for i in range(4) if HELD[i] == held])
            assert histogram.counts.sum() == rows.numel() // 16
            assert histogram.largest == float(rows.abs().max())


@pytest.mark.parametrize("size", [1, 3, 10])
def test_parts_may_hold_rows_of_several_sequences(size: int) -> None:
    watch = Watch(2, Rule(), held_out=HELD)
    for sequence in range(4):
        watch.router(0, sequence, torch.tensor([[0], [1], [1]]))
    rows = torch.arange(1, 9, dtype=torch.float32)[:, None].expand(8, 16)  # expert 1: two of each sequence
    for part in rows.split(size):
        watch.expert_input(0, 1, part)
    watch.settle()
    split = watch.layers[0].gate_up_blocks
    assert (split.calibration.largest, split.held_out.largest) == (6, 8)
    assert (split.calibration.blocks, split.held_out.blocks) == (4, 4)


def test_sequences_that_are_computed_together() -> None:
    watch = Watch(2, Rule(), held_out=HELD)
    watch.sequences(0, 0, 3)
    x = torch.arange(1, 5, dtype=torch.float32)[:, None, None].expand(4, 5, 32)
    watch.linear_input(0, "whole", x)
    watch.linear_input(0, "flat", x.flatten(0, 1))
    watch.linear_input(0, "odd", torch.ones(4, 5, 24))
    watch.settle()
    assert set(watch.linear_blocks) == {"whole", "flat"}
    assert set(watch.linears) == {"whole", "flat", "odd"}
    for split in watch.linear_blocks.values():
        assert (split.calibration.blocks, split.held_out.blocks) == (20, 20)
        assert (split.calibration.largest, split.held_out.largest) == (3, 4)


def test_what_is_kept_for_a_resumed_run_is_all_of_it() -> None:
    first, again = Watch(4, Rule(), held_out=HELD), Watch(4, Rule(), held_out=HELD)
    run(first)
    again.load(first.state())
    assert again.state() == first.state()
    assert again.layers[3].down_blocks.held_out.blocks > 0


@pytest.mark.parametrize(("outlier", "room"), [(1e3, None), (1e6, "2.8 times")])
def test_a_range_that_does_not_fit_is_said(outlier: float, room: str | None) -> None:
    watch = Watch(1, Rule("headroom"))
    watch.router(3, 0, torch.zeros(50, 1, dtype=torch.int64))
    x = torch.ones(50, 16)
    x[9] = outlier
    watch.expert_input(3, 0, x)
    watch.expert_intermediate(3, 0, torch.ones(50, 16))
    watch.settle()
    roles = roles_of(json.loads((checkpoint() / "config.json").read_text()))
    documents = Documents([Document(np.arange(50), {}, "data", 0)])
    values, about = findings(watch, roles, documents, Coverage(1, {3: [50]}), Rule("headroom"), {})
    wide = [text for text in about.warnings if "window" in text]
    assert len(wide) == (room is not None)
    group = "model.layers.3.mlp.experts.gate_up_proj"
    assert values[group] >= 2 * outlier
    for text in wide:
        assert f"{room} the largest value seen, small blocks of {group} add 12250% to" in text
