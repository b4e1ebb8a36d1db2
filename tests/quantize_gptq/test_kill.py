"""`kill -9` of `quantize --rounding gptq`: nothing looks finished before it is, and the end is the same."""

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forks, shards
from stream.models import checkpoint


@pytest.mark.parametrize("wanted_kills", [2, pytest.param(15, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_ends_the_same(wanted_kills: int, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 96, (12, 30)).tolist()
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps({"input_ids": row}) for row in rows))
    options: dict[str, Any] = {
        "src": checkpoint(),
        "rounding": "gptq",
        "calibrate": [tmp_path / "data.jsonl"],
        "max_shard_bytes": 20_000,
        "workers": 1,
    }
    chance, kills, rounded, out = random.Random(3), 0, 0, tmp_path / "out"
    with Forks(dst=tmp_path / "warm", **options) as forks:
        began = time.monotonic()
        forks.run(dst=tmp_path / "wanted", **options)
        seconds = time.monotonic() - began
        wanted, evidence = shards(tmp_path / "wanted"), (tmp_path / "wanted/halfbyte.json").read_bytes()
        while kills < wanted_kills or (not rounded and kills < 30):  # other work beside this one moves the moments
            if forks.run(chance.uniform(0, 0.6 * seconds), dst=out, **options):
                kills += 1
                rounded += bool(list(out.glob(".halfbyte/experts/*.json")))
                assert all(content == wanted[name] for name, content in shards(out).items())
            if (out / "config.json").exists():
                assert shards(out) == wanted
                if not any((out / ".halfbyte").glob("*")):  # finished, or killed in the gate that follows
                    shutil.rmtree(out)
        if (out / ".halfbyte").exists() or not (out / "config.json").exists():
            forks.run(dst=out, **options)
    assert rounded > 0
    assert shards(out) == wanted
    assert (out / "halfbyte.json").read_bytes() == evidence
    assert not (out / ".halfbyte").exists()
