"""Peak memory of a whole run does not depend on the checkpoint's size."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from families.headers import headers_for, variant
from measured import output_and_peak_bytes
from small import small_config

from halfbyte.checkpoint.header import serialize_header
from halfbyte.formats.dtypes import DTYPE_BYTES

LIMIT_BYTES = 1_500_000_000


def sparse_checkpoint(folder: Path, layers: int) -> int:
    """A Qwen3-MoE of 0.5 GB and 2.9 GB a layer of holes mostly: experts of 16 MB a matrix, embeddings of 256 MB."""
    config = small_config("Qwen3-30B-A3B") | {
        "hidden_size": 4096,
        "moe_intermediate_size": 2048,
        "num_experts": 56,
        "num_hidden_layers": layers,
        "vocab_size": 32_768,
    }
    headers = headers_for(config, variant("Qwen3-30B-A3B"))
    folder.mkdir()
    entries = []
    for name, (dtype, shape) in headers.items():
        size = DTYPE_BYTES[dtype]
        for side in shape:
            size *= side
        entries.append((name, dtype, shape, size))
    header, total = serialize_header(entries, {}), sum(entry[3] for entry in entries)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(header)
        file.truncate(len(header) + total)
        file.seek(len(header) + total // 2)
        file.write(os.urandom(1 << 20).replace(b"\x7f", b"\x3f").replace(b"\xff", b"\xbf"))
    (folder / "config.json").write_text(json.dumps(config))
    return total


def roomy_folder(otherwise: Path) -> Path:
    """A folder in memory where there is one with room: the test is about memory of the process, not about the disk."""
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free > 6_000_000_000:
        return Path(tempfile.mkdtemp(dir=shared))
    return otherwise


@pytest.mark.parametrize(("layers", "least_bytes"), [(1, 3e9), pytest.param(2, 6e9, marks=pytest.mark.slow)])
def test_gigabytes_in_a_gigabyte_and_a_half(layers: int, least_bytes: float, tmp_path: Path) -> None:
    total = sparse_checkpoint(tmp_path / "in", layers)
    assert total >= least_bytes
    out = roomy_folder(tmp_path) / "out"
    command = [sys.executable, "-m", "halfbyte", "quantize", str(tmp_path / "in"), str(out), "--json"]
    output, peak_bytes = output_and_peak_bytes(command)
    shutil.rmtree(out)
    result = json.loads(output)
    assert peak_bytes <= LIMIT_BYTES
    assert result["peak_rss_bytes"] <= LIMIT_BYTES
    assert result["bytes_in"] == total
