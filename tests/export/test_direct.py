"""Reading and writing past the page cache gives the same bytes, wherever they lie in their files."""

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import write_safetensors

from export.checkpoints import TINY, family_checkpoint, quantized
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import CheckpointError, OutputError
from halfbyte.export import direct, export, stream
from halfbyte.export.direct import BLOCK_BYTES, DirectReader, Scratch, write_all, write_direct

needs_direct = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no O_DIRECT on this system")


@needs_direct
@settings(deadline=None, max_examples=60)
@given(offset=st.integers(0, 3 * BLOCK_BYTES), size=st.integers(0, 5 * BLOCK_BYTES))
def test_blocks_and_ends_make_up_the_whole(offset: int, size: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "direct"
    path.write_bytes(b"x" * 9 * BLOCK_BYTES)
    cached, past = os.open(path, os.O_RDWR), direct.open_direct(path, os.O_WRONLY)
    if past is None:
        pytest.skip("the file system has no direct access")
    data = Scratch().take(0, size, offset)
    data[:] = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct, "DIRECT_FROM_BYTES", 1)
        first, last = write_direct(past, data.data, offset)
    write_all(cached, data.data[:first], offset)
    write_all(cached, data.data[last:], offset + last)
    os.close(cached)
    os.close(past)
    content = path.read_bytes()
    assert (offset + first) % BLOCK_BYTES == 0 or first == last
    assert content == b"x" * offset + data.tobytes() + b"x" * (9 * BLOCK_BYTES - offset - size)
    assert last - first == max(
        0, (offset + size) // BLOCK_BYTES * BLOCK_BYTES - -(-offset // BLOCK_BYTES) * BLOCK_BYTES
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    return quantized(family_checkpoint(folder / "bf16", "GLM-5.2"), folder / "nvfp4")


def test_every_way_of_reading_and_writing_gives_the_same_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for from_bytes, step_bytes in ((1, 1 << 12), (1, 1 << 24), (1 << 40, 1 << 12), (1 << 40, 1 << 24)):
        monkeypatch.setattr(direct, "DIRECT_FROM_BYTES", from_bytes)
        monkeypatch.setattr(stream, "STEP_BYTES", step_bytes)
        export(source, tmp_path / "out.gguf", overwrite=True)
        digests.add(hashlib.sha256((tmp_path / "out.gguf").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_tensors_are_read_wherever_they_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "DIRECT_FROM_BYTES", 1)
    random = np.random.default_rng(0)
    tensors = {f"t{n}": random.integers(0, 256, n, np.uint8) for n in (1, 4095, 4096, 4097, 9000, 3, 70001)}
    write_safetensors(tmp_path / "model.safetensors", tensors)
    (tmp_path / "config.json").write_text("{}")
    scratch = Scratch()
    with Checkpoint.open(tmp_path) as checkpoint:
        reader = DirectReader(checkpoint)
        for name, wanted in tensors.items():
            assert reader.read(checkpoint.tensors[name], scratch, 0).tobytes() == wanted.tobytes()
        os.truncate(tmp_path / "model.safetensors", checkpoint.tensors["t70001"].stop - 1)
        with pytest.raises(CheckpointError, match="too early"):
            reader.read(checkpoint.tensors["t70001"], scratch, 0)
        reader.close()


def test_a_file_system_without_direct_access_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path
) -> None:
    monkeypatch.setattr(direct, "DIRECT_FROM_BYTES", 1)
    export(source, tmp_path / "wanted.gguf")
    real = os.pwrite

    def refusing(file: int, data: memoryview, offset: int) -> int:
        if len(data) >= BLOCK_BYTES and os.get_blocking(file) and "O_DIRECT" in flags_of(file):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(file, data, offset)

    monkeypatch.setattr(os, "pwrite", refusing)
    export(source, tmp_path / "refused.gguf")
    monkeypatch.setattr(os, "pwrite", real)
    monkeypatch.setattr("halfbyte.export.unfinished.open_direct", lambda path, mode: None)
    export(source, tmp_path / "without.gguf")
    contents = {(tmp_path / f"{name}.gguf").read_bytes() for name in ("wanted", "refused", "without")}
    assert len(contents) == 1


def flags_of(file: int) -> str:
    lines = Path(f"/proc/self/fdinfo/{file}").read_text().splitlines()
    flags = int(next(line for line in lines if line.startswith("flags")).split()[1], 8)
    return "O_DIRECT" if flags & os.O_DIRECT else ""


def test_a_disk_that_fills_up_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("halfbyte.export.unfinished.reserve", full)
    with pytest.raises(OutputError, match="No space left") as caught:
        export(TINY, tmp_path / "out.gguf")
    assert "resumes" in (caught.value.hint or "")
