"""Rounded experts on their way from the rounding pass to the shards: two files each, in the staging folder.

    L-E.codes   gate/up codes, gate/up scales, down codes, down scales, one after the other
    L-E.json    written last: the job's key, shapes, weight_scale_2 of both, SHA-256 of the codes, the record

An expert counts as rounded once its .json names the job at hand. Needs no torch.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.writer import output_error, write_whole
from halfbyte.errors import OutputError
from halfbyte.nvfp4.layout import BLOCK_SIZE
from halfbyte.nvfp4.reference import Encoded

FOLDER = "experts"


class StoredExpert(NamedTuple):
    """gate_up: [2I, H], gate rows first. down: [H, I]. record: what `RoundedExperts.records` gathers."""

    gate_up: Encoded
    down: Encoded
    record: dict[str, Any]


class RoundedExperts:
    """The rounded experts of one job. key: whatever the bytes depend on. layers: those whose experts are rounded."""

    def __init__(self, folder: Path, key: str, layers: set[int]) -> None:
        """Raises OutputError if the folder cannot be made."""
        self.folder, self.key, self.layers = folder, key, layers
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(folder, error) from None

    def put(self, layer: int, expert: int, stored: StoredExpert) -> None:
        """Keep an expert, completely or not at all."""
        content = b"".join(
            part.tobytes() for matrix in (stored.gate_up, stored.down) for part in (matrix.codes, matrix.scales)
        )
        header = {
            "key": self.key,
            "sha256": hashlib.sha256(content).hexdigest(),
            "shapes": [list(matrix.codes.shape) for matrix in (stored.gate_up, stored.down)],
            "scale_2": [float(matrix.scale_2) for matrix in (stored.gate_up, stored.down)],
            "record": stored.record,
        }
        write_whole(self._path(layer, expert, "codes"), content)
        write_whole(self._path(layer, expert, "json"), json.dumps(header).encode())

    def get(self, layer: int, expert: int) -> StoredExpert | None:
        """An expert that was kept whole by this job, else None."""
        header = self._header(layer, expert)
        try:
            content = b"" if header is None else self._read(layer, expert)
        except OSError:
            return None
        if header is None or hashlib.sha256(content).hexdigest() != header["sha256"]:
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
            raise OutputError(
                f"{self._path(layer, expert, 'codes')}: missing or damaged", hint="start over with --overwrite"
            )
        return stored

    def records(self) -> dict[int, dict[int, dict[str, Any]]]:
        """By layer and expert, also of those whose codes were dropped."""
        found: dict[int, dict[int, dict[str, Any]]] = {}
        names = [path.stem.split("-") for path in self.folder.glob("*.json")]
        for layer, expert in sorted((int(a), int(b)) for a, b in names):
            header = self._header(layer, expert)
            if header is not None:
                found.setdefault(layer, {})[expert] = header["record"]
        return found

    def drop(self, layer: int, expert: int) -> None:
        """The codes are in a finished shard: free their space, keep the record."""
        self._path(layer, expert, "codes").unlink(missing_ok=True)

    def _read(self, layer: int, expert: int) -> bytes:
        """Codes and scales as `put` wrote them. Raises OSError."""
        return self._path(layer, expert, "codes").read_bytes()

    def _path(self, layer: int, expert: int, ending: str) -> Path:
        return self.folder / f"{layer}-{expert}.{ending}"

    def _header(self, layer: int, expert: int) -> dict[str, Any] | None:
        try:
            header = json.loads(self._path(layer, expert, "json").read_bytes())
        except (OSError, ValueError):
            return None
        return header if isinstance(header, dict) and header.get("key") == self.key else None


def _taken(content: bytes, position: int, shape: tuple[int, int]) -> tuple[npt.NDArray[np.uint8], int]:
    size = shape[0] * shape[1]
    return np.frombuffer(content, np.uint8, size, position).reshape(shape), position + size
