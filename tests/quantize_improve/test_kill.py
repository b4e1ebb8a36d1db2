"""`kill -9` at random moments: the checkpoint always loads, its evidence always holds, and the end is the same."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import Forks, shards
from small import small_tensors, write_checkpoint
from stream.models import CHANGES, checkpoint

from halfbyte.api import quantize, verify
from halfbyte.gate.judge import gate

from .material import check_loads, copied, evidence, write_data


def check_state(source: Path, out: Path, old: dict[str, bytes], new: dict[str, bytes]) -> bool:
    """Whatever moment the kill came at. Returns whether the checkpoint is in between."""
    now = shards(out)
    assert now.keys() == old.keys()
    for name, content in now.items():
        assert content in (old[name], new[name])
    replaced = sum(now[name] == new[name] != old[name] for name in now)
    check_loads(out)
    result = verify(source, out)
    assert result.ok, result.mismatches
    findings = gate(out, depth="full").findings
    assert not [finding for finding in findings if finding.rule in ("integrity.hash", "integrity.evidence-file")]
    if evidence(out)["rounding"] == "gptq":
        assert now == new
        assert result.improving is None
        return False
    targets = sum(new[name] != old[name] for name in old)
    if result.improving is None:
        assert replaced == 0
    else:
        done = evidence(out)["improving"]["shards_done"]
        assert replaced - 1 <= done <= replaced
        assert result.improving == f"being improved, {done} of {targets} shards done: run the same command to finish"
        assert [finding.found.message for finding in findings if finding.rule == "integrity.improving"] == [
            f"halfbyte.json: {result.improving}"
        ]
    return 0 < replaced < targets


@pytest.fixture(scope="module")
def options(data: str) -> dict[str, Any]:
    return {"src": checkpoint(), "rounding": "gptq", "calibrate": [data], "improve": True, "workers": 1}


@pytest.fixture(scope="module")
def forks(options: dict[str, Any], sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(dst=copied(sweep, tmp_path_factory.mktemp("improve") / "warm"), **options) as started:
        yield started


@pytest.fixture(scope="module")
def seconds(forks: Forks, options: dict[str, Any], sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """What a run takes that nobody kills."""
    out = copied(sweep, tmp_path_factory.mktemp("improve") / "timed")
    began = time.monotonic()
    assert not forks.run(dst=out, **options)
    return time.monotonic() - began


@pytest.mark.parametrize("wanted_kills", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_stays_whole_and_ends_the_same(
    wanted_kills: int, tmp_path: Path, forks: Forks, options: dict[str, Any], seconds: float, sweep: Path, wanted: Path
) -> None:
    old, new, out = shards(sweep), shards(wanted), copied(sweep, tmp_path / "out")
    chance, kills, between = random.Random(5), 0, 0
    while kills < wanted_kills:
        if forks.run(chance.uniform(0, 0.7 * seconds), dst=out, **options):
            kills += 1
            between += check_state(checkpoint(), out, old, new)
        else:
            assert shards(out) == new
            assert evidence(out) == evidence(wanted)
            copied(sweep, out)
    forks.run(dst=out, **options)
    assert between > 0 or kills < 15
    assert shards(out) == new
    assert evidence(out) == evidence(wanted)
    assert not (out / ".halfbyte").exists()
    assert not list(out.glob("*.partial"))


def test_runs_too_short_to_finish_add_up(
    tmp_path: Path, forks: Forks, options: dict[str, Any], seconds: float, sweep: Path, wanted: Path
) -> None:
    out, allowed, runs = copied(sweep, tmp_path / "out"), 0.25 * seconds, 1
    while forks.run(allowed, dst=out, **options):
        runs += 1
        allowed *= 1.05
    assert runs > 1
    assert shards(out) == shards(wanted)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_killed_at_any_moment(tmp_path: Path) -> None:
    """The real command, imports and all, on experts large enough that writing a shard takes a while."""
    sizes = {"hidden_size": 256, "moe_intermediate_size": 256, "n_routed_experts": 8}
    config, tensors = small_tensors("GLM-5.2", 3, **CHANGES["GLM-5.2"], **sizes)
    source = write_checkpoint(tmp_path / "in", config, tensors, shards=3)
    data = write_data(tmp_path / "data.jsonl")
    common: dict[str, Any] = {"max_shard_bytes": 300_000, "input_scale": "1"}
    quantize(source, tmp_path / "sweep", rounding="sweep", **common)
    quantize(source, tmp_path / "wanted", rounding="gptq", calibrate=[data], **common)
    old, new, out = (
        shards(tmp_path / "sweep"),
        shards(tmp_path / "wanted"),
        copied(tmp_path / "sweep", tmp_path / "out"),
    )
    command = [sys.executable, "-m", "halfbyte", "quantize", str(source), str(out), "--improve", "--rounding", "gptq"]
    command += ["--calibrate", data, "--json"]

    def journal() -> list[int]:
        return [path.stat().st_ino for path in out.glob(".halfbyte/journal.jsonl")]

    def started() -> subprocess.Popen[bytes]:
        """At work: imports are done, the journal is written anew."""
        before = journal()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and journal() in ([], before):
            time.sleep(0.005)
        return process

    process, began = started(), time.monotonic()
    assert process.wait() == 0
    working_seconds = time.monotonic() - began
    assert shards(out) == new
    copied(tmp_path / "sweep", out)
    chance, kills, between = random.Random(1), 0, 0
    while kills < 15:
        process = started()
        time.sleep(chance.uniform(0, 0.7 * working_seconds))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            kills += 1
            between += check_state(source, out, old, new)
        else:
            assert process.returncode == 0
            assert shards(out) == new
            copied(tmp_path / "sweep", out)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["rounding"] == "gptq"
    assert between > 0
    assert shards(out) == new
    assert evidence(out) == evidence(tmp_path / "wanted")
