"""The cache of multi-head latent attention: latents, not heads.

Per token and layer kv_lora_rank + qk_rope_head_dim numbers (512 + 64 = 576), on layers with an own indexer 128 more
(index_head_dim). One token's 576 numbers lie together, so that a selected token is one contiguous read. Buffers grow
by a sixteenth instead of being copied for every token, as `torch.cat` caches are.
"""

from typing import Any, cast

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache

from halfbyte.errors import UnsupportedError


class GrowingRows:
    """A tensor [B, length, D] that is appended to along its length; spare capacity at most a sixteenth + 64 rows."""

    def __init__(self) -> None:
        self.buffer: torch.Tensor | None = None
        self.length = 0

    def append(self, rows: torch.Tensor) -> torch.Tensor:
        """Copy rows [B, S, D] behind the others. Returns a view [B, length, D] on all, valid until the next append."""
        batch, count, width = rows.shape
        length = self.length + count
        if self.buffer is None or length > self.buffer.shape[1]:
            grown = rows.new_empty(batch, length + max(64, length // 16), width)
            if self.buffer is not None:
                grown[:, : self.length] = self.buffer[:, : self.length]
            self.buffer = grown
        self.buffer[:, self.length : length] = rows
        self.length = length
        return self.buffer[:, :length]

    def map_batch(self, index: torch.Tensor) -> None:
        """Keep the sequences `index` of the batch, in that order (repeats allowed)."""
        if self.buffer is not None:
            self.buffer = self.buffer.index_select(0, index.to(self.buffer.device))

    @property
    def nbytes(self) -> int:
        """Bytes allocated, spare capacity included."""
        return 0 if self.buffer is None else self.buffer.nbytes


class LatentLayer(CacheLayerMixin):  # transformers leaves its hook untyped
    """One layer's latents and, on layers that select, index keys. The rest is what transformers asks of a layer."""

    is_sliding = False
    is_croppable = True

    def __init__(self) -> None:
        super().__init__()
        self.latents = GrowingRows()
        self.index_keys = GrowingRows()

    def append(self, latents: torch.Tensor) -> torch.Tensor:
        """latents [B, S, kv_lora_rank + qk_rope_head_dim]; returns those of all tokens so far, a view."""
        self.is_initialized = True
        return self.latents.append(latents)

    def append_index_keys(self, keys: torch.Tensor) -> torch.Tensor:
        """keys [B, S, index_head_dim]; returns those of all tokens so far, a view."""
        return self.index_keys.append(keys)

    def get_seq_length(self) -> int:
        return self.latents.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.latents.length + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.latents, self.index_keys = GrowingRows(), GrowingRows()
        self.is_initialized = False

    def crop(self, tokens: int) -> None:
        """Drop the last -tokens tokens (transformers 5.23); a positive number is a length to keep (older versions)."""
        for rows in (self.latents, self.index_keys):
            rows.length = max(0, rows.length + tokens) if tokens <= 0 else min(rows.length, tokens)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.latents.map_batch(indices)
        self.index_keys.map_batch(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.latents.buffer is not None:
            batch = torch.arange(self.latents.buffer.shape[0], device=self.latents.buffer.device)
            self.batch_select_indices(batch.repeat_interleave(repeats))

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        raise self._foreign()

    def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        raise self._foreign()

    def offload(self) -> None:
        raise UnsupportedError("a latent cache cannot be offloaded", hint="it is already 576 numbers a token and layer")

    @staticmethod
    def _foreign() -> UnsupportedError:
        return UnsupportedError(
            "a latent cache was given to an attention that is not Halfbyte's",
            hint="call halfbyte.runtime.attention.install(model) on this model, or give it transformers' DynamicCache",
        )


class LatentCache(Cache):
    """A cache of `num_layers` latent layers; `install` makes one where the caller gives none."""

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[LatentLayer() for _ in range(num_layers)])

    @property
    def nbytes(self) -> int:
        """Bytes allocated in all layers, spare capacity included."""
        layers = cast(list[LatentLayer], self.layers)
        return sum(layer.latents.nbytes + layer.index_keys.nbytes for layer in layers)


def as_latent(cache: Cache | None, num_layers: int) -> Cache:
    """The cache that our attention can fill: a new one for None, else `cache` itself.

    `generate` makes a DynamicCache before it calls the model and keeps hold of it, so an empty one gets latent layers
    put in, in place. Raises UnsupportedError for one that holds tokens already and for every other kind.
    """
    if cache is None:
        return LatentCache(num_layers)
    if cache.layers and all(isinstance(layer, LatentLayer) for layer in cache.layers):
        return cache
    if type(cache) is not DynamicCache or cache.offloading:
        raise UnsupportedError(
            f"sparse attention cannot use a {'offloaded ' if cache.offloading else ''}{type(cache).__name__}",
            hint="leave past_key_values and cache_implementation unset, or pass a DynamicCache or LatentCache",
        )
    if cache.get_seq_length():
        raise UnsupportedError(
            f"the cache holds {cache.get_seq_length()} tokens from transformers' own attention",
            hint="start again with an empty cache: past tokens cannot be turned into latents",
        )
    cache.layers = [LatentLayer() for _ in range(num_layers)]
    cache.layer_class_to_replicate = None
    return cache
