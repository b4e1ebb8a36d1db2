"""Rounded experts on their way from the rounding pass to the shards: two files each, in the staging folder.

    L-E.codes   gate/up codes, gate/up scales, down codes, down scales, one after the other
    L-E.json    written last: the job's key, shapes, weight_scale_2 of both, the record, SHA-256 of these and the codes

An expert counts as rounded once its .json names the job at hand, and as sound while the hash holds. The codes are
dropped once a finished shard has them, and are read from there if the pass has to begin anew. Needs no torch.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.shard import Shard
from halfbyte.checkpoint.writer import output_error, write_whole
from halfbyte.errors import CheckpointError, OutputError
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.nvfp4.reference import Encoded
from halfbyte.progress import Progress
from halfbyte.quantize.journal import STAGING
from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.staging import staged_files
from halfbyte.quantize.units import Unit, is_whole_expert

FOLDER = "experts"

Number = tuple[int, int]
"""Layer and expert."""


class StoredExpert(NamedTuple):
    """gate_up: [2I, H], gate rows first, or up alone, [I, H]. down: [H, I]. record: what `RoundedExperts.records`
    gathers."""

    gate_up: Encoded
    down: Encoded
    record: dict[str, Any]


class RoundedExperts:
    """The rounded experts of one job. key: whatever the bytes depend on. layers: those whose experts are rounded."""

    def __init__(self, dst: Path, key: str, layers: set[int], shards: Sequence[OutputShard]) -> None:
        """shards: of `dst`, which take the experts in the end. Raises OutputError if the folder cannot be made."""
        self.folder, self.key, self.layers = dst / STAGING / FOLDER, key, layers
        self._dst = dst
        self._where = {number: (shard, unit) for shard in shards for number, unit in experts_of(shard, layers).items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self.folder, error) from None

    def put(self, layer: int, expert: int, stored: StoredExpert) -> None:
        """Keep an expert, completely or not at all."""
        content = b"".join(
            part.tobytes() for matrix in (stored.gate_up, stored.down) for part in (matrix.codes, matrix.scales)
        )
        header = {
            "key": self.key,
            "shapes": [list(matrix.codes.shape) for matrix in (stored.gate_up, stored.down)],
            "scale_2": [float(matrix.scale_2) for matrix in (stored.gate_up, stored.down)],
            "record": stored.record,
        }
        signed = header | {"sha256": _sha256(header, content)}
        write_whole(self._path(layer, expert, "codes"), content)
        write_whole(self._path(layer, expert, "json"), json.dumps(signed).encode())

    def get(self, layer: int, expert: int) -> StoredExpert | None:
        """An expert that this job has rounded and that is sound, else None."""
        header = self._header(layer, expert)
        if header is None or header.get("key") != self.key:
            return None
        digest = header.pop("sha256", None)
        content = next((one for one in self._contents(layer, expert) if _sha256(header, one) == digest), None)
        if content is None:
            return None
        matrices, position = [], 0
        for (rows, half), scale_2 in zip(header["shapes"], header["scale_2"], strict=True):
            codes, position = _taken(content, position, (rows, half))
            scales, position = _taken(content, position, (rows, 2 * half // BLOCK_SIZE))
            matrices.append(Encoded(codes, scales, np.float32(scale_2)))
        return StoredExpert(matrices[0], matrices[1], header["record"])

    def needed(self, layer: int, expert: int) -> StoredExpert:
        """As `get`. Raises OutputError if the expert is not there."""
        stored = self.get(layer, expert)
        if stored is None:
            raise self._lost(layer, expert)
        return stored

    def unsound(self, finished: int, progress: Progress) -> list[Number]:
        """Experts that were rounded before and are damaged or gone, in order. finished: layers that the pass is past.

        What was rounded by another job is no damage, but the finished layers are to be ours. Reads everything.
        """
        begun = [one for one in sorted(self._where) if one[0] < finished or self._path(*one, "json").exists()]
        if begun:
            progress.start("check rounded experts", sum(self._where[number][1].packed_bytes for number in begun))
        found = []
        for number in begun:
            if self.get(*number) is None and (number[0] < finished or not self._of_another_job(*number)):
                found.append(number)
            progress.advance(self._where[number][1].packed_bytes)
        return found

    def records(self) -> dict[int, dict[int, dict[str, Any]]]:
        """By layer and expert, also of those whose codes were dropped. Raises OutputError if one is gone."""
        found: dict[int, dict[int, dict[str, Any]]] = {}
        for layer, expert in sorted(self._where):
            header = self._header(layer, expert)
            if header is None or header.get("key") != self.key:
                raise self._lost(layer, expert)
            found.setdefault(layer, {})[expert] = header["record"]
        return found

    def drop(self, layer: int, expert: int) -> None:
        """The codes are in a finished shard: free their space, keep the record."""
        self._path(layer, expert, "codes").unlink(missing_ok=True)

    def _contents(self, layer: int, expert: int) -> Iterator[bytes]:
        """What may be the codes and scales as `put` wrote them: of the folder, and of the shard that took them.

        A shard may have taken another job's, or none of the kind: see the hash.
        """
        with contextlib.suppress(OSError):
            yield self._path(layer, expert, "codes").read_bytes()
        shard, unit = self._where[layer, expert]
        for place in staged_files(self._dst, shard.file):
            if place.exists():
                yield _read_from_shard(place, shard, unit)

    def _path(self, layer: int, expert: int, ending: str) -> Path:
        return self.folder / f"{layer}-{expert}.{ending}"

    def _header(self, layer: int, expert: int) -> dict[str, Any] | None:
        try:
            header = json.loads(self._path(layer, expert, "json").read_bytes())
        except (OSError, ValueError):
            return None
        return header if isinstance(header, dict) else None

    def _of_another_job(self, layer: int, expert: int) -> bool:
        header = self._header(layer, expert)
        return header is not None and header.get("key") != self.key

    def _lost(self, layer: int, expert: int) -> OutputError:
        return OutputError(
            f"{self._path(layer, expert, 'codes')}: missing or damaged",
            hint="run the same command again: it finds what is damaged and rounds only that again",
        )


def experts_of(shard: OutputShard, layers: set[int]) -> dict[Number, Unit]:
    """The routed experts of a shard that are rounded on data, by layer and number, in the order of rounding."""
    found: dict[Number, Unit] = {}
    for unit in filter(is_whole_expert, shard.units):
        layer, expert = unit.linears[0].role.layer, unit.linears[0].role.expert
        if layer in layers and expert is not None:
            found[layer, expert] = unit
    return dict(sorted(found.items()))


def _sha256(header: Mapping[str, Any], content: bytes) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + content).hexdigest()


def _read_from_shard(path: Path, shard: OutputShard, unit: Unit) -> bytes:
    """A unit's codes and scales where `shard` has them, in the order of `RoundedExperts.put`; empty if unreadable."""
    *first, down = (linear.role.module for linear in unit.linears)
    elements = {linear.role.module: linear.source.shape[0] * linear.source.shape[1] for linear in unit.linears}
    parts = []
    try:
        file = Shard(path)
        try:
            for modules in (first, [down]):
                for part, per_byte in (("weight", 2), ("weight_scale", BLOCK_SIZE)):
                    for module in modules:
                        parts.append(bytearray(elements[module] // per_byte))
                        file.read_into(memoryview(parts[-1]), shard.offsets[f"{module}.{part}"])
        finally:
            file.close()
    except CheckpointError:
        return b""
    return b"".join(parts)


def _taken(content: bytes, position: int, shape: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], int]:
    size = shape[0] * shape[1]
    return np.frombuffer(content, np.uint8, size, position).reshape(shape), position + size
