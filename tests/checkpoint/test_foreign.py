"""Checkpoints in formats of others: one line that names the format, in every command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import small_checkpoint, small_tensors, write_checkpoint
from typer.testing import CliRunner

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.cli.main import app
from halfbyte.errors import UnsupportedError

Parts = dict[str, np.ndarray]
BYTES = np.uint8


def sparse(module: str, rows: int, columns: int) -> Parts:
    return {
        f"{module}.compressed": np.zeros((rows, columns // 2), BYTES),
        f"{module}.bitmask": np.zeros((rows, columns // 8), BYTES),
    }


def reordered(module: str, rows: int, columns: int) -> Parts:
    return {
        f"{module}.weight_packed": np.zeros((rows, columns // 8), np.int32),
        f"{module}.weight_scale": np.zeros((rows, columns // 32), np.float16),
        f"{module}.weight_g_idx": np.zeros(columns, np.int32),
    }


def awq(module: str, rows: int, columns: int) -> Parts:
    return {
        f"{module}.qweight": np.zeros((columns, rows // 2), BYTES),
        f"{module}.qzeros": np.zeros((columns // 16, rows // 2), BYTES),
        f"{module}.scales": np.zeros((columns // 16, rows), np.float16),
    }


def bitsandbytes(module: str, rows: int, columns: int) -> Parts:
    return {
        f"{module}.weight": np.zeros((rows * columns // 2, 1), BYTES),
        f"{module}.weight.absmax": np.zeros(rows * columns // 64, np.float32),
    }


KINDS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "sparse": (
        sparse,
        {"quant_method": "compressed-tensors", "format": "sparse-24-bitmask"},
        ("compressed-tensors", "sparse-24-bitmask"),
    ),
    "reordered": (
        reordered,
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
        ("compressed-tensors", "pack-quantized"),
    ),
    "sparse-unsaid": (sparse, {}, ("compressed-tensors",)),
    "awq": (awq, {"quant_method": "awq"}, ("awq",)),
    "bitsandbytes": (bitsandbytes, {"quant_method": "bitsandbytes"}, ("bitsandbytes",)),
}


def foreign_checkpoint(folder: Path, kind: str, family: str = "Qwen3-30B-A3B") -> Path:
    config, tensors = small_tensors(family)
    parts, block, _ = KINDS[kind]
    packed: Parts = {}
    for name, tensor in tensors.items():
        packed |= parts(name.removesuffix(".weight"), *tensor.shape) if ".experts." in name else {name: tensor}
    return write_checkpoint(folder, config | ({"quantization_config": block} if block else {}), packed)


@pytest.mark.parametrize("family", ["Qwen3-30B-A3B", "Kimi-K2-BF16", "Mixtral-8x7B-v0.1"])
@pytest.mark.parametrize("kind", KINDS)
def test_opening_names_the_format(kind: str, family: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as raised:
        Checkpoint.open(foreign_checkpoint(tmp_path / "foreign", kind, family))
    assert all(word in raised.value.message for word in KINDS[kind][2])
    assert "\n" not in raised.value.message


COMMANDS = {
    "inspect": ("{bad}",),
    "quantize": ("{bad}", "{tmp}/out"),
    "verify": ("{bad}", "{good}"),
    "verify-destination": ("{good}", "{bad}"),
    "plan": ("{bad}", "--gpu", "h100", "--gpus", "1", "--context", "1024"),
    "gate": ("{bad}",),
    "export": ("{bad}", "{tmp}/out.gguf"),
    "chat-llamacpp": ("{bad}", "--engine", "llama.cpp", "--prompt", "a"),
    "chat-transformers": ("{bad}", "--engine", "transformers", "--prompt", "a"),
    "calibrate": ("{bad}", "--data", "{data}", "-o", "{tmp}/scales.json"),
    "compare": ("{good}", "{bad}", "--data", "{data}"),
    "search": ("{bad}", "--data", "{data}", "--bits", "6", "-o", "{tmp}/recipe.yaml"),
}


@pytest.mark.parametrize("kind", ["sparse", "awq"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so_in_one_line(command: str, kind: str, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({"input_ids": list(range(20))}) for _ in range(4)))
    places = {
        "bad": foreign_checkpoint(tmp_path / "bad", kind),
        "good": small_checkpoint(tmp_path / "good", "Qwen3-30B-A3B"),
        "tmp": tmp_path,
        "data": data,
    }
    words = [word.format(**places) for word in COMMANDS[command]]
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, [command.partition("-")[0], *words])
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert all(word in errors[0] for word in KINDS[kind][2])
    assert sorted(tmp_path.rglob("*")) == before
