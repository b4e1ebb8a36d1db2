"""How open each calibration token's continuation is, found by a first pass over the model as it is.

Where the model is certain of the next token a small error changes nothing; where it wavers the same error moves its
output. The measure is the trace of the prediction's Fisher information, `stream.ends.Ends.openness`.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import write_whole
from halfbyte.progress import Progress
from halfbyte.quantize.calibrated import DataBounds
from halfbyte.stream.executor import Streamed

FOLDER = "first-pass"
MOST_TOKENS = 2048
"""Whose logits are computed together; fewer where the memory budget wants it."""


def token_weights(
    src: Checkpoint | Path,
    sequences: Sequence[Tensor],
    certain: float,
    key: str,
    bounds: DataBounds,
    work: Path,
    progress: Progress | None,
) -> Tensor:
    """float32 [tokens]: `certain` for a token whose continuation is certain, 1 more than that on average.

    work: folder of the pass, which goes on there after a kill, and of its result, which is found again under `key`.
    """
    total = sum(len(ids) for ids in sequences)
    path = work / f"openness-{key[:16]}"
    content = _kept(path, total)
    if content is None:
        content = _openness(src, sequences, key, bounds, work / FOLDER, progress).numpy().tobytes()
        write_whole(path, content + hashlib.sha256(content).digest())
    shutil.rmtree(work / FOLDER, ignore_errors=True)  # only now: a pass that is over cannot be gone on with
    openness = torch.from_numpy(np.frombuffer(content, np.float32).copy())
    mean = openness.mean()
    return openness / mean + certain if bool(mean > 0) else torch.ones_like(openness)


def _kept(path: Path, tokens: int) -> bytes | None:
    """float32 [tokens] and their SHA-256, as an earlier run left them; None if they are not there or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    numbers, digest = content[: 4 * tokens], content[4 * tokens :]
    return numbers if hashlib.sha256(numbers).digest() == digest else None


def _openness(
    src: Checkpoint | Path,
    sequences: Sequence[Tensor],
    key: str,
    bounds: DataBounds,
    work: Path,
    progress: Progress | None,
) -> Tensor:
    """Openness at every position, float32 [tokens]."""
    with Streamed.open(
        src, device=bounds.device, memory_budget=bounds.memory_budget, work=work, progress=progress
    ) as model:
        model.start(sequences, key=f"gptq first pass {key}")
        while model.next_layer < model.layers:
            model.step()
        together = MOST_TOKENS
        if bounds.memory_budget is not None:
            together = max(1, min(together, bounds.memory_budget // 16 // (4 * model.vocab_size)))
        parts = []
        for number, ids in enumerate(sequences):
            for start in range(0, len(ids), together):
                parts.append(model.openness(number, start, min(start + together, len(ids))).cpu())
    return torch.cat(parts)
