"""A pass over the model in which every linear's input is seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from halfbyte.calibrate.findings import SCHEMA
from halfbyte.calibrate.options import CalibrateOptions
from halfbyte.calibrate.watch import Watch
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.data.document import Document
from halfbyte.models.role_map import RoleMap
from halfbyte.progress import Progress
from halfbyte.stream.executor import Streamed


@dataclass(frozen=True)
class Watched:
    """What a pass saw. stream: where its time went (`stream.stats.Stats`). resumed_layers: from an earlier run."""

    watch: Watch
    roles: RoleMap
    stream: dict[str, Any]
    resumed_layers: int


def watched(
    source: str | Path | Checkpoint,
    documents: Sequence[Document],
    held_out: Sequence[bool],
    options: CalibrateOptions,
    progress: Progress | None = None,
) -> Watched:
    """Of all documents, each held out or not. Goes on after a kill, in `options.work`. Raises HalfbyteError."""
    with Streamed.open(
        source,
        device=options.device,
        memory_budget=options.memory_budget,
        work=None if options.work is None else Path(options.work),
        progress=progress,
    ) as model:
        watch = Watch(model.num_experts, options.rule, options.seed, held_out)
        ids = [torch.from_numpy(document.ids) for document in documents]
        model.start(ids, key=f"calibrate {SCHEMA} {options.rule.text}")
        resumed = model.next_layer
        model.restore(watch)
        while model.next_layer < model.layers:
            model.step(watch)
            watch.settle()
        model.finish()
        return Watched(watch, model.roles, model.stats.as_json(), resumed)
