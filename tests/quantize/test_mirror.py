"""A hub that is not ours: olah, a mirror, in front of one of files here. In an environment of its own
(`make test-slow` makes it), as it wants an older psutil."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from serve.doors import free_port
from small import small_tensors, write_checkpoint

from halfbyte.quantize.pipeline import quantize
from halfbyte.quantize.verify import verify

from .hub import COMMIT, NAME, hub

OLAH = Path(__file__).parents[2] / ".venv-olah/bin/olah-cli"
START_S = 60


@contextmanager
def olah(behind: str, folder: Path) -> Iterator[str]:
    here = f"127.0.0.1:{free_port()}"
    host, port = here.split(":")
    words = [str(OLAH), "--host", host, "--port", port]
    words += ["--repos-path", str(folder / "cache"), "--log-path", str(folder / "logs")]
    for side, address in (("hf", behind), ("mirror", here)):
        words += [f"--{side}-scheme", "http", f"--{side}-netloc", address, f"--{side}-lfs-netloc", address]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            assert process.poll() is None
            try:
                httpx.get(f"http://{here}/api/models/{NAME}/revision/main").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield f"http://{here}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
@pytest.mark.skipif(not OLAH.is_file(), reason="olah is not here: make test-slow installs it")
def test_through_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_checkpoint(tmp_path / "source", *small_tensors("GLM-5.2"))
    quantize(source, tmp_path / "wanted", max_shard_bytes=20_000)
    with hub(source) as behind, olah(behind, tmp_path) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        for folder in ("first", "again"):  # the second time from the mirror's own cache
            quantize(NAME, tmp_path / folder, max_shard_bytes=20_000)
        quantize(f"{NAME}@{COMMIT}", tmp_path / "pinned", max_shard_bytes=20_000)
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "wanted").glob("*.safetensors")}
    for folder in ("first", "again", "pinned"):
        assert {path.name: path.read_bytes() for path in (tmp_path / folder).glob("*.safetensors")} == wanted
        assert not verify(source, tmp_path / folder).mismatches
