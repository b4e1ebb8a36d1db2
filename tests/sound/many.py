"""Checkpoints of very many tensors: real headers over holes in sparse files, a few hundred MB of disk for none."""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from small import small_config

from halfbyte.checkpoint.header import serialize_header
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.formats.nvfp4 import stored as nvfp4

NAME = "Qwen3-30B-A3B"
Header = tuple[str, tuple[int, ...]]


def write_many(folder: Path, count: int, *, packed: bool, shards: int = 40, layers: int = 96) -> int:
    """A qwen3_moe of `count` tensors or a few more. packed: its experts as NVFP4, four tensors each.

    Returns how many there are.
    """
    folder.mkdir(parents=True)
    experts = -(-count // (layers * 3 * (4 if packed else 1)))
    config = small_config(NAME) | {"num_hidden_layers": layers, "num_experts": experts}
    if packed:
        config["quantization_config"] = {
            "quant_method": "modelopt",
            "quant_algo": "NVFP4",
            "ignore": ["lm_head", *_kept(layers)],
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 16}, "targets": ["Linear"]}},
        }
    tensors = dict(_tensors(config, packed))
    names, weight_map, total = list(tensors), dict[str, str](), 0
    for i in range(shards):
        part = names[len(names) * i // shards : len(names) * (i + 1) // shards]
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        rows = [(name, *tensors[name], prod(tensors[name][1]) * DTYPE_BYTES[tensors[name][0]]) for name in part]
        header, size = serialize_header(rows, {"format": "pt"}), sum(row[3] for row in rows)
        with open(folder / file, "wb") as shard:
            shard.write(header)
            shard.truncate(len(header) + size)
        weight_map |= dict.fromkeys(part, file)
        total += size
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text(json.dumps(config))
    return len(tensors)


def _kept(layers: int) -> Iterator[str]:
    for layer in range(layers):
        yield f"model.layers.{layer}.self_attn*"
        yield f"model.layers.{layer}.mlp.gate"


def _tensors(config: dict[str, Any], packed: bool) -> Iterator[tuple[str, Header]]:
    hidden, width, head = config["hidden_size"], config["moe_intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    outside = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate": (config["num_experts"], hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        for name, shape in outside.items():
            yield f"model.layers.{layer}.{name}.weight", ("BF16", shape)
        for expert in range(config["num_experts"]):
            for name, shape in (
                ("gate_proj", (width, hidden)),
                ("up_proj", (width, hidden)),
                ("down_proj", (hidden, width)),
            ):
                module = f"model.layers.{layer}.mlp.experts.{expert}.{name}"
                if packed:
                    yield from ((part, (dtype, sides)) for part, dtype, sides, _ in nvfp4.FORMAT.tensors(module, shape))
                else:
                    yield f"{module}.weight", ("BF16", shape)
    for name, shape in {"model.embed_tokens": (config["vocab_size"], hidden), "model.norm": (hidden,)}.items():
        yield f"{name}.weight", ("BF16", shape)
    yield "lm_head.weight", ("BF16", (config["vocab_size"], hidden))
