"""`quantize` into an object store: the pieces of a run in parts (`parts`), all done by one, then joined.

Nothing but a shard or two lies here meanwhile. A run on data keeps activations and rounded experts as it goes, which
want a disk: it is written here whole, and put there when it is done.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from halfbyte import __version__
from halfbyte.checkpoint.resume import fingerprint_of, source_identity
from halfbyte.checkpoint.source import CONFIG_NAME, Checkpoint
from halfbyte.checkpoint.writer import write_whole
from halfbyte.disk import read_regular, read_stream
from halfbyte.errors import UsageError
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.bucket import BucketPlace
from halfbyte.quantize.finish import joined
from halfbyte.quantize.leases import Leases
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.part_options import PartOptions
from halfbyte.quantize.parts import Part
from halfbyte.quantize.pipeline import fingerprint, quantize
from halfbyte.quantize.place import LARGEST_RECORD_BYTES
from halfbyte.quantize.prepare import chosen_recipe, prepare
from halfbyte.quantize.result import QuantizeResult
from halfbyte.quantize.shared_job import read_job, shared_job
from halfbyte.text import json_of

WHOLE = "0-of-1"
FINISHED = "finished"


def quantize_to_store(
    src: str | Path,
    dst: str,
    options: QuantizeOptions,
    progress: Progress | None = None,
    on_done: Callable[[QuantizeResult], None] | None = None,
) -> QuantizeResult:
    """See `pipeline.quantize`. Raises HalfbyteError; what is done stays, and the same command goes on from there."""
    began, progress = time.monotonic(), progress or Silent()
    place = BucketPlace(dst)
    with Checkpoint.open(src, options.follow_links) as source:
        place.check(source, options.overwrite)
        if not options.calibrate or options.dry_run:
            return _in_pieces(source, place, options, progress, on_done, began)
        key = _key(source, options)
    return _by_way_of_the_disk(src, place, options, progress, on_done, key)


def _in_pieces(
    source: Checkpoint,
    place: BucketPlace,
    options: QuantizeOptions,
    progress: Progress,
    on_done: Callable[[QuantizeResult], None] | None,
    began: float,
) -> QuantizeResult:
    prepared = prepare(source, Path(place.where), options, began)
    if options.dry_run:
        return replace(prepared.result(prepared.known_scales), output=place.where)
    with place.opened(prepared.job):
        key, stored = fingerprint(prepared, prepared.known_scales), read_job(place)
        if stored is not None and stored["job"] != key and options.overwrite:
            place.forget()
        shared_job(place, key, options)
        with (
            place.alone(f"part-{WHOLE}", place.where) as folder,
            Leases(place, f"{WHOLE}{place.worker}", PartOptions.lease_seconds) as leases,
        ):
            resumed = len(leases.all_done() & {shard.file for shard in prepared.job.shards})
            Part(prepared, place, folder, leases, 0, 1, progress).run()
            result = joined(prepared, place, leases, progress, resumed)
        if on_done is not None:
            on_done(result)
        place.clear()
    return result


def _by_way_of_the_disk(
    src: str | Path,
    place: BucketPlace,
    options: QuantizeOptions,
    progress: Progress,
    on_done: Callable[[QuantizeResult], None] | None,
    key: str,
) -> QuantizeResult:
    folder, finished = place.work / "out", place.work / FINISHED
    done = _left_finished(finished, key)
    if done is None:
        finished.unlink(missing_ok=True)
        anew = options.overwrite or (folder / CONFIG_NAME).exists()
        done = quantize(src, folder, replace(options, overwrite=anew), progress=progress)
        write_whole(finished, json.dumps({"key": key, "result": done.as_json()}).encode())
    place.put_folder(folder)
    result = replace(done, output=place.where)
    if on_done is not None:
        on_done(result)
    place.clear()
    return result


def _left_finished(path: Path, key: str) -> QuantizeResult | None:
    """What an earlier run of the same job made, and was killed before all of it was put into the store."""
    if not path.exists():
        return None
    try:
        found = json_of(read_regular(path, LARGEST_RECORD_BYTES))
        return QuantizeResult(**found["result"]) if found["key"] == key else None
    except (ValueError, KeyError, TypeError):  # damaged: made again
        return None


def _key(source: Checkpoint, options: QuantizeOptions) -> str:
    """Of all that the output follows from, the data included."""
    chosen = asdict(replace(options, recipe=chosen_recipe(options).model_dump_json()))
    data = {name: hashlib.sha256(read_stream(Path(name), UsageError)).hexdigest() for name in options.calibrate}
    return fingerprint_of(
        {
            "halfbyte": __version__,
            "source": source_identity(source.shards.values()),
            "config": source.config,
            "options": {name: str(value) for name, value in chosen.items()},
            "data": data,
        }
    )
