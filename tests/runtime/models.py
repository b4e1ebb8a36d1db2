"""Small quantized checkpoints, and the plain transformers model that holds the same numbers in float32."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from small import runnable_changes, small_tensors, write_checkpoint
from transformers import AutoModelForCausalLM

from halfbyte.api import quantize
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.formats.catalogue import NVFP4
from halfbyte.formats.nvfp4 import reference
from halfbyte.models import roles_of
from halfbyte.stream.model_config import model_config

FAMILIES = (
    "GLM-5.2",
    "DeepSeek-V3-BF16",
    "Kimi-K2-BF16",
    "GLM-4.7",
    "GLM-4.7-Flash",
    "Qwen3-30B-A3B",
    "Mixtral-8x7B-v0.1",
    "MiniMax-M2.5-BF16",
)
IDS = torch.arange(40).view(2, 20)


@cache
def quantized(family: str, recipe: str = "nvfp4-routed-experts", **changes: Any) -> Path:
    """A small model of the family, quantized by Halfbyte. Shared between tests: do not write into it."""
    folder = Path(mkdtemp(prefix="halfbyte-test-"))
    config, tensors = small_tensors(family, 3, **runnable_changes(family) | changes)
    write_checkpoint(folder / "source", config, tensors)
    quantize(folder / "source", folder / "quantized", recipe=recipe)
    return folder / "quantized"


def load(folder: Path, **options: Any) -> Any:
    """`from_pretrained` in float32, eager attention (the sdpa path of glm_moe_dsa is wrong with masks)."""
    options = {"dtype": torch.float32, "attn_implementation": "eager"} | options
    return AutoModelForCausalLM.from_pretrained(folder, config=model_config(folder), **options)


def read(checkpoint: Checkpoint, name: str) -> bytes:
    buffer = bytearray(checkpoint.tensors[name].bytes)
    checkpoint.read_into(checkpoint.tensors[name], memoryview(buffer))
    return bytes(buffer)


def decoded(folder: Path, out: Path) -> Path:
    """The checkpoint with every packed linear decoded to float32 by the reference codec, for plain transformers."""
    with Checkpoint.open(folder) as checkpoint:
        roles, tensors = roles_of(checkpoint.config), {}
        for entry in inventory(checkpoint.tensors, roles):
            if entry.format == NVFP4:
                parts = {part: read(checkpoint, tensor.name) for part, tensor in entry.tensors.items()}
                rows, columns = entry.shape
                codes = np.frombuffer(parts["weight"], np.uint8).reshape(rows, columns // 2)
                scales = np.frombuffer(parts["weight_scale"], np.uint8).reshape(rows, columns // 16)
                scale_2 = np.frombuffer(parts["weight_scale_2"], np.float32)[0]
                tensors[entry.name] = reference.decode(reference.Encoded(codes, scales, scale_2))
            else:
                dtype = {"BF16": "bfloat16", "F32": "float32"}[entry.tensors[entry.role.part].dtype]
                import ml_dtypes  # noqa: F401  (gives numpy the name bfloat16)

                raw = np.frombuffer(read(checkpoint, entry.name), np.dtype(dtype))
                tensors[entry.name] = raw.reshape(entry.shape)
        config = {key: value for key, value in checkpoint.config.items() if key != "quantization_config"}
    return write_checkpoint(out, config, tensors)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(IDS, use_cache=False).logits
    return result
