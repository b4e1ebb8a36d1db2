"""`convert`: an NVFP4 checkpoint in, the same numbers in the other layout out, shard by shard.

Codes and block scales are copied byte for byte under their new names; second scales are inverted, and what their
inverse would not give back is kept in the evidence (`scales`). Staged, journalled and published as `quantize` does.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from halfbyte import __version__
from halfbyte.checkpoint.index import INDEX_NAME
from halfbyte.checkpoint.resume import fingerprint_of, source_identity
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.checkpoint.writer import ShardWriter, hash_file
from halfbyte.convert.evidence import evidence
from halfbyte.convert.options import ConvertOptions
from halfbyte.convert.planning import Output, Plan, header_of, planned
from halfbyte.convert.scales import converted
from halfbyte.errors import CheckpointError
from halfbyte.evidence.conversion import OriginalScale
from halfbyte.evidence.dossier import Dossier, File
from halfbyte.evidence.names import DOSSIER
from halfbyte.evidence.record import json_bytes
from halfbyte.formats.modelopt import HF_QUANT_CONFIG
from halfbyte.formats.nvfp4.layouts import SCALAR_SHAPES
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.destination import check_destination, new_folder, resumable
from halfbyte.quantize.journal import Journal
from halfbyte.quantize.rows import RowReader
from halfbyte.quantize.side_files import side_files
from halfbyte.quantize.staging import check_free, publish, stage_side_files, staged_files, write_staged


@dataclass(frozen=True)
class ConvertResult:
    """linears: whose layout was changed. kept_scales: second scales whose inverse does not give them back."""

    output: str
    came_from: str
    layout: str
    bytes_in: int
    bytes_out: int
    shards: int
    linears: int
    kept_scales: int
    seconds: float
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def convert(
    src: str | Path,
    dst: str | Path,
    options: ConvertOptions | None = None,
    *,
    progress: Progress | None = None,
    **given: Any,
) -> ConvertResult:
    """Write the NVFP4 checkpoint of folder `src` into folder `dst` in the other layout.

    given: fields of ConvertOptions by name, instead of `options`. Raises HalfbyteError; then `dst` is as it was, but
    for a `.halfbyte` folder from which the next run resumes.
    """
    began, progress, dst = time.monotonic(), progress or Silent(), Path(dst)
    options = options or ConvertOptions(**given)
    with Checkpoint.open(src, options.follow_links) as source:
        plan = planned(source, options.layout)
        check_destination(source.folder, dst, options.overwrite)
        before = Dossier.read(source.folder / DOSSIER) if (source.folder / DOSSIER).exists() else None
        originals = before.converted.original_scales if before is not None and before.converted is not None else {}
        side = side_files(source)
        with new_folder(dst):
            check_free(dst, source.bytes)
            journal = Journal.open(dst, _fingerprint(source, plan), options.overwrite, progress.note)
            with resumable(journal):
                copied = stage_side_files(journal.folder, side.files)
                progress.start("convert", source.bytes)
                kept: dict[str, OriginalScale] = {}
                sizes = {}
                for file, tensors in plan.shards.items():
                    sizes[file] = _shard(source, plan, journal, dst, file, tensors, originals, kept, progress)
                shards = [
                    File(file=file, bytes=size, sha256=journal.shards[file]["sha256"]) for file, size in sizes.items()
                ]
                index = {
                    "metadata": {"total_size": source.bytes},
                    "weight_map": {one.name: file for file, tensors in plan.shards.items() for one in tensors},
                }
                metadata = {INDEX_NAME: json_bytes(index), "config.json": json_bytes(plan.config(source.config))}
                about = plan.hf_quant_config()
                if about is not None:
                    metadata = {HF_QUANT_CONFIG: json_bytes(about)} | metadata
                document = evidence(source, plan, before, kept, shards, copied, metadata)
                staged = {DOSSIER: document.to_bytes()} | metadata
                for name, content in staged.items():
                    write_staged(journal.folder, name, content)
                source.check_unchanged()
                publish(journal.folder, dst, list(plan.shards), copied, list(staged))
                journal.drop()
    return ConvertResult(
        output=str(dst),
        came_from=plan.came_from,
        layout=plan.layout,
        bytes_in=source.bytes,
        bytes_out=sum(sizes.values()),
        shards=len(sizes),
        linears=plan.linears,
        kept_scales=len(kept),
        seconds=round(time.monotonic() - began, 3),
        warnings=side.warnings,
    )


def _shard(
    source: Checkpoint,
    plan: Plan,
    journal: Journal,
    dst: Path,
    file: str,
    tensors: list[Output],
    originals: dict[str, OriginalScale],
    kept: dict[str, OriginalScale],
    progress: Progress,
) -> int:
    """One shard, unless a run before has written it. Returns its bytes; adds to `kept`."""
    reader = RowReader(source)
    numbers: dict[str, np.float32] = {}
    shaped: list[Output] = []
    for one in tensors:
        if one.inverse:
            tensor, scale = one.source, originals.get(one.source.name)
            plain = SCALAR_SHAPES[tensor.name.rpartition(".")[2]]
            numbers[one.name], lost = converted(_number(reader, tensor), tensor.name, tensor.shape, plain, originals)
            if lost is not None:
                kept[one.name] = lost
            if scale is not None and scale.number == numbers[one.name]:
                one = Output(one.name, tuple(scale.shape), tensor, True)
        shaped.append(one)
    header, offsets, size = header_of(shaped)
    noted = journal.shards.get(file)
    path = next((path for path in staged_files(dst, file) if path.exists()), None)
    if noted and path and path.stat().st_size == size and hash_file(path) == noted["sha256"]:
        progress.advance(sum(one.source.bytes for one in tensors))
        return size
    out = ShardWriter(journal.folder / file, header, size)
    try:
        for one in shaped:
            if one.inverse:
                out.write(memoryview(numbers[one.name].tobytes()), offsets[one.name])
                progress.advance(one.source.bytes)
                continue
            for start, chunk in reader.chunks(one.source):
                out.write(chunk, offsets[one.name] + start)
                progress.advance(len(chunk))
        digest = out.finish()
    except BaseException:
        out.abandon()
        raise
    journal.shard_done(file, digest, size, {})
    return size


def _number(reader: RowReader, tensor: Tensor) -> np.float32:
    if tensor.bytes != 4:
        raise CheckpointError(f"{tensor.name}: {tensor.dtype} {list(tensor.shape)}, wanted one float32")
    return np.float32(reader.part(tensor, 0, 4).view("<f4")[0])


def _fingerprint(source: Checkpoint, plan: Plan) -> str:
    return fingerprint_of(
        {
            "halfbyte": __version__,
            "convert": plan.layout,
            "source": source_identity(source.shards.values()),
            "config": source.config,
        }
    )
