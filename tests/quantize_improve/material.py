"""A small model, data to round on, and what one run of gptq makes of them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stream.models import checkpoint

from halfbyte.api import quantize
from halfbyte.stream.executor import Streamed

SMALL_SHARDS = 7_200
"""Bytes: the eight experts, of two layers, lie in six shards, alone, in pairs, with other tensors."""


def write_data(path: Path, seed: int = 0) -> str:
    random = np.random.default_rng(seed)
    rows = [json.dumps({"input_ids": random.integers(0, 96, 30).tolist()}) for _ in range(12)]
    path.write_text("\n".join(rows))
    return str(path)


def made(out: Path, **options: Any) -> Path:
    """A checkpoint of the small GLM."""
    source = options.pop("source", None) or checkpoint()
    quantize(source, out, **{"input_scale": "1", "max_shard_bytes": SMALL_SHARDS, **options})
    return out


def copied(folder: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    return to


def evidence(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "halfbyte.json").read_text())
    return document


def check_loads(folder: Path) -> None:
    """Every weight is read and takes part: gate and up share weight_scale_2, all scales are sound, or it raises."""
    with Streamed.open(folder) as model:
        model.start([torch.arange(60)])
        while model.next_layer < model.layers:
            model.step()
        assert model.logits(0, 0, 60).isfinite().all()
