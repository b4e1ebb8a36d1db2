"""What the cache holds, how it grows, and whose cache it refuses."""

from typing import Any

import pytest

from halfbyte.errors import UnsupportedError
from halfbyte.modules.attention import LatentCache, install, uninstall
from halfbyte.modules.attention.latent_cache import GrowingRows, LatentLayer, as_latent

from .models import small, text, tiny, tokens, torch, transformers


def test_numbers_per_token_of_tiny_glm() -> None:
    """576 on every layer, 128 more on the three layers that select."""
    install(tiny())
    try:
        with torch.no_grad():
            cache = tiny()(text(300), use_cache=True).past_key_values
    finally:
        uninstall(tiny())  # other tests share the model
    tiny_numbers = [(layer.latents.buffer.shape[-1], layer.index_keys.length and 128) for layer in cache.layers]
    assert tiny_numbers == [(576, 128)] * 3 + [(576, 0)] * 3
    assert all(layer.latents.length == 300 for layer in cache.layers)
    exact = 300 * (6 * 576 + 3 * 128) * 4
    assert exact <= cache.nbytes <= exact * 364 / 300  # a sixteenth or 64 rows to spare


def test_rows_grow_without_copying_for_every_token() -> None:
    rows, expected, buffers = GrowingRows(), [], set()
    for count in [5, 1, 1, 200, *[1] * 300]:
        new = torch.randn(2, count, 3)
        expected.append(new)
        view = rows.append(new)
        assert torch.equal(view, torch.cat(expected, dim=1))
        buffers.add(rows.buffer.data_ptr())  # type: ignore[union-attr]
    assert rows.buffer is not None
    assert rows.buffer.shape[1] <= rows.length * 17 / 16 + 64
    assert len(buffers) <= 8


def test_batch_operations() -> None:
    layer = LatentLayer()
    rows, keys = torch.randn(2, 4, 3), torch.randn(2, 4, 2)
    layer.append(rows)
    layer.append_index_keys(keys)
    layer.batch_repeat_interleave(2)
    layer.reorder_cache(torch.tensor([3, 0]))
    assert torch.equal(layer.append(torch.zeros(2, 1, 3))[:, :4], rows.flip(0))
    assert torch.equal(layer.append_index_keys(torch.zeros(2, 1, 2))[:, :4], keys.flip(0))
    layer.reset()
    assert layer.get_seq_length() == 0


def test_an_empty_dynamic_cache_is_filled_in_place() -> None:
    given = transformers.DynamicCache()
    assert as_latent(given, 3) is given
    assert [type(layer) for layer in given.layers] == [LatentLayer] * 3
    assert as_latent(given, 3) is given


def filled() -> Any:
    cache = transformers.DynamicCache()
    cache.update(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), 0)
    return cache


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        (filled(), "holds 2 tokens"),
        (transformers.DynamicCache(offloading=True) if torch.cuda.is_available() else None, "offloaded DynamicCache"),
        (transformers.StaticCache(config=small().config, max_cache_len=8), "StaticCache"),
    ],
    ids=["filled", "offloaded", "static"],
)
def test_refused_caches(cache: Any, message: str) -> None:
    if cache is None:
        cache = transformers.DynamicCache()
        cache.offloading = True  # making a real one needs an accelerator
    with pytest.raises(UnsupportedError, match=message):
        as_latent(cache, 4)


def test_a_latent_cache_says_so_when_transformers_own_attention_gets_it() -> None:
    with torch.no_grad(), pytest.raises(UnsupportedError, match="not Halfbyte's"):
        small()(tokens(1, 5), past_key_values=LatentCache(4), use_cache=True)
