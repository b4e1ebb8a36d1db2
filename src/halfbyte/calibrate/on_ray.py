"""`calibrate --ray`: each machine of a cluster runs a share of the documents; what they saw is added up.

Tokens, largest values and block counts add up exactly, in any order, so the result is that of one machine but for one
thing: a matrix product of fewer rows may round its last bits otherwise (docs/sources.md says by how much).
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from halfbyte.calibrate.options import CalibrateOptions
from halfbyte.calibrate.watch import Watch
from halfbyte.calibrate.watching import Watched, watched
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.cluster import cluster
from halfbyte.data.document import Document
from halfbyte.progress import Progress, Silent
from halfbyte.stream.contents import Contents
from halfbyte.stream.model_config import plain_config


def watched_on_ray(
    source: Checkpoint,
    src: str,
    documents: Sequence[Document],
    held_out: Sequence[bool],
    options: CalibrateOptions,
    progress: Progress | None = None,
) -> Watched:
    """As `watching.watched`, on the cluster `options.ray`. src: what every machine finds the checkpoint under."""
    assert options.ray is not None
    progress = progress or Silent()
    roles = Contents.of(source, plain_config(source.folder)).roles
    with cluster(options.ray) as machines:
        shares = shared_out([len(document.ids) for document in documents], len(machines.machines))
        progress.note(f"{len(shares)} share(s) of the documents, one to a machine of {options.ray}")
        pieces = []
        for number, share in enumerate(shares):
            own = None if options.work is None else os.path.abspath(Path(options.work) / f"share-{number}")
            rest = replace(options, ray=None, work=own)
            pieces.append((src, [documents[i] for i in share], [held_out[i] for i in share], rest))
        found = machines.run(_share, pieces)
    watch = Watch(roles.num_experts, options.rule, options.seed)
    for state, _, _ in found:
        watch.add(state)
    longest = max((stream for _, stream, _ in found), key=lambda stream: float(stream["seconds"]["wall"]))
    return Watched(watch, roles, longest, min(resumed for _, _, resumed in found))


def shared_out(lengths: Sequence[int], shares: int) -> list[list[int]]:
    """Numbers of the documents of each share, in order, with about as many tokens each; no share is empty."""
    found: list[list[int]] = [[] for _ in range(min(shares, len(lengths)))]
    sums = [0] * len(found)
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        least = min(range(len(found)), key=lambda share: sums[share])
        found[least].append(number)
        sums[least] += lengths[number]
    return [sorted(share) for share in found]


def _share(
    src: str, documents: list[Document], held_out: list[bool], options: CalibrateOptions
) -> tuple[bytes, dict[str, Any], int]:
    """On the machine that does it."""
    seen = watched(src, documents, held_out, options)
    return seen.watch.state(), seen.stream, seen.resumed_layers
