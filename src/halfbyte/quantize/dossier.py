"""What `quantize` has to say in `halfbyte.json`, all of it from the job and what rounding measured."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from halfbyte import __version__
from halfbyte.evidence.dossier import (
    SCHEMA,
    Dossier,
    File,
    InputScaleRecord,
    RecipeRecord,
    RoleRow,
    RoundedOnData,
    SourceRecord,
    TensorRow,
)
from halfbyte.formats.catalogue import BF16, NVFP4, stored_bytes
from halfbyte.formats.modelopt import format_of
from halfbyte.formats.nvfp4.codec import Measure
from halfbyte.models.roles import Role
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.job import Job

Results = Mapping[str, tuple[float, Measure]]
"""By module: amax (of the pair, where shared), and what rounding cost."""


def role_table(job: Job, results: Results) -> list[RoleRow]:
    """One row per role, MTP flag and output format: tensors, parameters, bytes before and after, error."""
    quantized: dict[str, list[Any]] = {}
    for linear in job.linears():
        quantized.setdefault(linear.source.name, []).append(linear)
    rows: dict[tuple[int, bool, str], dict[str, Any]] = {}
    totals: dict[tuple[int, bool, str], Measure] = {}
    order, packed = list(Role), format_of(job.recipe.algorithm)
    for entry in job.entries:
        linears = quantized.get(entry.name, [])
        rounded = entry.form.quantized and job.mixture is None
        form = NVFP4 if linears else BF16 if rounded else entry.format
        key = (order.index(entry.role.role), entry.role.mtp, form)
        row = rows.setdefault(key, {"tensors": 0, "parameters": 0, "bytes_before": 0, "bytes_after": 0})
        row["tensors"] += max(1, len(linears))
        row["parameters"] += entry.parameters
        row["bytes_before"] += entry.bytes
        kept_bytes = stored_bytes(entry.shape, BF16) if rounded else entry.bytes
        row["bytes_after"] += sum(packed.bytes(linear.source.shape) for linear in linears) or kept_bytes
        for linear in linears:
            if linear.role.module in results:
                totals.setdefault(key, Measure()).add(results[linear.role.module][1])
    for key, measure in totals.items():
        rows[key] |= {
            "relative_error": measure.relative_error,
            "sqnr_db": measure.sqnr_db,
            "max_rule_relative_error": measure.max_relative_error,
            "clamped_blocks": measure.clamped_blocks,
            "zero_blocks": measure.zero_blocks,
        }
    return [RoleRow(role=str(order[key[0]]), mtp=key[1], format=key[2], **rows[key]) for key in sorted(rows)]


def tensor_table(results: Results) -> dict[str, TensorRow]:
    """Per linear: its amax (of the pair, where shared), its error, and the blocks worth knowing about."""
    return {
        module: TensorRow(
            amax=amax,
            relative_error=measure.relative_error,
            sqnr_db=measure.sqnr_db,
            clamped_blocks=measure.clamped_blocks,
            zero_blocks=measure.zero_blocks,
        )
        for module, (amax, measure) in results.items()
    }


def dossier(
    job: Job,
    source_name: str,
    source_files: Iterable[File],
    written: Iterable[File],
    rounding: str,
    input_scales: InputScales | None,
    results: Results,
    rounded_on_data: RoundedOnData | None = None,
) -> Dossier:
    """The whole document, deterministic: all of it follows from source, data and options."""
    written = list(written)
    document = Dossier(
        schema=SCHEMA,
        halfbyte=__version__,
        versions=library_versions(),
        model_type=job.roles.family.model_type,
        source=SourceRecord(name=source_name, format=job.source_format, files=list(source_files)),
        recipe=RecipeRecord(**job.recipe.model_dump(mode="json")),
        rounding=rounding,
        input_scale=None if input_scales is None else input_scale_record(input_scales),
        warnings=job.warnings,
        roles=role_table(job, results),
        shards=[file for file in written if file.file.endswith(".safetensors")],
        files=[file for file in written if not file.file.endswith(".safetensors")],
        tensors=tensor_table(results),
    )
    return document if rounded_on_data is None else document.model_copy(update={"rounded_on_data": rounded_on_data})


def library_versions() -> dict[str, str]:
    """Of the libraries that decide about bytes."""
    return {name: version(name) for name in ("numpy", "numba", "ml-dtypes")}


def input_scale_record(scales: InputScales) -> InputScaleRecord:
    """Where the activation scales are from."""
    return InputScaleRecord(
        description=scales.description,
        constant=None if scales.constant is None else float(scales.constant),
        sha256=scales.sha256,
        calibration=scales.calibration,
    )
