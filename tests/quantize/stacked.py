"""Small checkpoints whose experts are stacks: gpt-oss in 16 bits as transformers saves them and in MXFP4 as they are
published, Llama 4 with its tower.

PYTHONPATH=src python tests/quantize/stacked.py DIR     # DIR/bf16, mxfp4 and llama4, for tests/golden/record.py stacks
"""

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from export.checkpoints import family_checkpoint, write_tokenizer  # noqa: E402
from families.configs import GPT_OSS_MXFP4  # noqa: E402
from families.test_towers import LLAMA4, LLAMA4_VISION  # noqa: E402
from small import write_checkpoint  # noqa: E402
from transformers import AutoConfig, AutoModelForImageTextToText  # noqa: E402

from halfbyte.checkpoint.source import Checkpoint  # noqa: E402
from halfbyte.formats.decoding import blocks_of_mxfp4  # noqa: E402
from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES  # noqa: E402

NAME = "gpt-oss-20b-BF16"
SIDE_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
STACKS = ("gate_up_proj", "down_proj")
NUMBERS = np.array([code for code in range(16) if code != 8], np.uint8)
"""All codes but minus zero, which we keep and ModelOpt's cast makes a zero."""
LOW = 98
"""Exponent byte of a block that is 2^20 smaller than the largest: E4M3 has no such scale beside it."""
FAR = ("model.layers.1.mlp.experts.down_proj", 2)
"""The stack and expert that has one."""


def arrays(folder: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """config.json, and every tensor of a checkpoint."""
    with Checkpoint.open(folder) as checkpoint:
        found = {}
        for name, tensor in checkpoint.tensors.items():
            buffer = np.empty(tensor.bytes, np.uint8)
            checkpoint.read_into(tensor, buffer.data)
            found[name] = buffer.view(NUMPY_DTYPES[tensor.dtype]).reshape(tensor.shape)
        return dict(checkpoint.config), found


def described(array: npt.NDArray[Any]) -> list[Any]:
    """As the golden files have a tensor: dtype, shape, sha256 of its bytes."""
    return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


def bf16(folder: Path) -> Path:
    return family_checkpoint(folder, NAME)


def mxfp4(folder: Path) -> Path:
    """The same model but for its experts, whose codes and scales are drawn; no block is all zeros."""
    plain = bf16(folder.with_name(folder.name + "-bf16"))
    config, tensors = arrays(plain)
    random = np.random.default_rng(11)
    packed: dict[str, npt.NDArray[Any]] = {}
    for name, array in tensors.items():
        if not name.endswith(STACKS):
            packed[name] = array
            continue
        experts, inputs, outputs = array.shape
        codes = random.choice(NUMBERS, (2, experts, outputs, inputs // 32, 16))
        blocks = codes[0] | codes[1] << 4
        blocks[..., 0] |= 1
        scales = random.integers(108, 119, blocks.shape[:-1], np.uint8)
        scales[0, 0, 0] = 118
        if name == FAR[0]:
            scales[FAR[1], 5, 1] = LOW
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    write_checkpoint(folder, config | {"quantization_config": GPT_OSS_MXFP4}, packed)
    for name in SIDE_FILES:
        shutil.copyfile(plain / name, folder / name)
    return folder


def llama4(folder: Path) -> Path:
    """Names and shapes are transformers' own, numbers are drawn."""
    config = AutoConfig.for_model("llama4", text_config=LLAMA4, vision_config=LLAMA4_VISION)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    random = np.random.default_rng(13)
    tensors = {
        name: (random.standard_normal(tensor.shape) * 0.05).astype(ml_dtypes.bfloat16)
        for name, tensor in model.state_dict().items()
    }
    document = config.to_dict() | {"architectures": [type(model).__name__]}
    write_checkpoint(folder, document, tensors, tokenizer=False)
    write_tokenizer(folder, "llama4")
    return folder


def decoded(blocks: npt.NDArray[np.uint8], scales: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The stack [E, K, N] that published blocks [E, N, K/32, 16] and scales [E, N, K/32] stand for."""
    experts, outputs, count, half = blocks.shape
    rows = blocks_of_mxfp4(blocks.reshape(experts * outputs, count * half), scales.reshape(experts * outputs, count))
    return np.ascontiguousarray(rows.reshape(experts, outputs, count * 2 * half).transpose(0, 2, 1))


def dequantized(packed: Path, folder: Path) -> Path:
    """A published checkpoint in 16 bits, which hold its numbers exactly."""
    config, tensors = arrays(packed)
    plain: dict[str, npt.NDArray[Any]] = {}
    for name, array in tensors.items():
        if name.endswith("_blocks"):
            stack = name.removesuffix("_blocks")
            numbers = decoded(array, tensors[f"{stack}_scales"])
            plain[stack] = numbers.astype(ml_dtypes.bfloat16)
            assert np.array_equal(plain[stack].astype(np.float32), numbers)
        elif not name.endswith("_scales"):
            plain[name] = array
    del config["quantization_config"]
    return write_checkpoint(folder, config, plain)


if __name__ == "__main__":
    for make in (bf16, mxfp4, llama4):
        print(make(Path(sys.argv[1]) / make.__name__))
