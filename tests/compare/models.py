"""A tiny pair to compare: a small random checkpoint with a nudged copy, and data of token ids for them."""

import json
from pathlib import Path

import numpy as np
from small import small_tensors, write_checkpoint

VOCABULARY = 96


def pair(folder: Path, name: str = "GLM-5.2", noise: float = 0.01) -> tuple[Path, Path]:
    """Baseline, and a copy with noise on every matrix (relative to the weights' 0.05)."""
    config, tensors = small_tensors(name)
    tensors = {key: value for key, value in tensors.items() if ".layers.5." not in key}
    config |= {"num_nextn_predict_layers": 0}
    if "kv_lora_rank" in config:
        config["num_key_value_heads"] = config["num_attention_heads"]
    random = np.random.default_rng(1)
    nudged = {
        key: (value.astype(np.float32) + random.standard_normal(value.shape) * noise).astype(value.dtype)
        if value.ndim == 2
        else value
        for key, value in tensors.items()
    }
    base = write_checkpoint(folder / "base", config, tensors, tokenizer=False)
    return base, write_checkpoint(folder / "nudged", config, nudged, tokenizer=False)


def data(folder: Path, lengths: tuple[int, ...] = (40, 25, 9, 1), seed: int = 0) -> Path:
    """Rows of random ids with two labels."""
    random = np.random.default_rng(seed)
    rows = [
        {"input_ids": random.integers(0, VOCABULARY, n).tolist(), "language": "ko" if i % 2 else "en", "id": str(i)}
        for i, n in enumerate(lengths)
    ]
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
