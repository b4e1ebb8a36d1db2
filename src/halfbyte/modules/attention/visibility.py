"""Which cached slots a query may look at: the past, without padding.

transformers spells this as a float mask of shape [B, 1, S, T]; here it stays two facts, so that nothing of size
S x T ever exists: slot t is visible to query s of a call when t <= past + s, and when slot t is not padding.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Visibility:
    """padding: bool [B, T], True where a slot holds a real token; None when every slot does."""

    padding: torch.Tensor | None

    def to(self, device: torch.device) -> "Visibility":
        """The same on another device (layers of one model may lie on several)."""
        return self if self.padding is None else Visibility(self.padding.to(device))

    def hidden(self, queries: range, past: int, keys: range, device: torch.device) -> torch.Tensor | None:
        """What `queries` must not see of the slots `keys`.

        queries: positions inside this call, slot past + s each. Returns bool [B or 1, len(queries), len(keys)],
        True where hidden; None when all is visible.
        """
        causal = None
        if keys.stop - 1 > past + queries.start:
            slots = torch.arange(keys.start, keys.stop, device=device)
            causal = slots > torch.arange(past + queries.start, past + queries.stop, device=device)[:, None]
            causal = causal[None]
        if self.padding is None:
            return causal
        blank = ~self.padding[:, None, keys.start : keys.stop]
        return blank.expand(-1, len(queries), -1) if causal is None else causal | blank


def visibility(attention_mask: torch.Tensor | None, num_keys: int) -> Visibility:
    """From the caller's 2-D mask ([B, any length], non-zero = token) to the `num_keys` slots of the cache.

    A mask shorter than the cache hides the rest, a longer one is cut: what transformers' `prepare_padding_mask` and
    `padding_mask_function` (masking_utils.py, 5.23) do with it.
    """
    if attention_mask is None:
        return Visibility(None)
    mask = attention_mask[:, :num_keys].to(torch.bool)
    if mask.shape[1] < num_keys:
        mask = torch.nn.functional.pad(mask, (0, num_keys - mask.shape[1]))
    return Visibility(None if bool(mask.all()) else mask)
