"""Rounded experts that go into shards as soon as a shard's experts are all there."""

from collections.abc import Callable
from pathlib import Path

from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.rounding.store import Number, RoundedExperts, StoredExpert, experts_of


class ImprovedExperts(RoundedExperts):
    """Experts wait in their folder for the others of their shard; afterwards the shard itself holds them."""

    def __init__(self, dst: Path, key: str, layers: set[int], shards: list[OutputShard]) -> None:
        """on_complete, once it is set, is told each shard whose last expert was put."""
        super().__init__(dst, key, layers, shards)
        self._missing: dict[str, set[Number]] = {}
        self.on_complete: Callable[[OutputShard], None] | None = None

    def missing(self, shard: OutputShard) -> set[Number]:
        """Its experts that are not rounded yet."""
        if shard.file not in self._missing:
            numbers = experts_of(shard, self.layers)
            self._missing[shard.file] = {number for number in numbers if self.get(*number) is None}
        return self._missing[shard.file]

    def put(self, layer: int, expert: int, stored: StoredExpert) -> None:
        super().put(layer, expert, stored)
        shard, _ = self._where[layer, expert]
        missing = self.missing(shard)
        missing.discard((layer, expert))
        if not missing and self.on_complete is not None:
            self.on_complete(shard)
