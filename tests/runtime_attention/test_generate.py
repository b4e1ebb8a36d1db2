"""`generate` as before, with every way it drives a cache."""

import copy
from typing import Any

import pytest

from halfbyte.modules.attention import LatentCache, install
from halfbyte.modules.attention.latent_cache import LatentLayer

from .models import eager_and_ours, small, text, tiny, tokens, torch, transformers

MASK = torch.ones(2, 30, dtype=torch.long)
MASK[1, :11] = 0


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"prefill_chunk_size": 7},
        {"use_cache": False},
        {"num_beams": 3},
        {"num_return_sequences": 2, "num_beams": 2},
    ],
    ids=["greedy", "chunked-prefill", "no-cache", "beams", "beams-returned"],
)
def test_same_tokens_as_eager(settings: dict[str, Any]) -> None:
    ids = tokens(2, 30)

    def run(model: Any) -> Any:
        return model.generate(ids, attention_mask=MASK, do_sample=False, max_new_tokens=8, **settings)

    expected, ours = eager_and_ours(small(), run)
    assert ours.shape[1] == 38
    assert torch.equal(ours, expected)


def test_tiny_generates_beyond_top_k() -> None:
    expected, ours = eager_and_ours(
        tiny(), lambda m: m.generate(text(300), do_sample=False, max_new_tokens=8, pad_token_id=0)
    )
    assert torch.equal(ours, expected)


def test_generate_fills_a_latent_cache_and_goes_on_from_it() -> None:
    model, ids = small(), tokens(1, 25)
    install(model)
    settings = {"do_sample": False, "max_new_tokens": 5, "return_dict_in_generate": True}
    first = model.generate(ids, **settings)
    assert all(isinstance(layer, LatentLayer) for layer in first.past_key_values.layers)
    more = model.generate(first.sequences, past_key_values=first.past_key_values, **settings)
    assert torch.equal(more.sequences, model.generate(ids, **settings | {"max_new_tokens": 10}).sequences)


@pytest.mark.parametrize(
    "cache", [None, LatentCache(4), transformers.DynamicCache()], ids=["none", "latent", "dynamic"]
)
def test_plain_forward_with_a_cache(cache: Any) -> None:
    model, ids = small(), tokens(1, 40)
    install(model)
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        first = model(ids[:, :30], past_key_values=copy.deepcopy(cache), use_cache=True)
        rest = model(ids[:, 30:], past_key_values=first.past_key_values)
    torch.testing.assert_close(rest.logits, whole[:, 30:], atol=1e-4, rtol=0)


def test_crop_takes_tokens_back() -> None:
    model, ids = small(), tokens(1, 40)
    install(model)
    with torch.no_grad():
        cache = model(ids, use_cache=True).past_key_values
        cache.crop(-15)
        assert cache.get_seq_length() == 25
        again = model(ids[:, 25:], past_key_values=cache).logits
        torch.testing.assert_close(again, model(ids).logits[:, 25:], atol=1e-4, rtol=0)


def test_base_model_with_positional_arguments_and_embeddings() -> None:
    model, ids = small(), tokens(2, 30)

    def run(m: Any) -> Any:
        return m.model(ids, MASK).last_hidden_state, m(inputs_embeds=m.model.embed_tokens(ids)).logits

    expected, ours = eager_and_ours(model, run)
    torch.testing.assert_close(ours[0][MASK.bool()], expected[0][MASK.bool()], atol=1e-4, rtol=0)
    torch.testing.assert_close(ours[1], expected[1], atol=1e-4, rtol=0)
