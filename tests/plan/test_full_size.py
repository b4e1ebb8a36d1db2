"""A whole local checkpoint by its headers: 232,385 tensors in 282 shards, planned in seconds, no byte of them read."""

import json
import resource
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
from families.configs import config
from families.headers import header_set

from halfbyte.checkpoint.header import serialize_header
from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.formats.dtypes import DTYPE_BYTES

SHARDS = 282
CPU_SECONDS = 5.0
"""Processor time, because other work may share the cores; what it took is printed (`-s`)."""


@pytest.mark.slow
def test_glm_5_2_nvfp4(tmp_path: Path) -> None:
    tensors = list(header_set("GLM-5.2-NVFP4").items())
    weight_map: dict[str, str] = {}
    total = 0
    for number in range(SHARDS):
        part = tensors[number * len(tensors) // SHARDS : (number + 1) * len(tensors) // SHARDS]
        rows = [(name, dtype, shape, prod(shape) * DTYPE_BYTES[dtype]) for name, (dtype, shape) in part]
        shard, size = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors", sum(row[3] for row in rows)
        with (tmp_path / shard).open("wb") as file:  # the data is a hole: no byte of it may be read
            head = serialize_header(rows, {})
            file.write(head)
            file.truncate(len(head) + size)
        weight_map |= {name: shard for name, _ in part}
        total += size
    (tmp_path / INDEX_NAME).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    (tmp_path / "config.json").write_text(json.dumps(config("GLM-5.2-NVFP4")))
    program = "from halfbyte.cli.main import main; main()"
    command = [sys.executable, "-c", program, "plan", str(tmp_path), "--gpu", "b200", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"planned from the headers in {seconds:.2f} s of processor time")
    assert seconds < CPU_SECONDS
    document = json.loads(done.stdout)
    assert document["checkpoint_bytes"] == total
    assert document["per_gpu"]["weights_gib"] == pytest.approx(54.6, abs=0.1)  # by hand, with absorbed kv_b
