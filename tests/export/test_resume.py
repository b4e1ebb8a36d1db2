"""Kill -9 and go on: the same bytes in the end, and nothing that looks finished before it is."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from export.checkpoints import TINY, family_checkpoint, quantized
from halfbyte.errors import OutputError
from halfbyte.export import export, stream, unfinished, verify_gguf

KILLS = 6
CHILD = """
import sys, time
from halfbyte.export import export, stream, unfinished
stream.STEP_BYTES, stream.SYNC_BYTES = 1 << 12, 1 << 18
real = unfinished.Unfinished.write
def slow(self, *arguments):
    print(flush=True)
    time.sleep(0.002)
    real(self, *arguments)
unfinished.Unfinished.write = slow
print(export(sys.argv[1], sys.argv[2], max_shard_size=int(sys.argv[3])).resumed_bytes)
"""
"""An export that takes a while, notes its progress often and prints an empty line at every write."""


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.gguf"))}


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STEP_BYTES", 1 << 12)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-MoE of 900 small matrices; only their number matters."""
    folder = tmp_path_factory.mktemp("source")
    changes = {"num_experts": 32, "num_hidden_layers": 8}
    return quantized(family_checkpoint(folder / "bf16", "Qwen3-30B-A3B", **changes), folder / "nvfp4")


@pytest.mark.parametrize("shard_bytes", [10**9, 1_500_000])
def test_kills_do_not_change_the_bytes(source: Path, tmp_path: Path, shard_bytes: int) -> None:
    (tmp_path / "wanted").mkdir()
    (tmp_path / "out").mkdir()
    export(source, tmp_path / "wanted/model.gguf", max_shard_size=shard_bytes)
    command = [sys.executable, "-c", CHILD, str(source), str(tmp_path / "out/model.gguf"), str(shard_bytes)]
    chance, kills, printed = random.Random(3), 0, ""
    while not printed:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(10):  # past loading the compiled kernels
            process.stdout.readline()
        if kills < KILLS:
            time.sleep(chance.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            kills += 1
        printed = process.communicate()[0].strip()
        assert printed or digest(tmp_path / "out") == {}, "an unfinished export must not look finished"
    assert int(printed) > 0, "the last run went on from what an earlier one had noted"
    assert digest(tmp_path / "out") == digest(tmp_path / "wanted")
    assert not list((tmp_path / "out").glob("*.partial*"))
    assert verify_gguf(source, tmp_path / "out/model.gguf").ok


def interrupted(monkeypatch: pytest.MonkeyPatch, source: Path, out: Path, after: int, **options: Any) -> None:
    """An export that the disk stops after some writes."""
    real, count = unfinished.Unfinished.write, 0

    def failing(self: unfinished.Unfinished, file: int, data: memoryview, offset: int) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise OutputError(f"{self.out}: cannot be written: No space left on device")
        real(self, file, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.Unfinished, "write", failing)
        patch.setattr(stream, "SYNC_BYTES", 1 << 16)
        with pytest.raises(OutputError, match="No space"):
            export(source, out, **options)


def test_a_full_disk_keeps_what_was_done(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, source, tmp_path / "model.gguf", after=300)
    assert export(source, tmp_path / "model.gguf").resumed_bytes > 0
    assert verify_gguf(source, tmp_path / "model.gguf").ok


def test_another_jobs_unfinished_run_is_not_continued(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.gguf"
    interrupted(monkeypatch, source, out, after=300)
    with pytest.raises(OutputError, match="unfinished export of another source"):
        export(TINY, out)
    assert export(TINY, out, overwrite=True).resumed_bytes == 0
    assert verify_gguf(TINY, out).ok


def test_a_source_that_changed_starts_anew(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.gguf"
    interrupted(monkeypatch, source, out, after=300)
    shard = next(source.glob("*.safetensors"))
    os.utime(shard, ns=(1, 1))
    with pytest.raises(OutputError, match="another source"):
        export(source, out)


def test_a_torn_journal_line_is_ignored(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.gguf"
    interrupted(monkeypatch, source, out, after=300)
    journal = tmp_path / "model.gguf.partial.jsonl"
    noted = [json.loads(line) for line in journal.read_text().splitlines()]
    assert noted[-1]["sums"]
    with open(journal, "a") as file:
        file.write('{"steps": 9')
    assert export(source, out).resumed_bytes > 0
    assert verify_gguf(source, out).ok


def test_two_runs_at_once_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.gguf"
    first = unfinished.Unfinished(out, [out], [10], "job", discard=False)
    with pytest.raises(OutputError, match="another run"):
        export(source, out)
    first.abandon()
    assert not list(tmp_path.iterdir())


def test_a_discarded_run_leaves_no_files(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.gguf"
    interrupted(monkeypatch, source, out, after=300, max_shard_size=1_500_000)
    assert list(tmp_path.glob("*-of-*.partial"))
    export(TINY, out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
