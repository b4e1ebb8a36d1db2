"""Killed after any layer, a run with a work folder goes on behind it and gives the same bits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from halfbyte.errors import OutputError
from halfbyte.progress import Silent
from halfbyte.stream.executor import Streamed
from halfbyte.stream.observer import Observer
from stream.models import checkpoint, sequences, streamed_logits

BUDGET = 10_000_000_000


class Counts(Observer):
    """Tokens routed to each expert so far. `stop`: layer in the middle of which the process kills itself."""

    def __init__(self, stop: int = -1) -> None:
        self.counts = torch.zeros(5, 4, dtype=torch.int64)
        self._stop = stop

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        self.counts[layer] += torch.bincount(expert_index.flatten(), minlength=4)
        if layer == self._stop and sequence == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    def state(self) -> bytes:
        return self.counts.numpy().tobytes()

    def load(self, state: bytes) -> None:
        self.counts = torch.frombuffer(bytearray(state), dtype=torch.int64).view(5, 4)


KILLED = """
import sys
from stream.models import checkpoint, sequences, streamed_logits
from stream.test_resume import Counts, spilling
from pathlib import Path
streamed_logits(Path(sys.argv[1]), sequences(), Counts(stop=4), work=Path(sys.argv[2]), **spilling(sys.argv[3]))
"""


def spilling(where: str) -> dict[str, int]:
    """Options that put activations into memory or into files."""
    if where == "file":
        from halfbyte.stream import budget

        budget._placed = lambda sizes, room, place: []  # nothing fits
        return {"memory_budget": BUDGET}
    return {}


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_killed_run_goes_on_behind_its_last_layer(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, work = checkpoint(), tmp_path / "work"
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", KILLED, str(folder), str(work), where]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == -signal.SIGKILL

    monkeypatch.setattr("halfbyte.stream.budget._placed", (lambda *_: []) if where == "file" else _all_fit)
    whole, resumed = Counts(), Counts()
    wanted = streamed_logits(folder, sequences(), whole, memory_budget=BUDGET if where == "file" else None)
    with Streamed.open(folder, work=work, memory_budget=BUDGET if where == "file" else None) as model:
        model.start(sequences())
        assert model.next_layer == 4
        assert model.step(resumed) == 4
        got = [model.logits(i, 0, len(row)) for i, row in enumerate(sequences())]
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert torch.equal(resumed.counts, whole.counts)
    assert whole.counts[3].sum() > 0


def _all_fit(sizes: list[int], room: float, place: str) -> list[str]:
    return [place] * len(sizes)


def test_another_job_does_not_go_on_from_it(tmp_path: Path) -> None:
    ids = sequences()
    streamed_logits(checkpoint(), ids, work=tmp_path)
    for other, key in ((ids[:2], ""), (ids, "other options")):
        with Streamed.open(checkpoint(), work=tmp_path) as model:
            model.start(other, key=key)
            assert model.next_layer == 0


def test_a_finished_run_is_done_at_once_and_keeps_no_activations(tmp_path: Path) -> None:
    seen, again = Counts(), Counts()
    with Streamed.open(checkpoint(), work=tmp_path) as model:
        model.start(sequences())
        while model.next_layer < model.layers:
            model.step(seen)
        model.finish()
    assert not list(tmp_path.glob("hidden-*"))
    with Streamed.open(checkpoint(), work=tmp_path) as model:
        model.start(sequences())
        assert model.next_layer == model.layers
        model.restore(again)
    assert torch.equal(again.counts, seen.counts)


def test_two_runs_do_not_share_a_work_folder(tmp_path: Path) -> None:
    with Streamed.open(checkpoint(), work=tmp_path) as model, Streamed.open(checkpoint(), work=tmp_path) as other:
        model.start(sequences())
        with pytest.raises(OutputError, match="another run"):
            other.start(sequences())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("damaged", ["hidden-", "selection-", "observer-", "state.json"])
@pytest.mark.parametrize("gone", [False, True], ids=["flipped", "gone"])
def test_what_is_damaged_is_named_and_the_run_starts_again(tmp_path: Path, damaged: str, gone: bool) -> None:
    ids, whole = sequences(), Counts()
    wanted = streamed_logits(checkpoint(), ids, whole)
    with Streamed.open(checkpoint(), work=tmp_path) as model:
        model.start(ids)
        seen = Counts()
        for _ in range(3):
            model.step(seen)
    named = [*json.loads((tmp_path / "state.json").read_text())["sums"], "state.json"]
    (path,) = [tmp_path / name for name in named if name.startswith(damaged)]
    if gone:
        path.unlink()
    else:
        flip(path)
    notes, again = Notes(), Counts()
    with Streamed.open(checkpoint(), work=tmp_path, progress=notes) as model:
        model.start(ids)
        assert model.next_layer == 0
        while model.next_layer < model.layers:
            model.step(again)
        got = [model.logits(i, 0, len(row)) for i, row in enumerate(ids)]
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert torch.equal(again.counts, whole.counts)
    if not (gone and damaged == "state.json"):  # without a state there is no run to speak of
        (note,) = notes.notes
        assert path.name in note
        assert "starts again from the first layer" in note
