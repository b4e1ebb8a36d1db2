"""Rounded experts that go into shards as soon as a shard's experts are all there."""

from collections.abc import Callable
from pathlib import Path

from halfbyte.checkpoint.source import Shard
from halfbyte.errors import CheckpointError
from halfbyte.nvfp4.layout import BLOCK_SIZE
from halfbyte.quantize.gptq.store import RoundedExperts, StoredExpert
from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.units import Unit
from halfbyte.quantize.work import is_whole_expert

Number = tuple[int, int]
"""Layer and expert."""


class ImprovedExperts(RoundedExperts):
    """Experts wait in their folder for the others of their shard; afterwards the shard itself holds them."""

    def __init__(self, folder: Path, key: str, layers: set[int], dst: Path, shards: list[OutputShard]) -> None:
        """on_complete, once it is set, is told each shard whose last expert was put."""
        super().__init__(folder, key, layers)
        self._dst = dst
        self._where = {number: (shard, unit) for shard in shards for number, unit in experts_of(shard, layers).items()}
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

    def _read(self, layer: int, expert: int) -> bytes:
        """From the folder, or from the shard that took the expert. It may have taken another job's: see the hash."""
        try:
            return super()._read(layer, expert)
        except FileNotFoundError:
            return self._read_from_shard(*self._where[layer, expert])

    def _read_from_shard(self, shard: OutputShard, unit: Unit) -> bytes:
        gate, up, down = (linear.role.module for linear in unit.linears)
        elements = {linear.role.module: linear.source.shape[0] * linear.source.shape[1] for linear in unit.linears}
        parts = []
        try:
            file = Shard(self._dst / shard.file)
            try:
                for modules in ((gate, up), (down,)):
                    for part, per_byte in (("weight", 2), ("weight_scale", BLOCK_SIZE)):
                        for module in modules:
                            parts.append(bytearray(elements[module] // per_byte))
                            file.read_into(memoryview(parts[-1]), shard.offsets[f"{module}.{part}"])
            finally:
                file.close()
        except CheckpointError as error:
            raise OSError(error.message) from None
        return b"".join(parts)


def experts_of(shard: OutputShard, layers: set[int]) -> dict[Number, Unit]:
    """The routed experts of a shard that are rounded on data, by layer and number, in the order of rounding."""
    found: dict[Number, Unit] = {}
    for unit in filter(is_whole_expert, shard.units):
        layer, expert = unit.linears[0].role.layer, unit.linears[0].role.expert
        if layer in layers and expert is not None:
            found[layer, expert] = unit
    return dict(sorted(found.items()))
