"""`quantize --ray`: the parts of a run (`parts`), one to a machine of a cluster, then joined."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from halfbyte.checkpoint.names import is_store
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.targets import is_remote
from halfbyte.cluster import cluster
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.finish import finish_parts
from halfbyte.quantize.leases import pieces_done
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.part_options import PartOptions
from halfbyte.quantize.parts import PartResult, check_options, quantize_part
from halfbyte.quantize.place import place_of
from halfbyte.quantize.prepare import chosen_recipe, prepare
from halfbyte.quantize.result import QuantizeResult


def quantize_on_ray(
    src: str | Path,
    dst: str | Path,
    options: QuantizeOptions,
    progress: Progress | None = None,
    on_done: Callable[[QuantizeResult], None] | None = None,
    *,
    address: str,
    lease_seconds: float = PartOptions.lease_seconds,
) -> QuantizeResult:
    """As `pipeline.quantize`, on all machines of the cluster at `address`; the bytes are those of one.

    Every machine sees `src` and `dst` under these names, or they are addresses. Raises HalfbyteError; what was done
    stays, for the same command or for parts of any number.
    """
    progress = progress or Silent()
    check_options(options, "ray")
    src = str(src) if is_remote(str(src)) else os.path.abspath(src)
    dst = str(dst) if is_store(str(dst)) else os.path.abspath(dst)
    options = _portable(options)
    place = place_of(dst)
    with Checkpoint.open(src, options.follow_links) as source:
        place.check(source, options.overwrite)
        job = prepare(source, Path(place.where), options, 0.0).job
    sizes = {shard.file: sum(unit.source_bytes for unit in shard.units) for shard in job.shards}
    seen = pieces_done(place) & sizes.keys()
    progress.start("quantize", sum(sizes.values()), sum(sizes[name] for name in seen))

    def look() -> None:
        new = (pieces_done(place) & sizes.keys()) - seen
        seen.update(new)
        progress.advance(sum(sizes[name] for name in new))

    with cluster(address) as machines:
        count = len(machines.machines)
        progress.note(f"{count} part(s), one to a machine of {address}")
        pieces = [(src, dst, options, PartOptions(f"{number}/{count}", lease_seconds)) for number in range(count)]
        machines.run(_part, pieces, look)
    return finish_parts(src, dst, options, progress, on_done)


def _part(src: str, dst: str, options: QuantizeOptions, part: PartOptions) -> PartResult:
    """On the machine that does it."""
    return quantize_part(src, dst, options, part)


def _portable(options: QuantizeOptions) -> QuantizeOptions:
    """Paths whole, the recipe itself instead of its file's name: other machines work in other folders."""
    scale = options.input_scale
    if isinstance(scale, str | Path) and os.path.exists(scale):
        scale = os.path.abspath(scale)
    return replace(options, recipe=chosen_recipe(options), input_scale=scale)
