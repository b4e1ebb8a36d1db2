"""The proof that an export lost nothing: every tensor of the GGUF is turned back and held against the checkpoint.
What cannot be turned back (rounded, computed, a part of what was read) is made again instead.

Works on any GGUF made from the checkpoint, whatever the order of its tensors and its split: on llama.cpp's own
converter's as well.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.disk import open_regular
from halfbyte.errors import CheckpointError
from halfbyte.export.direct import DirectReader, Scratch
from halfbyte.export.gguf import make_plan
from halfbyte.export.lossy import KEY, LOSSY, Rounded
from halfbyte.export.mapping import Planned
from halfbyte.export.pieces import Piece
from halfbyte.export.rearranged import Rearranged
from halfbyte.export.stream import read_piece
from halfbyte.export.transforms import Bytes, Transform
from halfbyte.process import cores
from halfbyte.progress import Progress, Silent

PROBLEMS_SHOWN = 20
IGNORED_KEYS = re.compile(r"GGUF\.|split\.|general\.(?!architecture|file_type|quantization_version|tensor_extra)")
"""Keys about the file or its authorship (names change when a folder is renamed), not about what the model computes."""


@dataclass(frozen=True)
class Verified:
    """problems: one line each, at most PROBLEMS_SHOWN; empty if the GGUF holds the checkpoint bit for bit.
    unchecked: tensors of the checkpoint that llama.cpp has no use for. lossy: what matrices were rounded to, as the
    file says itself; then `problems` is empty if every block is what rounding the checkpoint gives, and error is the
    largest relative one of a tensor."""

    files: list[str]
    tensors: int
    bytes: int
    keys: int
    unchecked: list[str]
    problems: list[str]
    lossy: str | None = None
    error: float | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


class Stored(NamedTuple):
    """A tensor of a GGUF. shape: logical, slowest dimension first."""

    file: int
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    bytes: int


def verify_gguf(
    path: str | Path,
    out: str | Path,
    *,
    tokenizer_pre: str | None = None,
    follow_links: bool = False,
    progress: Progress | None = None,
) -> Verified:
    """Compare checkpoint folder `path` with GGUF `out` (a file, or the first or the base name of a series).

    Codes and block scales are compared after the inverse rearrangement, 16-bit tensors byte for byte, widened ones by
    narrowing, metadata key by key. follow_links: see `Checkpoint.open`. Raises CheckpointError if
    either side cannot be read.
    """
    progress, files = progress or Silent(), gguf_files(Path(out))
    with Checkpoint.open(path, follow_links) as checkpoint:
        stored, keys = _read_headers(files)
        lossy = next((known for known in LOSSY if known == keys.get(KEY)), None)
        plan = make_plan(checkpoint, tokenizer_pre, lossy=lossy)
        problems = list(_key_problems(plan.writer, keys))
        problems += _set_problems(plan.mapping.tensors, stored)
        comparable = [tensor for tensor in plan.mapping.tensors if _same_form(tensor, stored.get(tensor.name))]
        progress.start("verify", sum(tensor.bytes for tensor in comparable))
        errors: dict[str, float] = {}
        problems += islice(_content_problems(checkpoint, comparable, stored, files, progress, errors), PROBLEMS_SHOWN)
    return Verified(
        files=[str(file) for file in files],
        tensors=len(comparable),
        bytes=sum(tensor.bytes for tensor in comparable),
        keys=len(keys),
        unchecked=plan.mapping.dropped,
        problems=problems[:PROBLEMS_SHOWN],
        lossy=lossy,
        error=max(errors.values(), default=0.0) if lossy is not None else None,
    )


def gguf_files(out: Path) -> list[Path]:
    """The files of an export. Raises CheckpointError if one is missing."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", out.stem)
    pattern = re.compile(re.escape(stem) + r"-(\d{5})-of-(\d{5})\.gguf")
    series = sorted(path for path in out.parent.glob("*.gguf") if pattern.fullmatch(path.name))
    if out.exists() and out not in series:
        return [out]
    match = pattern.fullmatch(series[0].name) if series else None
    if match is None:
        raise CheckpointError(f"{out}: no such file", hint="an unfinished export ends in .partial; run it again")
    if len(series) != int(match[2]):
        raise CheckpointError(f"{series[0]}: {len(series)} of {int(match[2])} files are there")
    return series


def _read_headers(files: list[Path]) -> tuple[dict[str, Stored], dict[str, Any]]:
    stored: dict[str, Stored] = {}
    keys: dict[str, Any] = {}
    for number, file in enumerate(files):
        try:
            reader = GGUFReader(file)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise CheckpointError(f"{file}: is not a readable GGUF: {str(error)[:200]}") from None
        keys |= {name: entry.contents() for name, entry in reader.fields.items() if not IGNORED_KEYS.match(name)}
        for tensor in reader.tensors:
            shape = tuple(int(side) for side in reversed(tensor.shape.tolist()))
            stored[tensor.name] = Stored(
                number, tensor.tensor_type, shape, int(tensor.data_offset), int(tensor.n_bytes)
            )
    return stored, keys


def _key_problems(writer: GGUFWriter, keys: dict[str, Any]) -> Iterator[str]:
    wanted = {name: value.value for name, value in writer.kv_data[0].items() if not IGNORED_KEYS.match(name)}
    for name in sorted(wanted.keys() | keys.keys()):
        if name not in keys:
            yield f"key {name}: missing"
        elif name not in wanted:
            yield f"key {name}: not expected"
        elif not _same_value(wanted[name], keys[name]):
            yield f"key {name}: differs from the checkpoint"


def _same_value(wanted: Any, found: Any) -> bool:
    """Equality as GGUF stores it: floats in 32 bits, bytes as text."""
    if isinstance(wanted, float):
        return isinstance(found, float) and np.float32(wanted) == np.float32(found)
    if isinstance(wanted, bytes):
        return found in (wanted, wanted.decode("utf-8", "replace"))
    if isinstance(wanted, list | tuple):
        return len(wanted) == len(found) and all(map(_same_value, wanted, found))
    return bool(wanted == found)


def _set_problems(planned: list[Planned], stored: dict[str, Stored]) -> Iterator[str]:
    for tensor in planned:
        found = stored.get(tensor.name)
        if found is None:
            yield f"{tensor.name}: missing"
        elif not _same_form(tensor, found):
            yield (
                f"{tensor.name}: is {found.type.name} {list(found.shape)}, wanted {tensor.type.name} "
                f"{list(tensor.shape)}"
            )
    for name in stored.keys() - {tensor.name for tensor in planned}:
        yield f"{name}: not made from any tensor of the checkpoint"


def _same_form(tensor: Planned, found: Stored | None) -> bool:
    return found is not None and (found.type, found.shape, found.bytes) == (tensor.type, tensor.shape, tensor.bytes)


def _content_problems(
    checkpoint: Checkpoint,
    tensors: list[Planned],
    stored: dict[str, Stored],
    paths: list[Path],
    progress: Progress,
    errors: dict[str, float],
) -> Iterator[str]:
    """errors: filled with the relative error of every tensor that was rounded."""
    files = [open_regular(path) for path in paths]
    scratch, reader = Scratch(), DirectReader(checkpoint)
    changed: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def check(tensor: Planned, piece: Piece, file: int, offset: int) -> str | None:
        size = piece.transform.output_bytes
        output = scratch.take(-1, size)
        if os.preadv(files[file], [output.data], offset) != size:
            return f"{tensor.name}: ends early"
        inputs = read_piece(reader, piece, scratch)
        if not piece.transform.reversible:
            again = scratch.take(-2, size)
            piece.transform.forward(inputs, again)
            progress.advance(size)
            found = _rounding_error(piece.transform, inputs, output)
            if found is not None:
                changed[tensor.name].append(found)
            made = "is not what is made of" if found is None else "is not the checkpoint's, rounded:"
            return None if np.array_equal(output, again) else f"{tensor.name}: {made} {piece.sources[0].name}"
        recovered = [scratch.take(-2 - slot, len(data)) for slot, data in enumerate(inputs)]
        sound = piece.transform.inverse(output, recovered)
        progress.advance(size)
        for source, data, back in zip(piece.sources, inputs, recovered, strict=True):
            if not np.array_equal(data, back):
                return f"{tensor.name}: does not give back {source.name}"
        return None if sound else f"{tensor.name}: holds more than {piece.sources[0].name} does"

    def check_tensor(tensor: Planned) -> str | None:
        _, _, _, offset, size = found = stored[tensor.name]
        if tensor.values is not None:
            content = os.pread(files[found.file], size, offset)
            return None if content == tensor.values.tobytes() else f"{tensor.name}: differs from the checkpoint"
        for piece in tensor.pieces:
            problem = check(tensor, piece, found.file, offset)
            if problem:
                return problem
            offset += piece.transform.output_bytes
        if changed[tensor.name]:
            lost, all_there = (sum(column) for column in zip(*changed[tensor.name], strict=True))
            errors[tensor.name] = (lost / all_there) ** 0.5 if all_there else 0.0
        return None

    try:
        with ThreadPoolExecutor(min(4, cores() + 1), "verify") as pool:
            yield from (problem for problem in pool.map(check_tensor, tensors) if problem)
    finally:
        reader.close()
        for file in files:
            os.close(file)


def _rounding_error(transform: Transform, inputs: Sequence[Bytes], output: Bytes) -> tuple[float, float] | None:
    """`Rounded.error` of a piece that was rounded, None for one that was not."""
    if isinstance(transform, Rearranged):
        return _rounding_error(transform.inner, transform.arranged(inputs), output)
    return transform.error(inputs, output) if isinstance(transform, Rounded) else None
