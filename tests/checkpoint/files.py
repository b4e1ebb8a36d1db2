"""Checkpoint folders made on the fly. The first byte of a tensor's data counts up, so that mix-ups show."""

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from families.configs import config

from halfbyte.checkpoint.header import serialize_header
from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.formats.dtypes import DTYPE_BYTES

Shards = Mapping[str, Sequence[str]]

SETS = (
    "GLM-5.2",
    "DeepSeek-V3-BF16",
    "DeepSeek-V3.2",
    "GLM-4.5-Air",
    "GLM-4.7-Flash",
    "Kimi-K2-BF16",
    "Qwen3-30B-A3B",
    "Qwen3-Next-80B-A3B",
    "Qwen3.5-35B-A3B-text",
    "ERNIE-4.5-21B-A3B",
    "Hunyuan-A13B",
    "MiMo-V2-Flash-BF16",
    "gpt-oss-20b",
    "LongCat-Flash-Chat",
    "DeepSeek-V4-Flash-BF16",
    "Nemotron-3-Super-120B-A12B",
    "Nemotron-3-Nano-30B-A3B",
    "Gemma-4-26B-A4B-text",
    "MiniMax-M2.5-BF16",
    "Mixtral-8x7B-v0.1",
)
"""One header set of each family; `test_inventory` goes through all sets."""

CONFIG = config("Qwen3-30B-A3B") | {"num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 2}


def shard_bytes(names: Sequence[str], dtype: str = "BF16", shape: tuple[int, ...] = (2, 3)) -> bytes:
    """A safetensors file of equal tensors."""
    size = prod(shape) * DTYPE_BYTES[dtype]
    data = b"".join(bytes([number % 256]) * size for number in range(len(names)))
    return serialize_header([(name, dtype, shape, size) for name in names], {"format": "pt"}) + data


def write_checkpoint(folder: Path, shards: Shards, weight_map: Any = None, config: Any = CONFIG) -> Path:
    """shards: file name -> tensor names. weight_map: the index; by default the true one if there are several shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for shard, names in shards.items():
        (folder / shard).write_bytes(shard_bytes(names))
    if weight_map is None and len(shards) > 1:
        weight_map = {name: shard for shard, names in shards.items() for name in names}
    if weight_map is not None:
        (folder / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder
