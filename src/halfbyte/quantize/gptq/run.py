"""The rounding pass: calibration data through the model, layer after layer on the layers already rounded."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.activations import ACT2FN

from halfbyte import __version__
from halfbyte.calibrate.coverage import Coverage
from halfbyte.calibrate.run import DEFAULT_MIN_TOKENS
from halfbyte.data.documents import load
from halfbyte.data.tokenizer import open_tokenizer
from halfbyte.errors import UnsupportedError
from halfbyte.progress import Progress
from halfbyte.quantize.calibrated import Bounds
from halfbyte.quantize.gptq.rounder import Rounder
from halfbyte.quantize.gptq.settings import Settings
from halfbyte.quantize.gptq.store import FOLDER, RoundedExperts
from halfbyte.stream.executor import Streamed


@dataclass(frozen=True)
class Rounding:
    """What the pass leaves. experts: rounded, to be written. evidence: data and settings."""

    experts: RoundedExperts
    evidence: dict[str, Any]


def round_experts(
    src: Path,
    staging: Path,
    data: Sequence[str],
    layers: set[int],
    bounds: Bounds,
    progress: Progress | None,
    settings: Settings | None = None,
) -> Rounding:
    """Round the routed experts of `layers` on `data`. Goes on after a kill, expert by expert.

    staging: folder for activations and rounded experts. Raises HalfbyteError.
    """
    settings = settings or Settings()
    documents = load(list(data), open_tokenizer(src), max_length=bounds.length, tokens=bounds.tokens)
    sequences = [torch.from_numpy(document.ids) for document in documents.documents]
    with Streamed.open(
        src, device=bounds.device, memory_budget=bounds.memory_budget, work=staging, progress=progress
    ) as model:
        key = _key(src, documents.sha256, layers, bounds, settings)
        store = RoundedExperts(staging / FOLDER, key, layers)
        rounder = Rounder(
            model.num_experts, layers, [len(ids) for ids in sequences], _activation(model.config), settings, store
        )
        model.start(sequences, key=f"gptq {key}")
        model.restore(rounder)
        while model.next_layer < model.layers:
            model.step(rounder)
            rounder.settle()
        counts = {layer: [one.tokens for one in seen.gate_up] for layer, seen in rounder.layers.items()}
        coverage = Coverage(DEFAULT_MIN_TOKENS, counts)
        model.finish()
    evidence = {
        "method": "gptq",
        "data": {"documents": len(sequences), "tokens": documents.tokens, "sha256": documents.sha256},
        "settings": settings.as_json(),
        "layers": sorted(layers),
        "coverage": coverage.as_json(),
    }
    return Rounding(store, evidence)


def _activation(config: Any) -> Any:
    name = getattr(config, "hidden_act", None)
    if name not in ACT2FN:
        raise UnsupportedError(f"hidden_act {name!r}: not an activation that can be computed")
    return ACT2FN[name]


def _key(src: Path, data: str, layers: set[int], bounds: Bounds, settings: Settings) -> str:
    """Equal for runs that give the same rounded experts; the memory budget is no part of it."""
    files = sorted([*src.glob("*.safetensors"), src / "config.json"])
    document = {
        "halfbyte": __version__,
        "torch": torch.__version__,
        "source": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files],
        "data": data,
        "layers": sorted(layers),
        "device": bounds.device,
        "settings": settings.as_json(),
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
