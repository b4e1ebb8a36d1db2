"""How much memory the chunked attention may use at a time, and how large its chunks are.

Chunk sizes change speed and memory, never the result beyond rounding: an index score does not depend on its chunk.
"""

from dataclasses import dataclass

import torch

from halfbyte.errors import UsageError

MIB = 1 << 20


@dataclass(frozen=True)
class AttentionOptions:
    """Sizes of the working buffers; None means chosen from `scratch_bytes` and the model's shapes.

    scratch_bytes: bound on the temporary buffers of one layer (index scores, gathered latents, attention weights).
        None: 4 MiB on a CPU, whose caches decide (tiny-glm, 6,144 tokens, one thread: 2 MiB 8.5 s, 4 7.4, 8 8.0,
        16 12.3), 512 MiB on a GPU, which needs large products. One query and one key chunk are the least there can
        be, so a budget below what those need is exceeded.
    query_chunk: queries handled at a time. key_chunk: keys scored at a time by the indexer.
    dense_factor: up to `dense_factor * top_k` keys attention multiplies with all latents and masks, beyond it gathers
        the selected ones. Both give the same result; the factor is about where their speeds cross.
    """

    scratch_bytes: int | None = None
    query_chunk: int | None = None
    key_chunk: int | None = None
    dense_factor: float = 4.0

    def __post_init__(self) -> None:
        for name in ("scratch_bytes", "query_chunk", "key_chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"attention option {name} is {value}, wanted at least 1 or None")
        if self.dense_factor < 1:
            raise UsageError(
                f"attention option dense_factor is {self.dense_factor}, wanted at least 1",
                hint="up to top_k keys everything is selected, so there is nothing to gather",
            )

    def budget(self, device: torch.device) -> int:
        """Bytes of scratch on `device`."""
        if self.scratch_bytes is not None:
            return self.scratch_bytes
        return 4 * MIB if device.type == "cpu" else 512 * MIB

    def queries(self, bytes_per_query: int, device: torch.device) -> int:
        """Queries at a time when each needs `bytes_per_query` bytes of scratch."""
        return self.query_chunk or max(1, self.budget(device) // max(1, bytes_per_query))

    def keys(self, top_k: int) -> int:
        """Keys scored at a time: many times the running top-k, so that merging stays cheap."""
        return self.key_chunk or max(4096, 4 * top_k)
