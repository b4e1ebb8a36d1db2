"""Batches with padding: what a real token gets does not depend on its neighbours in the batch.

Outputs at padding positions are not compared: eager averages over every slot there, the future included, and nobody
may look at them.
"""

from typing import Any

import pytest
import torch

from halfbyte.modules.attention import AttentionOptions, install

from .models import eager_and_ours, in_chunks, small, text, tiny, tokens

SIZES = [[60], [25, 35], [20] * 3, [50] + [1] * 10]


def left_padded(lengths: list[int], width: int) -> Any:
    """bool [B, width], the last `length` of each row True."""
    return torch.arange(width) >= width - torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("options", [AttentionOptions(), AttentionOptions(query_chunk=7, key_chunk=9, dense_factor=1)])
@pytest.mark.parametrize("sizes", SIZES)
def test_left_padding_equals_eager(sizes: list[int], options: AttentionOptions) -> None:
    """Rows with more keys than top_k, with fewer, with one; positions as `generate` counts them."""
    model, ids, mask = small(), tokens(4, 60), left_padded([60, 41, 12, 1], 60)
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    expected, ours = eager_and_ours(
        model, lambda m: in_chunks(m, ids, sizes, mask=mask.long(), position_ids=positions), options
    )
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(ours[mask], expected[mask], atol=1e-4, rtol=0)


def test_right_padding_equals_eager() -> None:
    model, ids, mask = small(), tokens(3, 60), left_padded([60, 41, 12], 60).flip(-1)
    expected, ours = eager_and_ours(model, lambda m: m(ids, attention_mask=mask.long()).logits)
    torch.testing.assert_close(ours[mask], expected[mask], atol=1e-4, rtol=0)


def test_tiny_with_padding_beyond_top_k() -> None:
    """As eager, and as the padded sequence alone."""
    ids = text(640).view(2, 320)
    mask = left_padded([320, 280], 320)
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    expected, ours = eager_and_ours(tiny(), lambda m: m(ids, attention_mask=mask.long(), position_ids=positions).logits)
    torch.testing.assert_close(ours[mask], expected[mask], atol=1e-4, rtol=0)
    _, alone = eager_and_ours(tiny(), lambda m: m(ids[1:, 40:]).logits)
    torch.testing.assert_close(ours[1, 40:], alone[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_implementation_of_the_model_does_not_matter(implementation: str) -> None:
    model, ids, mask = small(), tokens(2, 60), left_padded([60, 45], 60)
    expected, _ = eager_and_ours(model, lambda m: m(ids, attention_mask=mask.long()).logits)
    model.set_attn_implementation(implementation)
    install(model)
    with torch.no_grad():
        ours = model(ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(ours[mask], expected[mask], atol=1e-4, rtol=0)
