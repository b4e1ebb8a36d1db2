"""The bytes do not depend on how many threads torch is given, nor on how many experts are rounded at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forked import shards
from stream.models import checkpoint

from halfbyte.api import quantize
from halfbyte.quantize.rounding import cores
from halfbyte.quantize.rounding.cores import experts_at_a_time


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("cores") / "data.jsonl"
    rows = np.random.default_rng(0).integers(0, 96, (12, 60)).tolist()
    path.write_text("\n".join(json.dumps({"input_ids": row}) for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory, data: str) -> dict[str, bytes]:
    """One expert at a time, in this process."""
    out = tmp_path_factory.mktemp("cores") / "wanted"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "MOST", 1)
        quantize(checkpoint(), out, rounding="gptq", calibrate=[data])
    return shards(out)


@pytest.mark.parametrize("threads", [*(pytest.param(few, marks=pytest.mark.slow) for few in (1, 2)), 4])
def test_the_same_bytes_with_any_number_of_threads(
    threads: int, tmp_path: Path, data: str, wanted: dict[str, bytes]
) -> None:
    words = ["quantize", str(checkpoint()), str(tmp_path / "out"), "--rounding", "gptq", "--calibrate", data]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-m", "halfbyte", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert shards(tmp_path / "out") == wanted


@pytest.mark.parametrize("at_a_time", [2, 5])
def test_the_same_bytes_with_any_number_of_experts_at_a_time(
    at_a_time: int, tmp_path: Path, data: str, wanted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("halfbyte.quantize.rounding.experts.experts_at_a_time", lambda *_: at_a_time)
    quantize(checkpoint(), tmp_path / "out", rounding="gptq", calibrate=[data])
    assert shards(tmp_path / "out") == wanted


def test_how_many_at_a_time() -> None:
    assert experts_at_a_time("cuda", 6144, 2048, None) == 1
    assert experts_at_a_time("cpu", 256, 128, None) == min(len(os.sched_getaffinity(0)), cores.MOST)
    assert experts_at_a_time("cpu", 6144, 2048, 1_000_000_000) == 1
