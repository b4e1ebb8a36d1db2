"""No sound checkpoint is refused: the odd ones of `sound.py`, every recipe, every family, other Pythons' output."""

from pathlib import Path
from typing import Any

import pytest
from small import small_checkpoint, small_config

from halfbyte.gate.judge import gate
from halfbyte.quantize.pipeline import quantize

from .conftest import TINY
from .draft import Draft
from .sound import SOUND, Variant
from .test_corpus import policy_with
from .tokenizers import tokenizer_for


def refusals(decision: object) -> list[str]:
    return [f"{found.rule}: {found.found.message}" for found in decision.findings if found.refuses]  # type: ignore[attr-defined]


@pytest.mark.parametrize("variant", SOUND, ids=lambda variant: variant.name)
def test_sound(variant: Variant, tiny: Draft, small_mtp: Draft, tmp_path: Path) -> None:
    draft = (tiny if variant.base == "tiny" else small_mtp).copy()
    variant.change(draft)
    folder = draft.write(tmp_path / "models" / variant.name)
    options: dict[str, Any] = {key: TINY if value == "tiny" else value for key, value in variant.options.items()}
    decision = gate(folder, policy=policy_with(variant.policy), **options)
    assert refusals(decision) == []
    assert decision.verdict == "pass"


@pytest.mark.parametrize(
    "family", ["DeepSeek-V3-BF16", "GLM-4.7", "Qwen3-30B-A3B", "Mixtral-8x7B-v0.1", "MiniMax-M2.5-BF16"]
)
def test_every_family(family: str, tmp_path: Path) -> None:
    source = small_checkpoint(tmp_path / "in", family)
    (source / "tokenizer.json").write_text(tokenizer_for(small_config(family)["vocab_size"]))
    quantize(source, tmp_path / "out")
    decision = gate(tmp_path / "out", depth="full", source=source)
    assert refusals(decision) == []


@pytest.mark.parametrize("rounding", ["max", "sweep"])
@pytest.mark.parametrize("recipe", ["nvfp4-routed-experts", "nvfp4-weight-only"])
def test_every_selective_recipe(recipe: str, rounding: str, tmp_path: Path) -> None:
    quantize(TINY, tmp_path / "out", recipe=recipe, rounding=rounding, max_shard_bytes=5_000_000)
    decision = gate(tmp_path / "out", depth="full", source=TINY)
    assert refusals(decision) == []


def test_the_less_selective_recipes_pass_for_research_only(tmp_path: Path) -> None:
    for recipe in ("nvfp4-experts-and-shared", "nvfp4-mlp"):
        quantize(TINY, tmp_path / recipe, recipe=recipe)
        assert {f.rule for f in gate(tmp_path / recipe).findings if f.refuses} == {"selective.role-format"}
        assert refusals(gate(tmp_path / recipe, policy="research", depth="full")) == []


def test_there_are_many_variants() -> None:
    assert len(SOUND) >= 20
