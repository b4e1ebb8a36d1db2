"""The executor's logits are the whole model's, bit for bit in float32 on a CPU."""

from pathlib import Path

import pytest
import torch

from halfbyte.stream.executor import Streamed
from stream.models import checkpoint, sequences, streamed_logits, whole_logits

FAMILIES = (
    "GLM-5.2",
    "DeepSeek-V3-BF16",
    "DeepSeek-V3.2",
    "Kimi-K2-BF16",
    "GLM-4.7",
    "GLM-4.7-Flash",
    "Qwen3-30B-A3B",
    "MiniMax-M2.5-BF16",
    "Mixtral-8x7B-v0.1",
    "GLM-5.2-fused-mtp",
    "Qwen3-30B-A3B-fused",
    "MiniMax-M2.5-fused",
    "Mixtral-8x7B-v0.1-fused",
)
TINY = Path(__file__).parents[2] / "examples/tiny-glm"


@pytest.mark.parametrize("name", FAMILIES)
def test_float32_logits_are_the_whole_models_bits(name: str) -> None:
    ids = sequences()
    wanted = whole_logits(checkpoint(name), ids)
    assert min(row.std() for row in wanted) > 0.001
    for got, want in zip(streamed_logits(checkpoint(name), ids), wanted, strict=True):
        assert torch.equal(got, want)


def test_tiny_glm_longer_than_its_selection() -> None:
    ids = sequences(4096, (600, 33))
    for got, want in zip(streamed_logits(TINY, ids), whole_logits(TINY, ids), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(("name", "other"), [("GLM-5.2", "sparse"), ("DeepSeek-V3.2", "sparse"), ("GLM-4.7", "sdpa")])
def test_the_other_attention_agrees_to_rounding(name: str, other: str) -> None:
    ids = sequences()
    eager = streamed_logits(checkpoint(name), ids, attention="eager")
    for got, want in zip(streamed_logits(checkpoint(name), ids, attention=other), eager, strict=True):
        torch.testing.assert_close(got, want, atol=2e-7, rtol=1e-5)


def test_bfloat16_agrees_to_its_rounding() -> None:
    ids = sequences()
    exact = whole_logits(checkpoint("Qwen3-30B-A3B"), ids)
    for got, want in zip(streamed_logits(checkpoint("Qwen3-30B-A3B"), ids, dtype=torch.bfloat16), exact, strict=True):
        assert got.dtype == torch.float32
        assert (got - want).norm() < 0.02 * want.norm()


def test_hidden_states_and_parts_of_logits() -> None:
    ids = sequences()
    wanted = whole_logits(checkpoint(), ids)[1]
    with Streamed.open(checkpoint()) as model:
        model.start(ids)
        assert (model.layers, model.moe_layers, model.indexer_layers) == (5, [3, 4], [0, 1, 2])
        assert model.hidden(0).shape == (17, 64)
        assert [model.step() for _ in range(5)] == [0, 1, 2, 3, 4]
        part = model.logits(1, 10, 13)
    torch.testing.assert_close(part, wanted[10:13], atol=1e-7, rtol=1e-5)
