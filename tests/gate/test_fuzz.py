"""Random damage always ends in a decision or one clear error; flips in weights are always found with hashes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from halfbyte.gate.judge import gate

from .draft import Draft, flip
from .flips import fuzz

SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.mark.parametrize("evidence", [True, False])
def test_some_random_bytes(evidence: bool, folder: Path) -> None:
    if not evidence:
        (folder / "halfbyte.json").unlink()
    outcome = fuzz(folder, 50, seed=11)
    assert outcome.failures == []
    assert outcome.decisions.total() == 50
    assert outcome.decisions["refused"] > 40


@pytest.mark.slow
@pytest.mark.parametrize("evidence", [True, False])
def test_ten_thousand_random_bytes(evidence: bool, folder: Path) -> None:
    if not evidence:
        (folder / "halfbyte.json").unlink()
    outcome = fuzz(folder, 5000, seed=12)
    assert outcome.failures == []


def test_every_flip_in_the_weights_is_found_at_depth_full(folder: Path) -> None:
    random, size = np.random.default_rng(3), (folder / SHARD).stat().st_size
    header = 8 + int.from_bytes((folder / SHARD).read_bytes()[:8], "little")
    for offset in random.integers(header, size, 12):
        mask = 1 << int(random.integers(8))
        flip(folder / SHARD, int(offset), mask)
        decision = gate(folder, depth="full")
        assert "integrity.hash" in {finding.rule for finding in decision.findings if finding.refuses}
        flip(folder / SHARD, int(offset), mask)
    assert gate(folder, depth="full").verdict == "pass"


def test_config_of_every_type(small_mtp: Draft, tmp_path: Path) -> None:
    """Each value of config.json replaced by something of another type: refused or passed, never a failed rule."""
    assert small_mtp.config is not None
    path = small_mtp.copy().write(tmp_path / "x") / "config.json"
    (path.parent / "halfbyte.json").unlink()
    for key in small_mtp.config:
        for value in (None, -1, 10**30, [None]):
            path.write_text(json.dumps({**small_mtp.config, key: value}))
            said = [finding.found.message for finding in gate(path.parent).findings]
            assert not any("please report it" in message for message in said), (key, value, said)
