"""Every family through every command, on a small random checkpoint: a new family is one config in `configs.py`.

A checkpoint with the published structure, shrunken sizes and the family's own tokenizer is inspected, calibrated,
quantized, verified, gated, planned, compared, streamed, exported and talked to, as users do.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from export.checkpoints import family_checkpoint
from small import runnable_changes
from stream.models import sequences, streamed_logits, whole_logits
from typer.testing import CliRunner

from halfbyte import models
from halfbyte.chat.answer import Answer, Summary
from halfbyte.chat.hf import Transformers
from halfbyte.chat.options import Sampling
from halfbyte.cli.main import app
from halfbyte.errors import UnsupportedError
from halfbyte.models import FAMILIES, architecture_of, promised_tensors, roles_of
from halfbyte.models.roles import Role

from .configs import CONFIGS, plain_sets
from .headers import header_set, role_set

RUN = CliRunner()
NAMED = {name: family for name, family in FAMILIES.items() if family.by_name}
SETS = plain_sets()
"""Model type -> one unquantized, unfused set of each family."""


def test_every_family_has_a_config() -> None:
    assert set(SETS) == set(NAMED)


def test_every_file_of_a_family_is_in_the_list() -> None:
    folder = Path(models.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "\nFAMILY = " in path.read_text("utf-8")}
    assert files == set(FAMILIES)


def run(*words: object, code: int = 0) -> Any:
    json_asked = () if words[0] == "gate" else ("--json",)
    result = RUN.invoke(app, [*map(str, words), *json_asked])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("model_type", SETS)
def test_names_and_shapes_lead_to_the_same_list_and_back(model_type: str) -> None:
    config = CONFIGS[SETS[model_type]]
    headers, labels, roles = header_set(SETS[model_type]), role_set(SETS[model_type]), roles_of(config)
    promised = Counter[tuple[str, bool, tuple[int, ...]]]()
    for tensor in promised_tensors(architecture_of(config)):
        promised[str(tensor.role), tensor.mtp, tensor.shape] += tensor.count
    found = Counter[tuple[str, bool, tuple[int, ...]]]()
    for name in headers:
        role = roles.role(name)
        assert (role.role, role.mtp) == labels[name]
        if not role.part.startswith(("weight_scale", "input_scale")):
            found[str(role.role), role.mtp, headers[name][1]] += 1
    assert found == promised


@cache
def source(model_type: str) -> Path:
    name = SETS[model_type]
    return family_checkpoint(Path(mkdtemp(prefix="halfbyte-family-")) / "source", name, **runnable_changes(name))


@cache
def data(model_type: str) -> Path:
    return rows_beside(source(model_type))


def rows_beside(folder: Path) -> Path:
    """Some documents of token ids."""
    random, path = np.random.default_rng(0), folder.parent / "data.jsonl"
    rows = [{"input_ids": random.integers(0, 256, 30).tolist()} for _ in range(6)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@cache
def quantized(model_type: str) -> Path:
    out = source(model_type).parent / "quantized"
    run("quantize", source(model_type), out, "--calibrate", data(model_type))
    return out


@pytest.mark.parametrize("model_type", SETS)
def test_inspect_and_verify(model_type: str) -> None:
    assert run("inspect", source(model_type))["model_type"] == model_type
    groups = run("inspect", quantized(model_type))["groups"]
    packed = {group["role"] for group in groups if group["format"] == "nvfp4"}
    assert packed == {"routed_expert"}
    assert run("verify", source(model_type), quantized(model_type))["ok"]


NOT_VLLM = {"deepseek_v4": "wo_a in FP8", "gpt_oss": "leaves the scales of stacked experts out"}
"""Sound, and not for vLLM: what it does."""


@pytest.mark.parametrize("model_type", SETS)
def test_gate_lets_it_through(model_type: str) -> None:
    engine = "sglang" if model_type in NOT_VLLM else "vllm"
    words = ("--depth", "full", "--format", "json")
    assert run("gate", quantized(model_type), "--engine", engine, *words)["decision"] == "pass"


@pytest.mark.parametrize("model_type", NOT_VLLM)
def test_gate_says_what_vllm_does_not_take(model_type: str) -> None:
    findings = run("gate", quantized(model_type), "--engine", "vllm", "--format", "json", code=1)["findings"]
    (denied,) = [found for found in findings if found["severity"] == "deny"]
    assert denied["rule"] == "loadability.engine-fault"
    assert NOT_VLLM[model_type] in denied["message"]


TIED = [name for name, chosen in SETS.items() if CONFIGS[chosen].get("tie_word_embeddings")]


@pytest.mark.parametrize("model_type", TIED)
def test_a_head_that_is_the_embedding_is_in_the_list(model_type: str, tmp_path: Path) -> None:
    """No file holds it, vLLM asks about it all the same, and stops without the entry."""
    shutil.copytree(quantized(model_type), tmp_path / "copy")
    for name in ("config.json", "hf_quant_config.json"):
        document = json.loads((tmp_path / "copy" / name).read_text())
        block = document.get("quantization_config", document.get("quantization"))
        key = "ignore" if "ignore" in block else "exclude_modules"
        assert "lm_head" in block[key]
        block[key].remove("lm_head")
        (tmp_path / "copy" / name).write_text(json.dumps(document))
    words = ("--engine", "vllm", "--format", "json")
    findings = run("gate", tmp_path / "copy", *words, code=1)["findings"]
    assert any("lm_head is stored unquantized but lm_head is not excluded" in found["message"] for found in findings)


@pytest.mark.parametrize("model_type", SETS)
def test_plan_from_headers_and_from_paper_agree(model_type: str) -> None:
    words = ("--gpu", "h100", "--gpus", "1", "--context", "1024")
    read = run("plan", quantized(model_type), *words)
    paper = run("plan", source(model_type) / "config.json", "--recipe", "nvfp4-routed-experts", *words)
    assert read["checkpoint_bytes"] == paper["checkpoint_bytes"]


ONE_CENTRED = {"qwen3_next", "qwen3_5_moe"}
"""Norms that multiply by one more than their weight, so that small random weights make no small model."""


@pytest.mark.parametrize("model_type", SETS)
def test_compare(model_type: str) -> None:
    document = run("compare", source(model_type), quantized(model_type), "--data", data(model_type))
    assert 0 < document["kl"]["mean"] < (0.1 if model_type in ONE_CENTRED else 1e-6)


@pytest.mark.parametrize("model_type", SETS)
def test_streamed_logits_are_transformers_bits(model_type: str) -> None:
    ids = sequences(256)
    for got, want in zip(streamed_logits(source(model_type), ids), whole_logits(source(model_type), ids), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("model_type", SETS)
def test_export_or_a_clear_no(model_type: str, tmp_path: Path) -> None:
    architecture = FAMILIES[model_type].llama_cpp
    if architecture is None:
        refused = run("export", source(model_type), tmp_path / "a.gguf", code=1)
        assert "is not described" in refused["error"]["message"]
        return
    assert run("export", source(model_type), tmp_path / "a.gguf")["architecture"] == architecture.name
    scaled = Role.ROUTED_EXPERT in architecture.scaled
    document = run("export", quantized(model_type), tmp_path / "b.gguf", code=0 if scaled else 1)
    assert scaled or "does not apply the NVFP4 scale" in json.dumps(document)


NOT_LOADED = ("longcat_flash",)
"""By transformers 5.23: it wants weights of experts that have none."""

CHATTING = [
    name
    for name in SETS
    if name not in NOT_LOADED
    and ((architecture := NAMED[name].llama_cpp) is None or architecture.vocabulary != "llama")
]
"""Those whose small checkpoints have a tokenizer that transformers reads without more packages."""

MESSAGES = [{"role": "user", "content": "the thing"}]


@pytest.mark.parametrize("model_type", CHATTING)
def test_chat_through_transformers(model_type: str) -> None:
    engine, answer = Transformers(source(model_type)), Answer()
    for piece in engine.stream(MESSAGES, [], Sampling(max_tokens=3)):
        if not isinstance(piece, Summary):
            answer.add(piece)
    assert answer.reasoning or answer.content
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    if NAMED[model_type].answers is None:
        assert not answer.reasoning
        with pytest.raises(UnsupportedError, match="tool calls is not known"):
            list(engine.stream(MESSAGES, tools, Sampling(max_tokens=3)))


@pytest.mark.parametrize("model_type", [name for name in SETS if name not in (*CHATTING, *NOT_LOADED)] + ["kimi_k2"])
def test_chat_through_llamacpp(model_type: str, tmp_path: Path) -> None:
    """In a process of its own: llama.cpp's server does not let go of the one that it runs in."""
    pytest.importorskip("xllamacpp")
    (tmp_path / "messages.json").write_text(json.dumps({"messages": MESSAGES}))
    words = ["chat", source(model_type), "--engine", "llama.cpp", "--messages", tmp_path / "messages.json"]
    command = [sys.executable, "-m", "halfbyte", *map(str, words), "--max-tokens", "3", "--json"]
    environment = os.environ | {"HALFBYTE_CACHE": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, input="", check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["completion_tokens"] > 0
