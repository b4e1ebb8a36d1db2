"""Outputs in an object store: the bytes of a run into a folder, whoever is killed, and nothing half done to be seen."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from small import small_checkpoint
from typer.testing import CliRunner

from halfbyte.api import gate, quantize, verify
from halfbyte.cli.main import app
from halfbyte.errors import HalfbyteError, OutputError, UsageError
from halfbyte.quantize import bucket
from halfbyte.quantize.journal import STAGING

pytest.importorskip("obstore")
pytest.importorskip("moto")

SIZE = 60_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("source") / "name", "GLM-4.5-Air", shards=2)


@pytest.fixture(scope="module")
def wanted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("wanted") / "out"
    quantize(source, out, max_shard_bytes=SIZE)
    return {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the run makes its shards."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def names(s3: Any, prefix: str) -> list[str]:
    listed = s3.get_paginator("list_objects_v2").paginate(Bucket="models", Prefix=f"{prefix}/")
    return sorted(one["Key"].removeprefix(f"{prefix}/") for page in listed for one in page.get("Contents", []))


def objects(s3: Any, prefix: str) -> dict[str, bytes]:
    return {name: s3.get_object(Bucket="models", Key=f"{prefix}/{name}")["Body"].read() for name in names(s3, prefix)}


def command(source: Path, prefix: str, *more: str) -> list[str]:
    words = [str(source), f"s3://models/{prefix}", "--max-shard-size", "60KB", *more]
    return [sys.executable, "-m", "halfbyte", "quantize", *words]


def test_the_bytes_of_a_folder(source: Path, wanted: dict[str, bytes], s3: Any, temporary: Path) -> None:
    result = quantize(source, "s3://models/whole", max_shard_bytes=SIZE)
    assert result.output == "s3://models/whole"
    assert objects(s3, "whole") == wanted
    assert list(temporary.iterdir()) == []
    assert verify(source, "s3://models/whole").ok
    assert {found.rule for found in gate("s3://models/whole").findings if found.refuses} == {"supply.tokenizer"}
    with pytest.raises(OutputError, match="is not empty"):
        quantize(source, "s3://models/whole", max_shard_bytes=SIZE)
    dry = quantize(source, "s3://models/paper", dry_run=True)
    assert dry.output == "s3://models/paper"
    assert names(s3, "paper") == []
    assert list(temporary.iterdir()) == []


def test_a_checkpoint_is_replaced_only_by_a_whole_one(
    source: Path, wanted: dict[str, bytes], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "s3://models/replaced"
    quantize(source, address, recipe="nvfp4-mlp")
    before = objects(s3, "replaced")
    real = bucket.BucketPlace.publish
    monkeypatch.setattr(bucket.BucketPlace, "publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        quantize(source, address, max_shard_bytes=SIZE, overwrite=True)
    there = objects(s3, "replaced")
    assert {name: there[name] for name in before} == before
    monkeypatch.setattr(bucket.BucketPlace, "publish", real)
    result = quantize(source, address, max_shard_bytes=SIZE, overwrite=True)
    assert result.resumed_shards == result.shards
    assert objects(s3, "replaced") == wanted


@pytest.mark.parametrize("moment", [1, 4, 9])
def test_killed_while_it_publishes(
    moment: int, source: Path, wanted: dict[str, bytes], s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, real, left = f"published-{moment}", bucket.BucketPlace._put, moment

    def stopping(self: bucket.BucketPlace, key: str, content: Any) -> str:
        nonlocal left
        if key.startswith(f"{STAGING}/moved") or not key.startswith(STAGING):
            left -= 1
            if not left:
                raise KeyboardInterrupt
        return real(self, key, content)

    monkeypatch.setattr(bucket, "COPIES", 1)
    monkeypatch.setattr(bucket.BucketPlace, "_put", stopping)
    with pytest.raises(KeyboardInterrupt):
        quantize(source, f"s3://models/{prefix}", max_shard_bytes=SIZE)
    assert "config.json" not in names(s3, prefix)
    monkeypatch.setattr(bucket.BucketPlace, "_put", real)
    quantize(source, f"s3://models/{prefix}", max_shard_bytes=SIZE)
    assert objects(s3, prefix) == wanted


def test_killed_and_begun_again(source: Path, wanted: dict[str, bytes], s3: Any) -> None:
    running = subprocess.Popen(command(source, "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any(".done" in name for name in names(s3, "killed")):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    done = subprocess.run([*command(source, "killed"), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed_shards"] > 0
    assert objects(s3, "killed") == wanted


def test_parts_on_machines_that_share_nothing_else(
    source: Path, wanted: dict[str, bytes], s3: Any, tmp_path: Path
) -> None:
    def on(machine: str, *words: str) -> "subprocess.Popen[bytes]":
        """A process with temporary files of its own."""
        folder = tmp_path / machine
        folder.mkdir(exist_ok=True)
        return subprocess.Popen(command(source, "parts", *words), env=os.environ | {"TMPDIR": str(folder)})

    dead = on("one", "--part", "0/2")
    while not any(".lease-1" in name for name in names(s3, "parts")):
        assert dead.poll() is None
        time.sleep(0.01)
    dead.kill()
    dead.wait()
    early = CliRunner().invoke(app, ["quantize", str(source), "s3://models/parts", "--finish"])
    assert early.exit_code == 1
    assert "shard(s) are missing" in early.stderr
    assert on("two", "--part", "1/2", "--lease-seconds", "2").wait() == 0
    finished = CliRunner().invoke(app, ["quantize", str(source), "s3://models/parts", "--finish"])
    assert finished.exit_code == 0, finished.stderr
    assert objects(s3, "parts") == wanted


def test_a_shard_that_was_replaced_is_done_again(source: Path, wanted: dict[str, bytes], s3: Any) -> None:
    words = ["quantize", str(source), "s3://models/swapped", "--max-shard-size", "60KB"]
    assert CliRunner().invoke(app, [*words, "--part", "0/1"]).exit_code == 0
    key = next(name for name in names(s3, "swapped") if name.endswith(".safetensors"))
    body = bytearray(objects(s3, "swapped")[key])
    body[-1] ^= 1
    s3.put_object(Bucket="models", Key=f"swapped/{key}", Body=bytes(body))
    refused = CliRunner().invoke(app, [*words, "--finish"])
    assert refused.exit_code == 1
    assert "is not what its part wrote" in refused.stderr
    assert CliRunner().invoke(app, [*words, "--part", "0/1"]).exit_code == 0
    assert CliRunner().invoke(app, [*words, "--finish"]).exit_code == 0
    assert objects(s3, "swapped") == wanted


def test_from_a_store_into_the_same_one(source: Path, wanted: dict[str, bytes], s3: Any) -> None:
    for path in source.iterdir():
        s3.put_object(Bucket="models", Key=f"both/name/{path.name}", Body=path.read_bytes())
    quantize("s3://models/both/name", "s3://models/both/out", max_shard_bytes=SIZE)
    assert objects(s3, "both/out") == wanted
    for inside in ("s3://models/both", "s3a://models/both/name", "s3://models/both/name/out"):
        with pytest.raises(OutputError, match="lies in, around or on"):
            quantize("s3://models/both/name", inside, overwrite=True)


def test_scales_measured_on_data(source: Path, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"input_ids": list(range(n, n + 20))}) + "\n" for n in range(4)))
    quantize(source, tmp_path / "here", calibrate=[str(data)], max_shard_bytes=SIZE)
    real, left = bucket.BucketPlace._put, 3

    def stopping(self: bucket.BucketPlace, key: str, content: Any) -> str:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return real(self, key, content)

    monkeypatch.setattr(bucket.BucketPlace, "_put", stopping)
    with pytest.raises(KeyboardInterrupt):
        quantize(source, "s3://models/data", calibrate=[str(data)], max_shard_bytes=SIZE)
    monkeypatch.setattr(bucket.BucketPlace, "_put", real)
    result = quantize(source, "s3://models/data", calibrate=[str(data)], max_shard_bytes=SIZE)
    assert result.output == "s3://models/data"
    assert objects(s3, "data") == {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}


def test_a_store_that_makes_a_file_twice_is_refused(source: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket.BucketPlace, "create", lambda self, name, content: bool(self._put(name, content)))
    with pytest.raises(OutputError, match="If-None-Match"):
        quantize(source, "s3://models/old")


def test_what_cannot_be(source: Path, s3: Any) -> None:
    for address in ("s3://no-such-bucket/x", "s3://", "gs://"):
        with pytest.raises(HalfbyteError) as raised:
            quantize(source, address)
        assert "\n" not in raised.value.message
    with pytest.raises(UsageError, match="improve"):
        quantize(source, "s3://models/x", improve=True)
