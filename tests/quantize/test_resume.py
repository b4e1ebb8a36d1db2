"""Kill, interrupt, resume: nothing that looks finished before it is, and the same bytes in the end."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small import small_checkpoint, small_tensors, write_checkpoint

from halfbyte.api import quantize
from halfbyte.checkpoint.writer import ShardWriter
from halfbyte.errors import OutputError
from halfbyte.progress import Silent
from halfbyte.quantize import threads as run_module

OPTIONS = ["--max-shard-size", "5MB", "--rounding", "sweep", "--workers", "2"]


def command(source: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "halfbyte", "quantize", str(source), str(out), *OPTIONS]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 150 MB in experts of 3 MB, so that a run has a while to be killed in."""
    sizes = {"hidden_size": 512, "moe_intermediate_size": 1024, "n_routed_experts": 24}
    return write_checkpoint(tmp_path_factory.mktemp("source") / "in", *small_tensors("GLM-5.2", **sizes), shards=3)


def looks_finished(out: Path) -> bool:
    return (out / "config.json").exists() and (out / "model.safetensors.index.json").exists()


@pytest.mark.parametrize("wanted_kills", [4, pytest.param(25, marks=pytest.mark.slow)])
def test_any_number_of_kills_gives_the_same_bytes(wanted_kills: int, source: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    subprocess.run(command(source, tmp_path / "wanted"), check=True, capture_output=True)
    wanted = digests(tmp_path / "wanted")
    working_seconds = 0.8 * (time.monotonic() - began)
    chance, kills, unfinished, out = random.Random(7), 0, 0, tmp_path / "out"
    while kills < wanted_kills:
        process = subprocess.Popen(command(source, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (out / ".halfbyte/journal.jsonl").exists():
            time.sleep(0.005)
        time.sleep(chance.uniform(0, working_seconds / 3))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            kills += 1
            for path in out.glob("*.safetensors"):
                assert hashlib.sha256(path.read_bytes()).hexdigest() == wanted[path.name]
            assert not looks_finished(out) or digests(out) == wanted
            unfinished += not looks_finished(out)
        else:
            assert process.returncode == 0
            assert digests(out) == wanted
            for path in out.iterdir():
                path.unlink()
    if (out / ".halfbyte").exists():
        done = subprocess.run([*command(source, out), "--json"], check=True, capture_output=True, text=True)
        assert json.loads(done.stdout)["shards"] > 10
    assert unfinished >= wanted_kills // 2
    assert digests(out) == wanted
    assert not (out / ".halfbyte").exists()


def test_ctrl_c_stops_with_130_and_resumes(source: Path, tmp_path: Path) -> None:
    for _ in range(8):  # a run may end before the signal reaches it
        process = subprocess.Popen(
            command(source, tmp_path / "out"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs inherit it ignored
        )
        while process.poll() is None and len(list((tmp_path / "out/.halfbyte").glob("*.safetensors"))) < 2:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        if process.returncode != 0:
            break
        shutil.rmtree(tmp_path / "out")
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not looks_finished(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.partial"))
    result = quantize(source, tmp_path / "out", max_shard_bytes=5_000_000, rounding="sweep")
    assert result.resumed_shards >= 2


def test_a_damaged_staged_shard_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "wanted", max_shard_bytes=30_000)
    _fail_at_shard(monkeypatch, 4)
    with pytest.raises(OutputError, match="no space"):
        quantize(source, tmp_path / "out", max_shard_bytes=30_000, workers=1)
    monkeypatch.undo()
    staged = sorted((tmp_path / "out/.halfbyte").glob("*.safetensors"))
    assert len(staged) >= 2
    content = bytearray(staged[0].read_bytes())
    content[-1] ^= 1
    staged[0].write_bytes(content)
    result = quantize(source, tmp_path / "out", max_shard_bytes=30_000)
    assert result.resumed_shards == len(staged) - 1
    assert digests(tmp_path / "out") == digests(tmp_path / "wanted")


def test_a_torn_journal_line_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "wanted", max_shard_bytes=30_000)
    _fail_at_shard(monkeypatch, 4)
    with pytest.raises(OutputError):
        quantize(source, tmp_path / "out", max_shard_bytes=30_000, workers=1)
    monkeypatch.undo()
    journal = tmp_path / "out/.halfbyte/journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    quantize(source, tmp_path / "out", max_shard_bytes=30_000)
    assert digests(tmp_path / "out") == digests(tmp_path / "wanted")


def test_a_damaged_journal_line_is_named_and_its_shard_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = small_checkpoint(tmp_path / "in")
    quantize(source, tmp_path / "wanted", max_shard_bytes=30_000)
    _fail_at_shard(monkeypatch, 4)
    with pytest.raises(OutputError):
        quantize(source, tmp_path / "out", max_shard_bytes=30_000, workers=1)
    monkeypatch.undo()
    journal = tmp_path / "out/.halfbyte/journal.jsonl"
    content = bytearray(journal.read_bytes())
    content[content.index(b'"shard"') + 12] ^= 1
    journal.write_bytes(content)
    notes: list[str] = []
    monkeypatch.setattr(Silent, "note", lambda self, message: notes.append(message))
    quantize(source, tmp_path / "out", max_shard_bytes=30_000, progress=Silent())
    assert any("journal.jsonl: line" in note and "done again" in note for note in notes)
    assert digests(tmp_path / "out") == digests(tmp_path / "wanted")


def test_a_run_of_an_older_version_is_refused_in_one_line(tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in")
    staging = tmp_path / "out/.halfbyte"
    staging.mkdir(parents=True)
    (staging / "journal.jsonl").write_text('{"job": "0a1b"}\n{"source": "model.safetensors", "sha256": "ab"}\n')
    with pytest.raises(OutputError, match="unfinished run of another version of Halfbyte") as caught:
        quantize(source, tmp_path / "out", max_shard_bytes=30_000)
    assert "overwrite" in str(caught.value.hint)
    quantize(source, tmp_path / "out", max_shard_bytes=30_000, overwrite=True)
    assert not staging.exists()


def test_another_job_does_not_resume_a_run_that_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_checkpoint(tmp_path / "in")
    _fail_at_shard(monkeypatch, 4)
    with pytest.raises(OutputError):
        quantize(source, tmp_path / "out", max_shard_bytes=30_000)
    monkeypatch.undo()
    with pytest.raises(OutputError, match="another job"):
        quantize(source, tmp_path / "out", max_shard_bytes=30_000, rounding="sweep")
    quantize(source, tmp_path / "out", max_shard_bytes=30_000, rounding="sweep", overwrite=True)
    assert json.loads((tmp_path / "out/halfbyte.json").read_text())["rounding"] == "sweep"


def test_a_second_run_into_the_same_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_checkpoint(tmp_path / "in")
    refusals = []

    def meanwhile(_: object) -> None:
        with pytest.raises(OutputError, match="another run") as refused:
            quantize(source, tmp_path / "out")
        refusals.append(refused)

    quantize(source, tmp_path / "out", on_done=meanwhile)
    assert len(refusals) == 1


def _fail_at_shard(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the disk be full when shard `number` is opened, once the earlier ones are finished."""
    opened: list[Any] = []
    real = ShardWriter

    def writer(path: Path, header: bytes, size_bytes: int) -> object:
        opened.append(path)
        if len(opened) >= number:
            while len(list(path.parent.glob("*.safetensors"))) < number - 2:
                time.sleep(0.01)
            raise OutputError("no space")
        return real(path, header, size_bytes)

    monkeypatch.setattr(run_module, "ShardWriter", writer)
