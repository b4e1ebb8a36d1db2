"""Small models of every family, what transformers computes with them, and what the executor does."""

import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from families.configs import CONFIGS
from families.headers import Variant, headers_for
from safetensors.torch import load_file, save_file
from small import NUMPY, runnable_changes, small_config, small_tensors, write_checkpoint
from torch import Tensor
from transformers import AutoModelForCausalLM

from halfbyte.stream.executor import Streamed
from halfbyte.stream.model_config import model_config
from halfbyte.stream.observer import Observer

CHANGES = {name: runnable_changes(name) for name in CONFIGS}
LENGTHS = (17, 40, 40, 1, 64)


@cache
def checkpoint(name: str = "GLM-5.2", seed: int = 3) -> Path:
    """A small BF16 checkpoint of the family, experts that differ. Shared between tests: do not write into it."""
    if name == "DeepSeek-V3.2":  # published in FP8 only
        import numpy as np

        config = {key: value for key, value in small_config(name).items() if key != "quantization_config"}
        config, random = config | CHANGES[name], np.random.default_rng(seed)
        tensors = {
            tensor: (random.standard_normal(shape) * 0.05).astype(NUMPY[dtype])
            for tensor, (dtype, shape) in headers_for(config, Variant()).items()
        }
    else:
        config, tensors = small_tensors(name, seed, **CHANGES.get(name, {}))
    return write_checkpoint(Path(mkdtemp(prefix="halfbyte-stream-test-")) / "model", config, tensors)


def sequences(vocabulary: int = 96, lengths: tuple[int, ...] = LENGTHS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, vocabulary, (length,), generator=generator) for length in lengths]


def with_idle_weights(folder: Path) -> Path:
    """A copy with what transformers 5.23 wants to find of experts without weights, and does not use (LongCat-Flash)."""
    config = json.loads((folder / "config.json").read_text())
    number, idle = config.get("n_routed_experts"), config.get("zero_expert_num")
    if not idle:
        return folder
    tensors = {name: found for path in folder.glob("*.safetensors") for name, found in load_file(path).items()}
    for name in [name for name in tensors if ".experts.0." in name and "down_proj" not in name]:
        for expert in range(number, number + idle):
            other = name.replace(".experts.0.", f".experts.{expert}.")
            tensors.setdefault(other, torch.full_like(tensors[name], torch.nan))
    copy = Path(mkdtemp(prefix="halfbyte-idle-"))
    shutil.copyfile(folder / "config.json", copy / "config.json")
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return copy


def whole_model(folder: Path) -> Any:
    """All of it in memory, with the plain loop over experts and the attention that is right for all families."""
    options = {"dtype": torch.float32, "attn_implementation": "eager", "experts_implementation": "eager"}
    folder = with_idle_weights(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, config=model_config(folder), **options)
    for parameter in model.parameters():  # float32 files are mapped, and where a row lies decides how a GEMM rounds
        parameter.data = parameter.data.clone()
    return model


def whole_logits(folder: Path, ids: list[Tensor]) -> list[Tensor]:
    model = whole_model(folder)
    with torch.no_grad():
        return [model(row[None], use_cache=False).logits[0] for row in ids]


def streamed_logits(folder: Path, ids: list[Tensor], observer: Observer | None = None, **options: Any) -> list[Tensor]:
    with Streamed.open(folder, **options) as model:
        model.start(ids)
        while model.next_layer < model.layers:
            model.step(observer)
        return [model.logits(i, 0, len(row)) for i, row in enumerate(ids)]
