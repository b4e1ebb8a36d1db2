"""`verify`: is this checkpoint what quantizing that source gives? Reads both in constant memory.

- every file's SHA-256 against `halfbyte.json`, where there is one (a shard that `quantize --improve` was about to
  replace may have either);
- every kept tensor byte for byte;
- every packed tensor decoded and its error measured. Where the evidence names a rounding that is a function of the
  weights (`max`, `sweep`), it is encoded again and must give the same bytes; otherwise its error must be the one that
  the evidence has for it, if it has one, and may not exceed twice that of the max rule.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from halfbyte.checkpoint.index import SHARD_SUFFIX
from halfbyte.checkpoint.inventory import Entry, inventory
from halfbyte.checkpoint.packed import Packed, Source, Stacked, kept, matrices_of, packed_form
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.checkpoint.writer import hash_file
from halfbyte.errors import NonFiniteError
from halfbyte.evidence.dossier import Dossier
from halfbyte.evidence.names import DOSSIER
from halfbyte.formats.nvfp4 import kernels
from halfbyte.formats.nvfp4.codec import Encoder, Measure, Rounding, Weight, amax
from halfbyte.formats.nvfp4.format import SCALE_LAST
from halfbyte.formats.nvfp4.layout import BLOCK_SIZE
from halfbyte.formats.nvfp4.layouts import TO_COMPRESSED, is_nvfp4
from halfbyte.formats.nvfp4.reference import scale_2_of
from halfbyte.formats.nvfp4.stack import straightened
from halfbyte.formats.nvfp4.stored import INPUT_SCALE, SCALE_2
from halfbyte.formats.storage import SCALE, WEIGHT
from halfbyte.models import roles_of
from halfbyte.process import cores
from halfbyte.progress import Progress, Silent
from halfbyte.quantize.linears import Linear, split
from halfbyte.quantize.rows import CHUNK_BYTES, EncodeBuffer, RowReader
from halfbyte.quantize.translated import all_mxfp4
from halfbyte.quantize.units import sharing, unit_key
from halfbyte.quantize.verify_options import VerifyOptions

ERROR_LIMIT = 2.0
"""Relative error allowed to a rounding that we cannot repeat, as a multiple of the max rule's.

gptq trades error of the weights for error of the output, within limits: on tiny-glm (four calibration rows) every
matrix is between 0.86 and 0.92 of the max rule's; inputs of rank one led to 1.21 (down_proj, random, 20,000 tokens).
Weights that have nothing to do with the source, or twice its size, are at 10 and more: the max rule's own relative
error is about 0.1. Two lies between, with room for the roundings of others.
"""

RECORD_TOLERANCE = 1e-6
"""Relative difference of an error measured here from the one measured when it was written: both sum in float64."""

WORST = 10


@dataclass(frozen=True)
class Mismatch:
    tensor: str
    reason: str


@dataclass(frozen=True)
class Verification:
    """tensors: logical tensors compared. worst: the packed tensors with the largest relative error, worst first.

    improving: how far an unfinished `quantize --improve` came, which is no fault.
    """

    tensors: int
    mismatches: list[Mismatch]
    worst: list[tuple[str, float]]
    hashed_files: int
    improving: str | None = None

    @property
    def ok(self) -> bool:
        return not self.mismatches

    def as_json(self) -> dict[str, Any]:
        document = {
            "ok": self.ok,
            "tensors": self.tensors,
            "mismatches": [{"tensor": found.tensor, "reason": found.reason} for found in self.mismatches],
            "worst": [{"tensor": name, "relative_error": error} for name, error in self.worst],
        }
        return document if self.improving is None else document | {"improving": self.improving}


def verify(
    src: str | Path,
    dst: str | Path,
    options: VerifyOptions | None = None,
    *,
    progress: Progress | None = None,
    **given: Any,
) -> Verification:
    """Hold the checkpoint in `dst` against its source. Mismatches are returned; unreadable checkpoints raise.

    given: fields of VerifyOptions by name, instead of `options`.
    """
    options, progress = options or VerifyOptions(**given), progress or Silent()
    linked = options.follow_links
    with Checkpoint.open(src, linked) as source, Checkpoint.open(dst, linked) as output:
        dossier = Dossier.read(Path(dst) / DOSSIER) if (Path(dst) / DOSSIER).exists() else None
        roles = roles_of(source.config)
        stored = {
            entry.role.named(WEIGHT) if entry.form.quantized else entry.name: entry
            for entry in inventory(output.tensors, roles)
        }
        linears, others = split(inventory(source.tensors, roles), roles)
        wanted = {linear.role.named(WEIGHT): linear.source for linear in linears}
        wanted |= {name: tensor for _, name, tensor in others}
        mismatches = [Mismatch(name, "missing") for name in wanted if name not in stored]
        mismatches += [Mismatch(name, "not in the source") for name in stored if name not in wanted]
        both = {name: entry for name, entry in stored.items() if name in wanted}
        scales = Scales(output, dossier)
        comparer = _Comparer(source, output, scales, _repeatable(dossier), _recorded(dossier), progress)
        jobs = comparer.jobs(both, wanted, linears)
        progress.start("verify", sum(wanted[name].bytes for name in both))
        with ThreadPoolExecutor(options.workers or cores()) as pool:
            hashing = pool.submit(_check_hashes, Path(dst), dossier)
            for found in pool.map(lambda job: job(), jobs):
                mismatches += found
            bad_files, hashed = hashing.result()
        mismatches += bad_files
    worst = sorted(comparer.errors.items(), key=lambda item: (-item[1], item[0]))[:WORST]
    state = None if dossier is None else dossier.improving
    return Verification(len(both), mismatches, worst, hashed, None if state is None else state.statement)


def _repeatable(dossier: Dossier | None) -> Rounding | None:
    """The rounding that gives the same bytes again, if all of it was rounded so."""
    if dossier is None or dossier.improving is not None:
        return None
    return next((known for known in get_args(Rounding) if known == dossier.rounding), None)


def _recorded(dossier: Dossier | None) -> dict[str, float]:
    """Relative error of every packed linear when it was written; of no use while some are being replaced."""
    if dossier is None or dossier.improving is not None:
        return {}
    return {module: row.relative_error for module, row in dossier.tensors.items()}


def _check_hashes(dst: Path, dossier: Dossier | None) -> tuple[list[Mismatch], int]:
    if dossier is None:
        return [], 0
    files, found = [*dossier.shards, *dossier.files], []
    for file in files:
        path = dst / file.file
        if not path.is_file():
            found.append(Mismatch(file.file, f"missing, {DOSSIER} lists it"))
        elif path.stat().st_size != file.bytes and not path.name.endswith(SHARD_SUFFIX):
            found.append(Mismatch(file.file, f"{path.stat().st_size} bytes, {DOSSIER} has {file.bytes}"))
        elif (digest := hash_file(path)) != file.sha256 and not _improved(dst, dossier, file.file, digest):
            found.append(Mismatch(file.file, f"SHA-256 {digest}, {DOSSIER} has {file.sha256}"))
    return found, len(files)


def _improved(dst: Path, dossier: Dossier, file: str, digest: str) -> bool:
    """Whether `quantize --improve` has replaced a shard, before the evidence was read or since."""
    return dossier.allows(file, digest) or Dossier.read(dst / DOSSIER).allows(file, digest)


class _Comparer:
    """Comparison of single tensors. errors: relative error of every packed tensor, filled as jobs run."""

    def __init__(
        self,
        source: Checkpoint,
        output: Checkpoint,
        scales: "Scales",
        rounding: Rounding | None,
        recorded: dict[str, float],
        progress: Progress,
    ) -> None:
        self._source, self._output, self._rounding, self._progress = source, output, rounding, progress
        self._recorded, self._scales = recorded, scales
        self.errors: dict[str, float] = {}

    def jobs(
        self, stored: dict[str, Entry], wanted: dict[str, Source], linears: Iterable[Linear]
    ) -> list[Callable[[], list[Mismatch]]]:
        """One callable per kept tensor, and one per group of packed linears that share `weight_scale_2`."""
        jobs: list[Callable[[], list[Mismatch]]] = []
        packed: dict[object, list[Linear]] = {}
        for linear in linears:
            entry = stored.get(linear.role.named(WEIGHT))
            if entry is not None and is_nvfp4(entry.form) and not _same_numbers(linear.source):
                packed.setdefault(unit_key(linear.role), []).append(linear)
        for unit in packed.values():
            for group in sharing(unit):
                jobs.append(lambda group=group: self._packed(group, stored))  # type: ignore[misc]
        for name, entry in stored.items():
            source = wanted[name]
            if is_nvfp4(entry.form) and not isinstance(source, Tensor) and _same_numbers(source):
                jobs.append(lambda name=name, source=source, entry=entry: self._converted(name, source, entry))  # type: ignore[misc]
            elif not is_nvfp4(entry.form):
                jobs.append(lambda name=name, entry=entry: self._kept(name, wanted[name], entry))  # type: ignore[misc]
        return jobs

    def _kept(self, name: str, wanted: Source, entry: Entry) -> list[Mismatch]:
        form = packed_form(wanted)
        if not isinstance(wanted, Tensor) and form is not None and entry.form.name == form.name:  # --keep-format
            return [
                found
                for part, tensor in wanted.parts.items()
                for found in self._copied(entry.role.named(part), tensor, entry.tensors[part])
            ]
        return self._copied(name, kept(wanted), next(iter(entry.tensors.values())))

    def _copied(self, name: str, wanted: Source, tensor: Tensor) -> list[Mismatch]:
        if (tensor.dtype, tensor.shape) != (wanted.dtype, wanted.shape):
            return [Mismatch(name, f"{tensor.dtype} {list(tensor.shape)}, wanted {wanted.dtype} {list(wanted.shape)}")]
        ours, theirs = RowReader(self._source), RowReader(self._output)
        for start, want in ours.chunks(wanted):
            have = theirs.part(tensor, start, len(want)).data
            self._progress.advance(len(want) * wanted.bytes // wanted.plain_bytes)
            if want != have:
                different = int(np.argmax(np.frombuffer(want, np.uint8) != np.frombuffer(have, np.uint8)))
                return [Mismatch(name, f"differs from the source, first at byte {start + different}")]
        return []

    def _packed(self, group: tuple[Linear, ...], stored: dict[str, Entry]) -> list[Mismatch]:
        entries = [stored[linear.role.named(WEIGHT)] for linear in group]
        found: list[Mismatch] = []
        scales_2 = [self._scales.second(entry) for entry in entries]
        for entry, scale_2 in zip(entries, scales_2, strict=True):
            scalars = {"weight_scale_2": scale_2}
            given = self._scales.of_input(entry)
            if given is not None:
                scalars["input_scale"] = given
            for part, value in scalars.items():
                if not (np.isfinite(value) and value > 0):
                    found.append(Mismatch(entry.name, f"{part} is {value}, wanted a finite number above 0"))
        if len(set(scales_2)) > 1:
            names = ", ".join(str(linear.role.projection) for linear in group)
            found.append(Mismatch(entries[0].name, f"{names} have different weight_scale_2: {scales_2}"))
        if found:
            return found
        for linear, entry in zip(group, entries, strict=True):
            if entry.shape != linear.source.shape:
                wanted = list(linear.source.shape)
                found.append(Mismatch(entry.name, f"unpacks to {list(entry.shape)}, the source is {wanted}"))
        return found or self._encoded(group, entries, scales_2[0])

    def _encoded(self, group: tuple[Linear, ...], entries: list[Entry], scale_2: np.float32) -> list[Mismatch]:
        """Compare codes and scales of a group whose scalars and shapes are sound."""
        reader = RowReader(self._source)
        try:
            largest = np.float32(0)
            for linear in group:
                for matrix in matrices_of(linear.source):
                    for first_row, rows in reader.rows(matrix):
                        largest = max(largest, amax(rows, matrix.name, first_row))
        except NonFiniteError as error:
            return [Mismatch(entries[0].name, f"the source cannot be encoded: {error.message}")]
        translated = all_mxfp4(group)
        if self._rounding is not None and not translated and scale_2 != scale_2_of(largest, self._rounding):
            wanted = scale_2_of(largest, self._rounding)
            return [
                Mismatch(entry.name, f"weight_scale_2 is {scale_2}, the source gives {wanted}") for entry in entries
            ]
        encoder = Encoder(scale_2, self._rounding or "max")
        repeatable = self._rounding is not None and not translated
        return [
            found
            for linear, entry in zip(group, entries, strict=True)
            if (found := self._one(linear, entry, encoder, reader, repeatable)) is not None
        ]

    def _one(
        self, linear: Linear, entry: Entry, encoder: Encoder, reader: RowReader, repeatable: bool
    ) -> Mismatch | None:
        again = EncodeBuffer()
        ideal, squared_error, energy, differs_at = Measure(), 0.0, 0.0, None
        for first_row, rows, codes, scales in self._beside(linear.source, entry, reader):
            if (scales & 0x7F > SCALE_LAST).any() or (scales > SCALE_LAST).any():
                return Mismatch(entry.name, f"a block scale at or after row {first_row} is NaN or negative")
            new_codes, new_scales = again.views(rows.size)
            ideal.add(encoder.encode_into(rows, new_codes, new_scales))
            decoded = np.empty(rows.size, np.float32)
            kernels.decode(codes, scales, encoder.scale_2, decoded)
            source = rows.reshape(-1).astype(np.float64)
            squared_error += float(np.square(source - decoded).sum())
            energy += float(np.square(source).sum())
            if differs_at is None and not (np.array_equal(codes, new_codes) and np.array_equal(scales, new_scales)):
                differs_at = first_row
        error = float(np.sqrt(squared_error / energy)) if energy else float(squared_error > 0)
        self.errors[entry.name] = error
        if repeatable and differs_at is not None:
            return Mismatch(
                entry.name,
                f"codes or scales are not what {self._rounding} rounding gives, at or after row {differs_at}",
            )
        recorded = self._recorded.get(linear.role.module, error)
        if abs(error - recorded) > RECORD_TOLERANCE * recorded:
            return Mismatch(entry.name, f"relative error {error:.6f}, {DOSSIER} has {recorded:.6f}: another source?")
        if error > ERROR_LIMIT * ideal.relative_error:
            return Mismatch(entry.name, f"relative error {error:.4f}, the max rule gives {ideal.relative_error:.4f}")
        return None

    def _beside(
        self, source: Source, entry: Entry, reader: RowReader
    ) -> Iterator[tuple[int, Weight, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        """Rows of the source with their codes and block scales, flat, and the number of the first: the row, of a stack
        the expert."""
        code_reader, scale_reader = RowReader(self._output), RowReader(self._output)
        numbers, block_scales = next(iter(entry.tensors.values())), entry.tensors[SCALE]
        columns = source.shape[1]
        if isinstance(source, Stacked):
            for number, matrix in enumerate(source.matrices):
                rows = reader.matrix(matrix)
                (height, _), size = matrix.shape, rows.size
                codes = code_reader.part(numbers, number * size // 2, size // 2)
                scales = scale_reader.part(block_scales, number * size // BLOCK_SIZE, size // BLOCK_SIZE)
                codes, scales = (straightened(raw, (-1, height)) for raw in (codes, scales))
                step = max(1, CHUNK_BYTES // rows[0].nbytes)
                for first in range(0, height, step):
                    own = slice(first, first + step)
                    yield number, rows[own], codes[own].reshape(-1), scales[own].reshape(-1)
                self._progress.advance(matrix.bytes)
            return
        for first_row, rows in reader.rows(source):
            codes = code_reader.part(numbers, first_row * columns // 2, rows.size // 2)
            scales = scale_reader.part(block_scales, first_row * columns // BLOCK_SIZE, rows.size // BLOCK_SIZE)
            yield first_row, rows, codes, scales
            self._progress.advance(len(rows) * source.bytes // source.shape[0])

    def _converted(self, name: str, source: Packed | Stacked, entry: Entry) -> list[Mismatch]:
        """Codes and block scales byte for byte; second scales equal, or inverse to each other."""
        if source.shape != entry.shape:
            return [Mismatch(name, f"unpacks to {list(entry.shape)}, the source is {list(source.shape)}")]
        ours, theirs = RowReader(self._source), RowReader(self._output)
        for want, have in zip(list(source.parts.values())[:2], list(entry.tensors.values())[:2], strict=True):
            for start, piece in ours.chunks(want):
                self._progress.advance(len(piece))
                if piece != theirs.part(have, start, len(piece)).data:
                    return [Mismatch(have.name, f"differs from {want.name}, at or after byte {start}")]
        original = Scales(self._source, None)
        known = Entry(entry.role, source.form.name, source.shape, source.bytes, source.parts)
        for what, want_scale, have_scale in (
            ("second scale", original.second(known), self._scales.second(entry)),
            ("input scale", original.of_input(known), self._scales.of_input(entry)),
        ):
            if not _alike(want_scale, have_scale):
                return [Mismatch(name, f"the {what} is {have_scale}, the source's {want_scale}")]
        return []


def _alike(one: np.float32 | None, other: np.float32 | None) -> bool:
    """Whether scales are equal, or as near as an inverse of an inverse is."""
    if one is None or other is None:
        return one is other
    return bool(one == other or abs(one - other) <= np.spacing(max(one, other)))


def _same_numbers(source: Source) -> bool:
    """Whether a source is NVFP4 itself, so that nothing was rounded."""
    return not isinstance(source, Tensor) and is_nvfp4(source.form)


class Scales:
    """The second scales of a checkpoint in whichever layout, as ModelOpt states them: to multiply by."""

    def __init__(self, checkpoint: Checkpoint, dossier: Dossier | None) -> None:
        """dossier: of the checkpoint; it may hold scales as they were before a conversion."""
        self._checkpoint = checkpoint
        converted = dossier.converted if dossier is not None else None
        self._originals = {} if converted is None else converted.original_scales

    def second(self, entry: Entry) -> np.float32:
        found = self._of(entry, SCALE_2)
        assert found is not None
        return found

    def of_input(self, entry: Entry) -> np.float32 | None:
        return self._of(entry, INPUT_SCALE)

    def _of(self, entry: Entry, part: str) -> np.float32 | None:
        if part in entry.tensors:
            return self._scalar(entry.tensors[part])
        tensor = entry.tensors.get(TO_COMPRESSED[part])
        if tensor is None:
            return None
        original = self._originals.get(tensor.name)
        if original is not None:
            return original.number
        with np.errstate(divide="ignore"):
            return np.float32(1) / self._scalar(tensor)

    def _scalar(self, tensor: Tensor) -> np.float32:
        buffer = bytearray(4)
        self._checkpoint.read_into(tensor, memoryview(buffer))
        return np.float32(np.frombuffer(buffer, "<f4")[0])
