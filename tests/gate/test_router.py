"""Whether a list without the router loads is a fact of engine and family (docs/engines.md 10)."""

from pathlib import Path

import pytest
from small import small_checkpoint

from halfbyte.gate.judge import gate
from halfbyte.quantize.pipeline import quantize

from .draft import Draft
from .tokenizers import tokenizer_for

ASKED_BY_VLLM = "Qwen3-30B-A3B"
NEVER_ASKED = ("GLM-5.2", "DeepSeek-V3-BF16", "GLM-4.7", "MiniMax-M2.5-BF16", "Mixtral-8x7B-v0.1")


def without_router(name: str, folder: Path) -> Path:
    """A checkpoint whose exclusions leave the router out, as NVIDIA publishes GLM-5.2."""
    source = small_checkpoint(folder / "source", name)
    (source / "tokenizer.json").write_text(tokenizer_for(96))
    quantize(source, folder / "sound")
    draft = Draft(folder / "sound")
    draft.exclude(lambda entries: [entry for entry in entries if not entry.endswith(".gate")])
    return draft.write(folder / "unlisted")


def refusals(folder: Path, engine: str) -> list[str]:
    found = gate(folder, engine=engine).findings
    return [str(one.found.message) for one in found if one.rule == "loadability.exclusions"]


def test_vllm_looks_the_router_of_qwen3_moe_up(tmp_path: Path) -> None:
    unlisted = without_router(ASKED_BY_VLLM, tmp_path)
    assert refusals(tmp_path / "sound", "vllm") == []
    found = refusals(unlisted, "vllm")
    assert any("model.layers.0.mlp.gate is stored unquantized" in message for message in found)
    assert refusals(unlisted, "sglang") == []


@pytest.mark.parametrize("name", NEVER_ASKED)
def test_the_router_of_the_others_needs_no_entry(name: str, tmp_path: Path) -> None:
    unlisted = without_router(name, tmp_path)
    assert refusals(unlisted, "vllm") == refusals(unlisted, "sglang") == []
