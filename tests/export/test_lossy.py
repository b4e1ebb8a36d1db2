"""`export --type`: lossy, said so, and it runs, for the families whose NVFP4 llama.cpp would compute as nonsense."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from small import small_config
from stream.models import streamed_logits
from typer.testing import CliRunner

from export.checkpoints import family_checkpoint, quantized
from halfbyte.cli.main import app
from halfbyte.export import LOSSY_KEY
from halfbyte.export.lossy import LOSSY

REFUSED = ("DeepSeek-V3-BF16", "Kimi-K2-BF16", "GLM-4.7", "GLM-4.7-Flash", "MiniMax-M2.5-BF16")
SIZES = {
    "kv_lora_rank": 512,
    "q_lora_rank": 128,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 64,
    "v_head_dim": 64,
    "index_head_dim": 128,
    "index_n_heads": 4,
}
PROMPT = [5, 77, 130, 9, 200, 31, 64, 18, 99]
SERVER = """
import json, sys
from pathlib import Path
from export.engine import Engine
_, top = Engine(Path(sys.argv[1])).next_token(json.loads(sys.argv[2]), 5, top=int(sys.argv[3]))
print(json.dumps(sorted(top.items())))
"""


def checkpoint(folder: Path, name: str) -> Path:
    changes = {key: value for key, value in SIZES.items() if key in small_config(name)}
    return quantized(family_checkpoint(folder / "bf16", name, **changes), folder / "nvfp4")


def run(*words: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def logits(path: Path, vocabulary: int) -> np.ndarray:
    """Log-probabilities of every token, from llama.cpp in a process of its own."""
    pytest.importorskip("xllamacpp")
    command = [sys.executable, "-c", SERVER, str(path), json.dumps(PROMPT), str(vocabulary)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return np.array([value for _, value in json.loads(done.stdout.splitlines()[-1])])


@pytest.mark.parametrize("name", [*REFUSED, "Qwen3-30B-A3B", "Mixtral-8x7B-v0.1", "GLM-5.2"])
def test_each_type_loads_answers_and_is_verified(name: str, tmp_path: Path) -> None:
    source = checkpoint(tmp_path, name)
    if name in REFUSED:
        error = run("export", source, tmp_path / "no.gguf", code=1)["error"]
        assert "--type q8_0" in error["hint"]
    answers, worst = {}, {}
    vocabulary = json.loads((source / "config.json").read_text())["vocab_size"]
    for kind in LOSSY:
        out = tmp_path / f"{kind}.gguf"
        written = run("export", source, out, "--type", kind)
        assert written["lossy"] == kind
        assert written["nvfp4_tensors"] == 0
        fields = GGUFReader(out).fields
        assert fields[LOSSY_KEY].contents() == kind
        assert f"lossy {kind}" in fields["general.name"].contents()
        verified = run("verify", source, out)
        assert (verified["ok"], verified["lossy"]) == (True, kind)
        worst[kind] = verified["relative_error"]
        answers[kind] = logits(out, vocabulary)
        assert np.isfinite(answers[kind]).all()
    assert 0 < worst["bf16"] < 0.003 < worst["q8_0"] < 0.01 < worst["q4_0"] < 0.15
    spread = answers["bf16"].std()
    meant = torch.log_softmax(streamed_logits(source, [torch.tensor(PROMPT)])[0][-1].double(), -1).numpy()
    assert np.abs(answers["bf16"] - meant).mean() < 0.1 * spread  # the values that the NVFP4 bytes stand for
    assert np.abs(answers["q8_0"] - answers["bf16"]).mean() < spread
    assert np.abs(answers["q4_0"] - answers["bf16"]).mean() < spread


def test_damage_is_found(tmp_path: Path) -> None:
    source, out = checkpoint(tmp_path, "GLM-4.7"), tmp_path / "out.gguf"
    run("export", source, out, "--type", "q8_0")
    content = bytearray(out.read_bytes())
    content[-5000] ^= 1
    out.write_bytes(content)
    assert not run("verify", source, out, code=1)["ok"]
    done = CliRunner().invoke(app, ["verify", str(source), str(out)])
    assert "lossy" not in done.stdout.splitlines()[-1]


def test_an_unquantized_source(tmp_path: Path) -> None:
    source, sizes = family_checkpoint(tmp_path / "bf16", "GLM-4.7"), {}
    for kind in (*LOSSY, None):
        out = tmp_path / f"{kind}.gguf"
        run("export", source, out, *(("--type", kind) if kind else ()))
        found = run("verify", source, out)
        assert found["ok"]
        assert found.get("lossy") == kind
        sizes[kind] = out.stat().st_size
    assert sizes["q4_0"] < sizes["q8_0"] < sizes["bf16"]


def test_an_unknown_type_is_usage(tmp_path: Path) -> None:
    source = family_checkpoint(tmp_path / "bf16", "GLM-4.7")
    done = CliRunner().invoke(app, ["export", str(source), str(tmp_path / "a.gguf"), "--type", "q4_k_m"])
    assert done.exit_code == 2
    assert "q8_0, q4_0, bf16" in done.stderr
