"""A source in an object store: moto's S3 on a free port, through obstore."""

from pathlib import Path
from typing import Any

import pytest
from small import small_checkpoint

from halfbyte.api import gate, inspect, quantize
from halfbyte.checkpoint import blocks
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError, HalfbyteError

pytest.importorskip("obstore")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("source") / "name", "GLM-4.5-Air", shards=2)


def put(s3: Any, folder: Path, prefix: str) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            s3.put_object(Bucket="models", Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())
    return f"s3://models/{prefix}"


def test_the_bytes_of_a_local_run(source: Path, s3: Any, tmp_path: Path) -> None:
    address = put(s3, source, "glm/name")
    quantize(source, tmp_path / "wanted", rounding="sweep")
    quantize(address, tmp_path / "out", rounding="sweep")
    ours, wanted = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("out", "wanted"))
    assert ours == wanted
    assert inspect(address).parameters == inspect(source).parameters
    put(s3, tmp_path / "out", "quantized")
    judged, here = gate("s3://models/quantized"), gate(tmp_path / "out")
    assert {found.rule for found in judged.findings} == {found.rule for found in here.findings}


def test_an_object_that_was_replaced_is_refused(
    source: Path, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1000)
    address = put(s3, source, "moves")
    with Checkpoint.open(address) as opened:
        tensor = next(iter(opened.tensors.values()))
        content = (source / tensor.shard).read_bytes()
        s3.put_object(Bucket="models", Key=f"moves/{tensor.shard}", Body=content[:-1] + b"\1")
        with pytest.raises(CheckpointError, match="another file by now"):
            opened.read_into(tensor, memoryview(bytearray(tensor.bytes)))


@pytest.mark.parametrize("address", ["s3://models/nothing", "s3://no-such-bucket/x", "s3://", "gs://"])
def test_what_is_not_there(address: str, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "/nowhere")
    with pytest.raises(HalfbyteError) as raised:
        inspect(address)
    assert "\n" not in raised.value.message
