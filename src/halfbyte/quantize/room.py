"""The room that a run needs on the disk of DST: an upper bound, before anything is written.

What lies there at once, in the order of a run on data:

1. the pass over the model: activations, and the rounded experts that wait for their shards
2. the shards: those written so far, and the experts of those that are begun and not finished
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from halfbyte.calibrate.histogram import BINS
from halfbyte.models import text_config_of
from halfbyte.models.roles import Role
from halfbyte.quantize.calibrated import ACTIVATIONS, DataBounds
from halfbyte.quantize.job import Job
from halfbyte.quantize.journal import STAGING
from halfbyte.quantize.layout import OutputShard
from halfbyte.quantize.rounding.store import FOLDER, experts_of
from halfbyte.quantize.staging import check_free

OPEN_SHARDS = 4
"""That may be begun and not finished while rounded experts go into them: those experts are on the disk twice."""

BLOCK_BYTES = 4096
"""Of a file system: what a small file takes at least, and a large one at most too much."""

HISTOGRAM_BYTES = 2 * BINS * 24
"""Of the text of `calibrate.histogram.Histogram`: counts and weights, each below 2^63 and a separator."""

SEEN_BYTES = 256
"""Of the text of one `calibrate.inputs.Seen`."""


@dataclass(frozen=True)
class Room:
    """Bytes, each the largest that its part becomes. peak: of all at once, less than their sum.

    shards: the output (with --improve: the one new shard beside its old one). rounded_experts: that wait for their
    shards. activations: spilled hidden states, selections, and what the pass has noted so far.
    """

    shards: int
    rounded_experts: int
    activations: int
    peak: int

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def room_for(job: Job, config: dict[str, Any], lengths: Sequence[int], bounds: DataBounds, layers: set[int]) -> Room:
    """Of a run that writes all of `job`: max(W + A, S + D), where

    S = all shards, W = all experts that are rounded on data, A = `activation_bytes`, D = the experts of the
    `OPEN_SHARDS` shards with the most of them, which are in a file of their own and in their shard. config: of the
    source. lengths: tokens of every document, none for a run without data. layers: whose experts are rounded on data.
    """
    by_shard = [_waiting(shard, layers) for shard in job.shards]
    waiting = sum(by_shard) + _in_flight(job.shards, layers)
    twice = sum(heapq.nlargest(OPEN_SHARDS, by_shard))
    activations = activation_bytes(job, config, lengths, bounds)
    peak = max(waiting + activations, job.output_bytes + twice)
    return Room(job.output_bytes, waiting, activations, peak)


def room_to_improve(
    job: Job,
    config: dict[str, Any],
    targets: Sequence[OutputShard],
    lengths: Sequence[int],
    bounds: DataBounds,
    layers: set[int],
) -> Room:
    """Of a run that replaces `targets` in place: A + E + one expert in flight, where A = `activation_bytes` and E is
    the most that waiting experts and a new shard take together, experts coming in the order of rounding.
    """
    activations, in_flight = activation_bytes(job, config, lengths, bounds), _in_flight(targets, layers)
    waiting = sum(_waiting(shard, layers) for shard in targets)
    largest = max((shard.bytes for shard in targets), default=0)
    exchanged = exchange_bytes(targets, layers, _expert_bytes)
    return Room(largest, min(waiting, exchanged) + in_flight, activations, activations + exchanged + in_flight)


def exchange_bytes(targets: Sequence[OutputShard], layers: set[int], size_of: Callable[[int], int]) -> int:
    """Most that waiting experts and a new shard take beside the checkpoint, experts coming in the order of rounding.

    size_of: an expert's bytes on the disk, given those of its codes and scales.
    """
    order = sorted(
        (number, size_of(unit.packed_bytes), position)
        for position, shard in enumerate(targets)
        for number, unit in experts_of(shard, layers).items()
    )
    waiting = peak = 0
    held, left = [0] * len(targets), [len(experts_of(shard, layers)) for shard in targets]
    for _, size, position in order:
        waiting, held[position], left[position] = waiting + size, held[position] + size, left[position] - 1
        if left[position]:
            peak = max(peak, waiting)
        else:
            peak = max(peak, waiting + targets[position].bytes)
            waiting -= held[position]
    return max([peak, *(shard.bytes for shard in targets)])


def activation_bytes(job: Job, config: dict[str, Any], lengths: Sequence[int], bounds: DataBounds) -> int:
    """What a pass over the model keeps on the disk at once: k T H b + s P K 4 + 2 N, nothing without data.

    T tokens of H numbers of b bytes (float32 on a CPU, BF16 on a GPU); k = 2: hidden states before and after a layer;
    with a memory budget k = 4, the inputs and outputs of the experts may be spilled too. P tokens of documents longer
    than the K keys that an indexer selects, if layers share selections; s = 2: the last selection and the next one,
    with a budget 3. N: the observer's findings, whose old file stays until the new one is whole; per routed expert
    two entries, per layer four histograms, per other linear an entry and two histograms. See `stream.snapshot`.
    """
    if not lengths:
        return 0
    width = max((entry.shape[-1] for entry in job.entries if entry.role.role is Role.EMBEDDING), default=0)
    hidden = sum(lengths) * width * (4 if bounds.device == "cpu" else 2)
    indexers, topk = job.roles.indexers, int(text_config_of(config).get("index_topk") or 0)
    shared = topk and indexers and len(indexers) != job.roles.layers
    selected = sum(length for length in lengths if length > topk) * topk * 4 if shared else 0
    spilled = bounds.memory_budget is not None
    openness = sum(lengths) * 4
    return (4 if spilled else 2) * hidden + (3 if spilled else 2) * selected + openness + 2 * _findings_bytes(job)


def check_room(dst: Path, job: Job, room: Room, on_data: bool) -> None:
    """Raises OutputError if the disk cannot take what is missing. on_data: the run uses what a rounding pass left."""
    staging = dst / STAGING
    present = [staging / shard.file for shard in job.shards]
    if not (dst / "config.json").exists():  # else shards in place are those of the checkpoint that is replaced
        present += [dst / shard.file for shard in job.shards]
    if on_data:
        present += [path for folder in (FOLDER, ACTIVATIONS) for path in (staging / folder).rglob("*")]
    check_free(dst, room.peak - sum(path.stat().st_size for path in present if path.is_file()))


def _waiting(shard: OutputShard, layers: set[int]) -> int:
    return sum(_expert_bytes(unit.packed_bytes) for unit in experts_of(shard, layers).values())


def _expert_bytes(packed: int) -> int:
    """Two files: codes and scales, in whole blocks, and a record of less than one block."""
    return -(-packed // BLOCK_BYTES) * BLOCK_BYTES + BLOCK_BYTES


def _in_flight(shards: Sequence[OutputShard], layers: set[int]) -> int:
    """The largest expert, being written beside the one that it replaces."""
    sizes = (unit.packed_bytes for shard in shards for unit in experts_of(shard, layers).values())
    return _expert_bytes(max(sizes)) if any(experts_of(shard, layers) for shard in shards) else 0


def _findings_bytes(job: Job) -> int:
    experts = job.roles.num_experts * job.roles.layers
    others = sum(1 for entry in job.entries if entry.role.role is not Role.ROUTED_EXPERT and len(entry.shape) == 2)
    per_layer = 4 * HISTOGRAM_BYTES * job.roles.layers
    return 2 * SEEN_BYTES * experts + (SEEN_BYTES + 2 * HISTOGRAM_BYTES) * others + per_layer
