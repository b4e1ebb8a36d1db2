"""On tiny-glm, whose indexer is trained, logits equal transformers' eager attention."""

import pytest

from halfbyte.modules.attention import AttentionOptions

from .models import eager_and_ours, in_chunks, text, tiny, torch

FLOAT32_TOLERANCE = 1e-4


@pytest.mark.parametrize("length", [1, 16, 255, 256, 257, 500])
def test_one_pass(length: int) -> None:
    expected, ours = eager_and_ours(tiny(), lambda model: model(text(length)).logits)
    torch.testing.assert_close(ours, expected, atol=FLOAT32_TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        AttentionOptions(query_chunk=1, key_chunk=333),
        AttentionOptions(query_chunk=64, key_chunk=1, dense_factor=1),
        AttentionOptions(scratch_bytes=1),
        AttentionOptions(scratch_bytes=1 << 30, dense_factor=1),
        AttentionOptions(dense_factor=1e6),
    ],
    ids=["one-query", "one-key", "no-budget", "one-chunk", "always-dense"],
)
def test_no_chunk_size_changes_the_result(options: AttentionOptions) -> None:
    ids = text(270)
    expected, ours = eager_and_ours(tiny(), lambda model: model(ids, logits_to_keep=64).logits, options)
    torch.testing.assert_close(ours, expected, atol=FLOAT32_TOLERANCE, rtol=0)


@pytest.mark.parametrize("sizes", [[400], [100, 200, 100], [256, 144], [257] + [1] * 5, [390] + [1] * 10])
def test_prefill_in_any_chunking_and_decode(sizes: list[int]) -> None:
    ids = text(400)
    one_pass, ours = eager_and_ours(
        tiny(), lambda model: in_chunks(model, ids, sizes) if model.model._forward_pre_hooks else model(ids).logits
    )
    torch.testing.assert_close(ours, one_pass[:, : ours.shape[1]], atol=FLOAT32_TOLERANCE, rtol=0)


def test_bfloat16_is_as_close_to_float32_as_transformers_is() -> None:
    ids = text(320)
    exact, _ = eager_and_ours(tiny(), lambda model: model(ids).logits)
    expected, ours = eager_and_ours(tiny(torch.bfloat16), lambda model: model(ids).logits.float())
    error, their_error = (ours - exact).pow(2).mean().sqrt(), (expected - exact).pow(2).mean().sqrt()
    assert their_error > 0
    assert error < 1.25 * their_error  # 1.15 on a processor without bfloat16 instructions, about 1 with them
    assert (ours.argmax(-1) == expected.argmax(-1)).float().mean() > 0.93
