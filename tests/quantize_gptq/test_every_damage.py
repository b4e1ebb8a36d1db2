"""Damage of every kind to every file that an interrupted quantize left, rounding on data or not, in place or not."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import check_every
from forked import shards
from stream.models import checkpoint

from halfbyte.api import quantize
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.rounding.store import RoundedExperts
from halfbyte.stream.executor import Streamed

BYTES = 20_000
SLOW = (pytest.mark.slow, pytest.mark.timeout(1200))
EVERY = pytest.mark.parametrize("every", [False, pytest.param(True, marks=SLOW)], ids=["some", "every"])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("damage") / "data.jsonl"
    rows = np.random.default_rng(0).integers(0, 96, (4, 30)).tolist()
    path.write_text("\n".join(json.dumps({"input_ids": row}) for row in rows))
    return str(path)


def stopped(owner: Any, name: str, number: int, **options: Any) -> None:
    """quantize, ended by Ctrl-C at that call."""
    calls, real = 0, getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        with pytest.raises(KeyboardInterrupt):
            quantize(checkpoint(), workers=1, **options)


def result(out: Path, printed: str) -> object:
    assert not (out / ".halfbyte").exists()
    return shards(out), (out / "halfbyte.json").read_bytes(), (out / "config.json").read_bytes()


MOMENTS = {
    "first-pass": (Streamed, "step", 3),
    "rounding": (RoundedExperts, "put", 7),
    "writing": (Journal, "shard_done", 9),
}


@pytest.mark.parametrize("moment", MOMENTS)
@EVERY
def test_gptq(every: bool, moment: str, data: str, tmp_path: Path) -> None:
    stopped(*MOMENTS[moment], dst=tmp_path / "left", rounding="gptq", calibrate=[data], max_shard_bytes=BYTES)

    def words(out: Path) -> list[str]:
        options = ["--rounding", "gptq", "--calibrate", data, "--max-shard-size", str(BYTES)]
        return ["quantize", str(checkpoint()), str(out), *options]

    check_every(tmp_path / "left", tmp_path / "out", words, result, every, lambda out: [*words(out), "--overwrite"])


@pytest.mark.parametrize("moment", ["shard", "source"])
@EVERY
def test_max(every: bool, moment: str, tmp_path: Path) -> None:
    options = {"input_scale": "1", "max_shard_bytes": BYTES}
    stopped(Journal, f"{moment}_done", 2, dst=tmp_path / "left", **options)

    def words(out: Path) -> list[str]:
        return ["quantize", str(checkpoint()), str(out), "--input-scale", "1", "--max-shard-size", str(BYTES)]

    check_every(tmp_path / "left", tmp_path / "out", words, result, every, lambda out: [*words(out), "--overwrite"])


@pytest.mark.parametrize("moment", ["rounding", "writing"])
@EVERY
def test_improve(every: bool, moment: str, data: str, tmp_path: Path) -> None:
    finished, left = tmp_path / "finished", tmp_path / "left"
    quantize(checkpoint(), finished, input_scale="1", max_shard_bytes=BYTES)
    shutil.copytree(finished, left)
    owner, name, number = (RoundedExperts, "put", 6) if moment == "rounding" else (Journal, "shard_done", 2)
    options: dict[str, Any] = {"dst": left, "improve": True, "rounding": "gptq", "calibrate": [data]}
    stopped(owner, name, number, **options)
    staged = tmp_path / "staged"
    shutil.copytree(left / ".halfbyte", staged)
    published = tmp_path / "published"
    shutil.copytree(left, published, ignore=shutil.ignore_patterns(".halfbyte"))

    def words(out: Path) -> list[str]:
        """The staging folder alone is damaged: what is published is `verify`'s to judge."""
        whole = tmp_path / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(published, whole)
        shutil.copytree(out, whole / ".halfbyte")
        return ["quantize", str(checkpoint()), str(whole), "--improve", "--rounding", "gptq", "--calibrate", data]

    def improved(out: Path, printed: str) -> object:
        return result(tmp_path / "whole", printed)

    check_every(staged, tmp_path / "out", words, improved, every, lambda out: [*words(out), "--overwrite"])
