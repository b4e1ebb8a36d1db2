"""Stopped at every step there is, gone on with, or given up for another run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import shards
from stream.models import checkpoint
from typer.testing import CliRunner

from halfbyte.api import quantize, verify
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import ShardWriter, hash_file, write_whole
from halfbyte.cli.main import app
from halfbyte.compare.recorded import describes, shard_hashes
from halfbyte.errors import OutputError
from halfbyte.evidence.dossier import Dossier
from halfbyte.gate import judge as gate_module
from halfbyte.gate.hashes import hash_shards
from halfbyte.improve import exchange
from halfbyte.improve import shard_by_shard as run
from halfbyte.quantize import verify as verify_module
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.rounding.store import RoundedExperts
from halfbyte.quantize.staging import put_in_place

from .material import check_loads, copied, evidence, made, write_data

EXPERTS = 8


def improve(out: Path, data: str, **options: Any) -> Any:
    return quantize(checkpoint(), out, rounding="gptq", calibrate=[data], improve=True, **options)


def stopping(real: Callable[..., Any], call: int, after: bool) -> Callable[..., Any]:
    """The function, but Ctrl-C before or after its call of that number."""
    calls = 0

    def stopped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise KeyboardInterrupt
        result = real(*arguments, **named)
        if calls == call:
            raise KeyboardInterrupt
        return result

    return stopped


STEPS: list[tuple[Any, str, int]] = [
    (RoundedExperts, "put", 2),
    (exchange.Exchange, "_write", 1),
    (Journal, "shard_done", 2),
    (exchange.Exchange, "_write_evidence", 1),  # the new hash beside the old one
    (exchange.Exchange, "_write_evidence", 4),  # the new one alone
    (exchange, "put_in_place", 6),
    (exchange.Exchange, "_drop", 2),
    (run, "write_whole", 1),  # the card
    (Dossier, "write", 13),  # the evidence that ends the run
]


@pytest.mark.parametrize("after", [pytest.param(False, marks=pytest.mark.slow), True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name", "call"), STEPS, ids=[f"{name}-{call}" for _, name, call in STEPS])
def test_stopped_at_any_step(
    owner: Any,
    name: str,
    call: int,
    after: bool,
    tmp_path: Path,
    data: str,
    sweep: Path,
    wanted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = copied(sweep, tmp_path / "out")
    monkeypatch.setattr(owner, name, stopping(getattr(owner, name), call, after))
    with pytest.raises(KeyboardInterrupt):
        improve(out, data)
    monkeypatch.undo()
    found = verify(checkpoint(), out)
    assert found.ok, found.mismatches
    assert all(content in (shards(sweep)[name], shards(wanted)[name]) for name, content in shards(out).items())
    if (out / ".halfbyte").exists():
        with pytest.raises(OutputError, match="unfinished run of another job"):
            made(out, rounding="max")
    improve(out, data)
    assert shards(out) == shards(wanted)
    assert evidence(out) == evidence(wanted)
    assert not (out / ".halfbyte").exists()


@pytest.mark.parametrize("after", [1, 4, 7])
def test_no_expert_is_rounded_twice(
    tmp_path: Path, data: str, sweep: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    out, put, done = copied(sweep, tmp_path / "out"), RoundedExperts.put, []

    def counted(self: RoundedExperts, layer: int, expert: int, *rest: Any) -> None:
        put(self, layer, expert, *rest)
        done.append((layer, expert))

    def stopped(self: RoundedExperts, *arguments: Any) -> None:
        if len(done) == after:
            raise KeyboardInterrupt
        counted(self, *arguments)

    monkeypatch.setattr(RoundedExperts, "put", stopped)
    with pytest.raises(KeyboardInterrupt):
        improve(out, data)
    monkeypatch.setattr(RoundedExperts, "put", counted)
    improve(out, data)
    assert len(done) == len(set(done)) == EXPERTS


def test_experts_in_shards_serve_a_pass_that_begins_anew(
    tmp_path: Path, data: str, sweep: Path, wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another memory budget makes the activations anew; what is rounded is taken from where it is by then."""
    out = copied(sweep, tmp_path / "out")
    monkeypatch.setattr(run, "write_whole", stopping(write_whole, 1, False))
    with pytest.raises(KeyboardInterrupt):
        improve(out, data)
    monkeypatch.undo()

    def never(*_: Any) -> None:
        raise AssertionError("rounded again")

    monkeypatch.setattr(RoundedExperts, "put", never)
    improve(out, data, memory_budget=3_000_000_000)
    assert shards(out) == shards(wanted)


def stopped_half_way(sweep: Path, out: Path, data: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards done, the third one written into the evidence only."""
    copied(sweep, out)
    monkeypatch.setattr(exchange, "put_in_place", stopping(put_in_place, 3, False))
    with pytest.raises(KeyboardInterrupt):
        improve(out, data)
    monkeypatch.undo()
    return out


def test_an_unfinished_one_says_so(tmp_path: Path, data: str, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = stopped_half_way(sweep, tmp_path / "out", data, monkeypatch)
    said = CliRunner().invoke(app, ["verify", str(checkpoint()), str(out)])
    assert said.exit_code == 0
    assert "being improved, 2 of 6 shards done: run the same command to finish" in said.stdout.splitlines()
    check_loads(out)
    with Checkpoint.open(out) as opened:
        assert not describes(out, shard_hashes(opened, lambda _: None))
    name = evidence(out)["improving"]["next"]["file"]
    content = bytearray((out / name).read_bytes())
    content[-1] ^= 1
    (out / name).write_bytes(content)
    assert name in {found.tensor for found in verify(checkpoint(), out).mismatches}


def test_shards_replaced_while_somebody_looks_are_no_damage(
    tmp_path: Path, data: str, sweep: Path, wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verify and gate read the evidence first and hash minutes later; meanwhile the improvement goes on to its end."""
    finished: list[Path] = []

    def finishing(real: Callable[..., Any], out: Path) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            if out not in finished:
                improve(out, data)
                finished.append(out)
            return real(*arguments)

        return called

    out = stopped_half_way(sweep, tmp_path / "verified", data, monkeypatch)
    monkeypatch.setattr(verify_module, "hash_file", finishing(hash_file, out))
    found = verify(checkpoint(), out)
    assert found.ok, found.mismatches
    out = stopped_half_way(sweep, tmp_path / "gated", data, monkeypatch)
    monkeypatch.setattr(gate_module, "hash_shards", finishing(hash_shards, out))
    assert "integrity.hash" not in {finding.rule for finding in gate_module.gate(out, depth="full").findings}
    assert len(finished) == 2
    for out in finished:
        assert shards(out) == shards(wanted)
        path = sorted(out.glob("*.safetensors"))[0]
        path.write_bytes(path.read_bytes()[:-1] + b"\xee")
        assert path.name in {mismatch.tensor for mismatch in verify(checkpoint(), out).mismatches}
        assert "integrity.hash" in {finding.rule for finding in gate_module.gate(out, depth="full").findings}


def test_another_run_takes_over_only_when_told(
    tmp_path: Path, data: str, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stopped_half_way(sweep, tmp_path / "out", data, monkeypatch)
    other = write_data(tmp_path / "other.jsonl", seed=9)
    with pytest.raises(OutputError, match="unfinished run of another job"):
        improve(out, other)
    assert verify(checkpoint(), out).ok
    improve(out, other, overwrite=True)
    wanted = made(tmp_path / "wanted", rounding="gptq", calibrate=[other])
    assert shards(out) == shards(wanted)
    assert evidence(out) == evidence(wanted)
    stopped_half_way(sweep, out, data, monkeypatch)
    made(out, rounding="sweep", overwrite=True)
    assert shards(out) == shards(sweep)
    assert evidence(out) == evidence(sweep)


def test_a_second_run_is_locked_out(tmp_path: Path, data: str, sweep: Path) -> None:
    out, refusals = copied(sweep, tmp_path / "out"), []

    def meanwhile(_: object) -> None:
        for attempt in (lambda: improve(out, data), lambda: made(out, rounding="max", overwrite=True)):
            with pytest.raises(OutputError, match="another run is writing here"):
                attempt()
            refusals.append(attempt)

    improve(out, data, on_done=meanwhile)
    assert len(refusals) == 2


def test_a_full_disk_leaves_a_checkpoint_to_go_on_with(
    tmp_path: Path, data: str, sweep: Path, wanted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copied(sweep, tmp_path / "out")

    def full(*_: object) -> None:
        raise OutputError("no space")

    count: list[int] = []
    finish = ShardWriter.finish

    def finish_twice(self: Any) -> str:
        count.append(1)
        if len(count) >= 3:
            full()
        return finish(self)

    monkeypatch.setattr(ShardWriter, "finish", finish_twice)
    with pytest.raises(OutputError, match="no space"):
        improve(out, data)
    monkeypatch.undo()
    assert verify(checkpoint(), out).ok
    assert improve(out, data).resumed_shards == 2
    assert shards(out) == shards(wanted)


@pytest.mark.parametrize("damage", ["flipped", "shortened", "gone"])
def test_damage_to_waiting_experts_is_found_and_mended(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """All experts wait for one shard; layer 3 is finished, so that its inputs are gone."""
    out, whole = made(tmp_path / "out", rounding="sweep", max_shard_bytes=1_000_000), tmp_path / "whole"
    made(whole, rounding="gptq", calibrate=[data], max_shard_bytes=1_000_000)
    monkeypatch.setattr(RoundedExperts, "put", stopping(RoundedExperts.put, 7, False))
    with pytest.raises(KeyboardInterrupt):
        improve(out, data)
    monkeypatch.undo()
    path = out / ".halfbyte/experts/3-1.codes"
    content = path.read_bytes()
    path.write_bytes(content[:-1] if damage == "shortened" else bytes([content[0] ^ 1]) + content[1:])
    if damage == "gone":
        path.unlink()
    command = ["quantize", str(checkpoint()), str(out), "--rounding", "gptq", "--calibrate", data, "--improve"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("missing or damaged, first layer 3, expert 1: rounded again") == 1
    assert shards(out) == shards(whole)
    assert evidence(out) == evidence(whole)
