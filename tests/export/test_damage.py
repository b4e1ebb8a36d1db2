"""Damage of every kind to what an interrupted export left: the same bytes in the end, or one line that says what to do.

Every kind of `damage.KINDS` to each of the files.
"""

import random
import shutil
from pathlib import Path

import pytest
from damage import KINDS, Damage
from typer.testing import CliRunner

from export.checkpoints import family_checkpoint, quantized
from export.test_resume import digest, interrupted
from halfbyte.cli.main import app
from halfbyte.export import export, stream


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    changes = {"num_experts": 16, "num_hidden_layers": 4}
    return quantized(family_checkpoint(folder / "bf16", "Qwen3-30B-A3B", **changes), folder / "nvfp4")


@pytest.mark.parametrize("shard_bytes", [10**9, 500_000], ids=["one-file", "series"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_same_bytes_or_one_line(
    kind: Damage, shard_bytes: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "STEP_BYTES", 1 << 12)
    (tmp_path / "wanted").mkdir()
    export(source, tmp_path / "wanted/model.gguf", max_shard_size=shard_bytes)
    (tmp_path / "left").mkdir()
    interrupted(monkeypatch, source, tmp_path / "left/model.gguf", after=90, max_shard_size=shard_bytes)
    files = sorted(path.name for path in (tmp_path / "left").iterdir())
    for seed, name in enumerate(files):
        out = shutil.copytree(tmp_path / "left", tmp_path / "out")
        kind(out / name, random.Random(f"{kind.__name__} {seed}"))
        words = ["export", str(source), str(out / "model.gguf"), "--max-shard-size", str(shard_bytes)]
        done = CliRunner().invoke(app, words)
        if done.exit_code == 1:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
            assert len(errors) == 1
            assert str(out) in errors[0]
            damaged = out / name
            shutil.rmtree(damaged) if damaged.is_dir() else damaged.unlink(missing_ok=True)
            done = CliRunner().invoke(app, [*words, "--overwrite"])
        assert done.exit_code == 0, done.output
        assert digest(out) == digest(tmp_path / "wanted")
        assert not list(out.glob("*.partial*"))
        shutil.rmtree(out)
