"""The rounding pass: calibration data through the model, layer after layer on the layers already rounded."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from halfbyte import __version__
from halfbyte.calibrate.coverage import Coverage
from halfbyte.calibrate.file import write_scales
from halfbyte.calibrate.findings import SCHEMA, findings
from halfbyte.calibrate.options import CalibrateOptions
from halfbyte.calibrate.rule import parse_rule
from halfbyte.checkpoint.resume import DamagedError, fingerprint_of, read_state, remove_file, source_identity
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import output_error, write_whole
from halfbyte.data.documents import Documents
from halfbyte.evidence.calibration import DataUsed
from halfbyte.formats.modelopt import Algorithm
from halfbyte.progress import Progress
from halfbyte.quantize.calibrated import CALIBRATION, DataBounds
from halfbyte.quantize.options import OnData
from halfbyte.quantize.rounding.cores import experts_at_a_time, one_thread_each
from halfbyte.quantize.rounding.openness import token_weights
from halfbyte.quantize.rounding.rounder import Rounder
from halfbyte.quantize.rounding.settings import Settings
from halfbyte.quantize.rounding.store import RoundedExperts
from halfbyte.stream.executor import Streamed
from halfbyte.stream.snapshot import STATE

KEY = "job"
"""File in the work folder: whose pass its state is of."""


@dataclass(frozen=True)
class Task:
    """What is to be rounded, and on which data. key: equal for tasks that give the same rounded experts."""

    src: Checkpoint
    documents: Documents
    layers: set[int]
    bounds: DataBounds
    settings: Settings
    key: str

    @property
    def about_data(self) -> DataUsed:
        """For the evidence."""
        documents = self.documents
        return DataUsed(documents=len(documents.documents), tokens=documents.tokens, sha256=documents.sha256)


def task_for(
    src: Checkpoint, documents: Documents, layers: set[int], rounding: OnData, algorithm: Algorithm, bounds: DataBounds
) -> Task:
    """The task of rounding the routed experts of `layers` on `documents`."""
    settings = Settings.of(rounding, algorithm)
    return Task(src, documents, layers, bounds, settings, _key(src, documents.sha256, layers, bounds, settings))


def round_experts(task: Task, work: Path, store: RoundedExperts, progress: Progress) -> dict[str, Any]:
    """`_round_experts`, each on one thread."""
    with one_thread_each(task.bounds.device):
        return _round_experts(task, work, store, progress)


def _round_experts(task: Task, work: Path, store: RoundedExperts, progress: Progress) -> dict[str, Any]:
    """Round the task's routed experts into `store`. Goes on after a kill, expert by expert.

    work: folder for activations. Returns the evidence: data, settings, coverage. Raises HalfbyteError.
    """
    bounds, settings = task.bounds, task.settings
    _check_what_is_there(work, store, progress)
    write_whole(work / KEY, task.key.encode())
    sequences = [torch.from_numpy(document.ids) for document in task.documents.documents]
    weights = token_weights(task.src, sequences, settings.certain, task.key, bounds, work, progress)
    with Streamed.open(
        task.src, device=bounds.device, memory_budget=bounds.memory_budget, work=work, progress=progress
    ) as model:
        lengths, act = [len(ids) for ids in sequences], model.join
        rounder = Rounder(model.num_experts, task.layers, lengths, act, settings, store, weights)
        hidden, width = model.roles.arch.expert_hidden, model.roles.arch.expert_width
        rounder.side_by_side = experts_at_a_time(bounds.device, hidden, width, bounds.memory_budget)
        model.start(sequences, key=f"gptq {SCHEMA} {task.key}")
        model.restore(rounder)
        while model.next_layer < model.layers:
            model.step(rounder)
            rounder.settle()
        counts = {layer: [one.tokens for one in seen.gate_up] for layer, seen in rounder.layers.items()}
        coverage = Coverage(CalibrateOptions.min_tokens, counts)
        sampling = {"tokens": bounds.tokens, "max_length": bounds.length, "seed": 0, "pack": False}
        scales = findings(
            rounder, model.roles, task.documents, coverage, parse_rule(bounds.amax), sampling, model="rounded"
        )
        write_scales(work / CALIBRATION, *scales)
        model.finish()
    return {
        "method": settings.method,
        "data": task.about_data,
        "settings": settings.as_json(),
        "layers": sorted(task.layers),
        "coverage": coverage.as_json(),
    }


def _check_what_is_there(work: Path, store: RoundedExperts, progress: Progress) -> None:
    """Damaged experts are rounded again. The inputs of a finished layer are gone: then the pass begins anew, through
    the experts that are sound, which ends in the same bytes."""
    finished = _finished_layers(work, store.key, progress)
    unsound = store.unsound(finished, progress)
    if not unsound:
        return
    again = any(layer < finished for layer, _ in unsound)
    layer, expert = unsound[0]
    progress.note(
        f"{len(unsound)} of the rounded experts in {store.folder} missing or damaged, first layer {layer}, expert "
        f"{expert}: rounded again{', after the layers before them ran again' if again else ''}"
    )
    if again:
        remove_file(work / STATE)


def _finished_layers(work: Path, key: str, progress: Progress) -> int:
    """That the pass of this job has behind it; what another one left in its folder is forgotten."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(work, error) from None
    try:
        state = read_state(work / STATE)
        if state is not None and (work / KEY).read_bytes() == key.encode():
            return int(state["layers"])
    except DamagedError as error:
        progress.note(f"{error.message}; the pass begins anew")
    except OSError:
        pass
    remove_file(work / STATE)
    return 0


def _key(src: Checkpoint, data: str, layers: set[int], bounds: DataBounds, settings: Settings) -> str:
    """Equal for runs that give the same rounded experts; the memory budget is no part of it."""
    document = {
        "halfbyte": __version__,
        "torch": torch.__version__,
        "source": source_identity(src.shards.values()),
        "config": hashlib.sha256((src.folder / "config.json").read_bytes()).hexdigest(),
        "data": data,
        "layers": sorted(layers),
        "device": bounds.device,
        "settings": settings.as_json(),
    }
    return fingerprint_of(document)
