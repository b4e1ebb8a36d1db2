"""`halfbyte export`: a ModelOpt NVFP4 or unquantized checkpoint as GGUF, losslessly, in constant memory."""

import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType, GGUFWriter

from halfbyte.checkpoint.resume import source_identity
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.writer import LONGEST_NAME_BYTES, partial
from halfbyte.disk import check_output
from halfbyte.errors import HalfbyteError, OutputError, UsageError, said
from halfbyte.export.architectures import architecture_of
from halfbyte.export.container import Layout, lay_out, open_writer
from halfbyte.export.lossy import Lossy, lossy_type
from halfbyte.export.mapping import Mapper, Mapping
from halfbyte.export.options import ExportOptions
from halfbyte.export.quantization import algorithm_of
from halfbyte.export.stream import Step, sound_steps, steps, stream
from halfbyte.export.unfinished import Unfinished
from halfbyte.models import roles_of
from halfbyte.models.llama_cpp import LlamaCpp
from halfbyte.process import cores
from halfbyte.progress import Progress, Silent

FORMAT = 2
"""Part of every fingerprint: raise it when the same input would give other bytes, so that no old run is continued."""


@dataclass(frozen=True)
class Exported:
    """files: in order, the first is the one to load. dropped: tensors llama.cpp has no use for. zero_scale_blocks:
    NVFP4 blocks with a scale of 0 over codes that are not 0; they are zero in every engine and were kept as they are.
    resumed_bytes: what an earlier, interrupted run had already written. lossy: what matrices were rounded to."""

    files: list[str]
    bytes: int
    architecture: str
    tensors: int
    nvfp4_tensors: int
    dropped: list[str] = field(default_factory=list)
    zero_scale_blocks: int = 0
    resumed_bytes: int = 0
    seconds: float = 0.0
    lossy: Lossy | None = None

    def as_json(self) -> dict[str, Any]:
        """`lossy` only where it is."""
        return {key: value for key, value in asdict(self).items() if key != "lossy" or value is not None}


@dataclass(frozen=True)
class ExportPlan:
    """Everything about an export but the tensors' bytes. `writer` holds metadata and tensor infos."""

    architecture: LlamaCpp
    mapping: Mapping
    writer: GGUFWriter


def export(
    path: str | Path,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
    **given: Any,
) -> Exported:
    """Write the checkpoint folder `path` as GGUF file `out`, or as a series of files.

    given: fields of ExportOptions by name, instead of `options`. workers: threads. A killed run goes on where it was
    when the same call is made again. Peak memory does not depend on the checkpoint's size. Raises CheckpointError
    (damaged, incomplete), UnsupportedError (what llama.cpp cannot hold or run), OutputError (exists, no space, another
    run).
    """
    options = options or ExportOptions(**given)
    started, out, progress = time.monotonic(), Path(out), progress or Silent()
    workers = workers or min(8, cores() + 2)  # they mostly wait for the disk
    lossy = lossy_type(options.type)
    _check_destination(out)
    with Checkpoint.open(path, options.follow_links) as checkpoint:
        plan = make_plan(checkpoint, options.tokenizer_pre, options.max_shard_size, lossy)
        layout = lay_out(plan.writer, plan.mapping.tensors, out)
        for written in (out, *layout.paths):
            check_output(written, [checkpoint.folder])
        _refuse_existing(layout, out, options.overwrite)
        _check_space(layout, out)
        todo = steps(layout)
        target = Unfinished(
            out, layout.paths, layout.sizes, _fingerprint(checkpoint, layout, todo), discard=options.overwrite
        )
        if target.damage is not None:
            progress.note(target.damage)
        try:
            done = sound_steps(todo, target, progress)
        except BaseException:
            target.interrupt()
            raise
        resumed = sum(todo[number].bytes for number in done)
        progress.start("export", sum(step.bytes for step in todo), resumed)
        silenced = _fill(checkpoint, layout, todo, done, target, progress, workers)
    tensors = plan.mapping.tensors
    return Exported(
        files=[str(path) for path in layout.paths],
        bytes=layout.bytes,
        architecture=plan.architecture.name,
        tensors=len(tensors),
        nvfp4_tensors=sum(tensor.type == GGMLQuantizationType.NVFP4 for tensor in tensors),
        dropped=plan.mapping.dropped,
        zero_scale_blocks=silenced,
        resumed_bytes=resumed,
        seconds=round(time.monotonic() - started, 3),
        lossy=lossy,
    )


def make_plan(
    checkpoint: Checkpoint,
    tokenizer_pre: str | None = None,
    max_shard_size: int | None = None,
    lossy: Lossy | None = None,
) -> ExportPlan:
    """What the export of a checkpoint holds. Reads headers, scalar scales and tokenizer, no weights.

    lossy: what matrices are rounded to, None for nothing.
    """
    roles = roles_of(checkpoint.config)
    architecture = architecture_of(roles.family, beside_towers=bool(roles.wrapping.towers))
    algorithm = algorithm_of(checkpoint)
    mapper = Mapper(checkpoint, roles, architecture, lossy)
    mapping = mapper.map()
    writer = open_writer(
        checkpoint, mapper.arch, architecture, mapping, mapper.blocks, algorithm, tokenizer_pre, max_shard_size, lossy
    )
    return ExportPlan(architecture, mapping, writer)


def _fill(
    checkpoint: Checkpoint,
    layout: Layout,
    todo: list[Step],
    done: frozenset[int],
    target: Unfinished,
    progress: Progress,
    workers: int,
) -> int:
    try:
        for file, header in enumerate(layout.headers):
            target.write(file, memoryview(header), 0)
        silenced = stream(checkpoint, todo, done, target, progress, workers)
    except OutputError:
        target.interrupt()
        raise
    except HalfbyteError:
        target.abandon()  # the source is at fault: there is nothing to go on with
        raise
    except BaseException:
        target.interrupt()
        raise
    target.finish()
    return silenced


def _check_destination(out: Path) -> None:
    if out.suffix != ".gguf":
        raise UsageError(f"{out}: the output must be named *.gguf")
    if len(os.fsencode(out.name)) > LONGEST_NAME_BYTES:
        raise OutputError(f"{out}: a name of over {LONGEST_NAME_BYTES} bytes", hint="choose a shorter one")
    if os.path.lexists(out) and not out.is_file():
        raise OutputError(f"{out}: is no regular file", hint="choose another name")
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent}: no such folder", hint="create it first")


def _refuse_existing(layout: Layout, out: Path, overwrite: bool) -> None:
    series = sorted(out.parent.glob(f"{out.stem}-?????-of-?????.gguf"))
    existing = [path for path in dict.fromkeys([out, *layout.paths, *series]) if os.path.lexists(path)]
    if existing and not overwrite:
        raise OutputError(f"{existing[0]}: exists", hint=said("choose another name, or give {overwrite}"))


def _check_space(layout: Layout, out: Path) -> None:
    held = sum(partial(path).stat().st_blocks * 512 for path in layout.paths if partial(path).is_file())
    free, wanted = shutil.disk_usage(out.parent).free, layout.bytes - held
    if wanted > free:
        raise OutputError(
            f"{out}: needs {wanted / 1e9:.2f} GB more, the file system has {free / 1e9:.2f} GB free",
            hint="free some space, or choose another disk",
        )


def _fingerprint(checkpoint: Checkpoint, layout: Layout, todo: list[Step]) -> str:
    digest = sha256(repr((FORMAT, [path.name for path in layout.paths])).encode())
    digest.update(repr([(step.file, step.offset) for step in todo]).encode())
    digest.update(repr(source_identity(checkpoint.shards.values())).encode())
    for header in layout.headers:
        digest.update(header)
    return digest.hexdigest()
