"""Activations in files: the same bits, the budget kept or refused."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from halfbyte.errors import OutputError, UsageError
from halfbyte.stream.executor import Streamed
from halfbyte.stream.routing import Routing
from halfbyte.stream.rows import Rows
from stream.models import checkpoint, sequences, streamed_logits

CPU = torch.device("cpu")


@settings(max_examples=30, deadline=None)
@given(data=st.data(), lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_rows_in_a_file_are_rows_in_memory(data: st.DataObject, lengths: list[int]) -> None:
    import tempfile

    offsets = [0]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    total = offsets[-1]
    with tempfile.TemporaryDirectory() as folder:
        both = [
            Rows(offsets, 3, torch.float32, "memory", CPU),
            Rows(offsets, 3, torch.float32, "file", CPU, Path(folder) / "rows"),
        ]
        content = torch.arange(total * 3, dtype=torch.float32).view(total, 3)
        index = torch.tensor(data.draw(st.permutations(range(total)))[: total // 2], dtype=torch.int64)
        for rows in both:
            rows.zero()
            for number in range(len(lengths)):
                rows.write(content[offsets[number] : offsets[number + 1]], number)
            rows.add(index, torch.full((len(index), 3), 0.5))
            if rows._map is not None:
                rows._let_go()
        assert torch.equal(both[0].data, both[1].data)
        assert torch.equal(both[0].gather(index), content[index] + 0.5)
        assert torch.equal(both[0].gather(index), both[1].gather(index))
        both[1].save(Path(folder) / "copy")
        both[0].zero()
        both[0].load(Path(folder) / "copy")
        assert torch.equal(both[0].data, both[1].data)


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5), top_k=st.integers(1, 3), seed=st.integers(0, 99))
def test_routing_visits_rows_as_transformers_does(lengths: list[int], top_k: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    offsets = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    routing = Routing(offsets, 4)
    chosen = [torch.rand(length, 4, generator=random).argsort(-1)[:, :top_k] for length in lengths]
    weights = [torch.rand(length, top_k, generator=random) for length in lengths]
    for number in range(len(lengths)):
        routing.put(number, chosen[number], weights[number], torch.full((lengths[number],), 4.0))
    routing.sort()
    assert int(routing.counts().sum()) == sum(lengths) * top_k
    for expert in range(4):
        rows = routing.expert(expert)
        parts = iter(rows.parts)
        for number, index in enumerate(chosen):
            position, token = torch.where((index == expert).t())
            if len(token):
                part = next(parts)
                assert torch.equal(rows.token[part], token + offsets[number])
                assert torch.equal(rows.weight[part], weights[number][token, position])
        assert next(parts, None) is None


def test_spilled_activations_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = sequences()
    wanted = streamed_logits(checkpoint(), ids)
    monkeypatch.setattr("halfbyte.stream.budget._placed", lambda *_: [])
    monkeypatch.setattr("halfbyte.stream.rows.RESIDENT_BYTES", 1 << 16)
    with Streamed.open(checkpoint(), memory_budget=10_000_000_000, work=tmp_path) as model:
        model.start(ids)
        while model.next_layer < model.layers:
            model.step()
        assert (tmp_path / "rows-inputs").stat().st_size == sum(map(len, ids)) * 64 * 4
        got = [model.logits(i, 0, len(row)) for i, row in enumerate(ids)]
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_budget_that_holds_no_layer_is_refused(tmp_path: Path) -> None:
    with Streamed.open(checkpoint(), memory_budget=1_000_000) as model, pytest.raises(UsageError, match="budget"):
        model.start(sequences())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Streamed.open(checkpoint(), work=tmp_path / "file" / "work") as model, pytest.raises(OutputError):
        model.start(sequences())
