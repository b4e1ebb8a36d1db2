"""A checkpoint in memory that a test changes at will and writes out, right or wrong, with evidence to match."""

import copy
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from halfbyte.checkpoint.header import serialize_header
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.formats.nvfp4.codec import decode, encode
from halfbyte.formats.nvfp4.reference import Encoded

Stored = tuple[str, tuple[int, ...], bytes]
BF16 = np.dtype(ml_dtypes.bfloat16)


class Draft:
    """config, quant (hf_quant_config.json), evidence: documents, None to leave the file out. tensors: name -> (dtype,
    shape, bytes). side: other files. after: run on the written folder, for damage below the level of documents."""

    def __init__(self, folder: Path) -> None:
        with Checkpoint.open(folder) as checkpoint:
            self.config: dict[str, Any] | None = checkpoint.config
            self.tensors: dict[str, Stored] = {}
            for name, tensor in checkpoint.tensors.items():
                content = bytearray(tensor.bytes)
                checkpoint.read_into(tensor, memoryview(content))
                self.tensors[name] = (tensor.dtype, tensor.shape, bytes(content))
        self.quant: dict[str, Any] | None = json.loads((folder / "hf_quant_config.json").read_text())
        self.evidence: dict[str, Any] | None = json.loads((folder / "halfbyte.json").read_text())
        documents = {"config.json", "hf_quant_config.json", "halfbyte.json", "model.safetensors.index.json"}
        self.side = {
            path.name: path.read_bytes()
            for path in folder.iterdir()
            if path.is_file() and path.name not in documents and path.suffix not in (".safetensors", ".py", ".jsonl")
        }
        self._origin = folder / next(iter(checkpoint.shards))
        self._as_read = dict(self.tensors)
        self.shards = 1
        self.with_index = True
        self.index: Callable[[dict[str, Any]], None] | None = None
        self.header: Callable[[list[Any]], list[Any]] | None = None
        self.after: Callable[[Path], None] | None = None
        self.rehash = True

    def copy(self) -> "Draft":
        return copy.deepcopy(self)

    @property
    def _untouched(self) -> bool:
        return self.after is None and self.shards == 1 and self.with_index and self.tensors == self._as_read

    # tensors

    def array(self, name: str) -> np.ndarray:
        dtype, shape, content = self.tensors[name]
        kinds = {"BF16": BF16, "F32": np.float32, "U8": np.uint8, "F8_E4M3": np.uint8}
        return np.frombuffer(content, kinds[dtype]).reshape(shape).copy()

    def put(self, name: str, array: np.ndarray, dtype: str | None = None) -> None:
        spelled = {BF16: "BF16", np.dtype(np.float32): "F32", np.dtype(np.uint8): "U8"}
        self.tensors[name] = (dtype or spelled[array.dtype], array.shape, np.ascontiguousarray(array).tobytes())

    def scalar(self, name: str, value: float) -> None:
        self.tensors[name] = ("F32", (), np.float32(value).tobytes())

    def pack(self, module: str, scales: bool = True) -> None:
        """Turn a BF16 linear into NVFP4."""
        encoded, _ = encode(self.array(f"{module}.weight"))
        self.put(f"{module}.weight", encoded.codes)
        self.put(f"{module}.weight_scale", encoded.scales, "F8_E4M3")
        self.scalar(f"{module}.weight_scale_2", float(encoded.scale_2))
        if scales:
            self.scalar(f"{module}.input_scale", 1.0)

    def unpack(self, module: str) -> None:
        """Turn an NVFP4 linear into BF16."""
        scale_2 = np.float32(self.array(f"{module}.weight_scale_2")[()])
        values = decode(Encoded(self.array(f"{module}.weight"), self.array(f"{module}.weight_scale"), scale_2))
        for part in ("weight_scale", "weight_scale_2", "input_scale"):
            self.tensors.pop(f"{module}.{part}", None)
        self.put(f"{module}.weight", values.astype(BF16))

    def drop(self, *pieces: str) -> None:
        """Remove every tensor whose name holds one of the pieces."""
        gone = [name for name in self.tensors if any(piece in name for piece in pieces)]
        assert gone
        for name in gone:
            del self.tensors[name]

    # metadata

    @property
    def block(self) -> dict[str, Any]:
        assert self.config is not None
        found: dict[str, Any] = self.config["quantization_config"]
        return found

    def exclude(self, change: Callable[[list[str]], list[str]]) -> None:
        """Change the exclusions, in both blocks."""
        assert self.quant is not None
        self.block["ignore"] = change(self.block["ignore"])
        self.quant["quantization"]["exclude_modules"] = self.block["ignore"]

    # files

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        weight_map: dict[str, str] = {}
        names, written = list(self.tensors), []
        for i in range(self.shards):
            part = names[len(names) * i // self.shards : len(names) * (i + 1) // self.shards]
            file = f"model-{i + 1:05d}-of-{self.shards:05d}.safetensors" if self.with_index else "model.safetensors"
            if self._untouched:
                os.link(self._origin, folder / file)
            else:
                self._write_shard(folder / file, part)
            weight_map |= dict.fromkeys(part, file)
            written.append(file)
        index = {
            "metadata": {"total_size": sum(len(content) for *_, content in self.tensors.values())},
            "weight_map": weight_map,
        }
        if self.index is not None:
            self.index(index)
        documents = {"config.json": self.config, "hf_quant_config.json": self.quant}
        documents |= {"model.safetensors.index.json": index} if self.with_index else {}
        for file, document in documents.items():
            if document is not None:
                (folder / file).write_text(json.dumps(document))
        for file, content in self.side.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        if self.after is not None:
            self.after(folder)
        if self.evidence is not None:
            evidence = self.evidence if not self.rehash else self.evidence | self._hashes(folder, written)
            (folder / "halfbyte.json").write_text(json.dumps(evidence))
        return folder

    def _write_shard(self, path: Path, names: list[str]) -> None:
        entries = [(name, self.tensors[name][0], self.tensors[name][1], len(self.tensors[name][2])) for name in names]
        with open(path, "wb") as file:
            file.write(serialize_header(entries, {"format": "pt"}))
            for name in names:
                file.write(self.tensors[name][2])

    def _hashes(self, folder: Path, shards: list[str]) -> dict[str, Any]:
        """Evidence of whatever lies there: the mistake under test is to be found by its own rule."""
        rows: dict[str, list[dict[str, Any]]] = {"shards": [], "files": []}
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                row = {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                rows["shards" if path.name in shards else "files"].append(row)
        return rows


def edit_header(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a shard's header in place, the data left as they are."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def flip(path: Path, offset: int, mask: int = 0x10) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ mask]))
