"""`halfbyte.json`, the evidence that travels with a checkpoint, and the model card made from it.

Holds what was read (files with SHA-256), what was decided (recipe, rounding, input scale), what it cost (error of
every tensor) and what was written (files with SHA-256). No times, no paths: the same job gives the same bytes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from halfbyte import __version__
from halfbyte.formats.catalogue import NVFP4
from halfbyte.formats.modelopt import format_of
from halfbyte.formats.nvfp4.codec import Measure
from halfbyte.models.roles import Role
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.job import Job

SCHEMA = 1


@dataclass(frozen=True)
class File:
    file: str
    bytes: int
    sha256: str

    def as_json(self) -> dict[str, Any]:
        return {"file": self.file, "bytes": self.bytes, "sha256": self.sha256}


def role_table(job: Job, measures: Mapping[str, Measure]) -> list[dict[str, Any]]:
    """One row per role, MTP flag and output format: tensors, parameters, bytes before and after, error."""
    quantized: dict[str, list[Any]] = {}
    for linear in job.linears():
        quantized.setdefault(linear.source.name, []).append(linear)
    rows: dict[tuple[int, bool, str], dict[str, Any]] = {}
    totals: dict[tuple[int, bool, str], Measure] = {}
    order, packed = list(Role), format_of(job.recipe.algorithm)
    for entry in job.entries:
        linears = quantized.get(entry.name, [])
        form = NVFP4 if linears else entry.format
        key = (order.index(entry.role.role), entry.role.mtp, form)
        row = rows.setdefault(
            key,
            {
                "role": str(entry.role.role),
                "mtp": entry.role.mtp,
                "format": form,
                "tensors": 0,
                "parameters": 0,
                "bytes_before": 0,
                "bytes_after": 0,
            },
        )
        row["tensors"] += max(1, len(linears))
        row["parameters"] += entry.parameters
        row["bytes_before"] += entry.bytes
        row["bytes_after"] += sum(packed.bytes(linear.source.shape) for linear in linears) if linears else entry.bytes
        for linear in linears:
            if linear.role.module in measures:
                totals.setdefault(key, Measure()).add(measures[linear.role.module])
    for key, measure in totals.items():
        rows[key] |= {
            "relative_error": measure.relative_error,
            "sqnr_db": measure.sqnr_db,
            "max_rule_relative_error": measure.max_relative_error,
            "clamped_blocks": measure.clamped_blocks,
            "zero_blocks": measure.zero_blocks,
        }
    return [rows[key] for key in sorted(rows)]


def tensor_table(results: Mapping[str, tuple[float, Measure]]) -> dict[str, dict[str, Any]]:
    """Per linear: its amax (of the pair, where shared), its error, and the blocks worth knowing about."""
    return {
        module: {
            "amax": amax,
            "relative_error": measure.relative_error,
            "sqnr_db": measure.sqnr_db,
            "clamped_blocks": measure.clamped_blocks,
            "zero_blocks": measure.zero_blocks,
        }
        for module, (amax, measure) in results.items()
    }


def evidence(
    job: Job,
    source_name: str,
    source_files: Iterable[File],
    written: Iterable[File],
    rounding: str,
    input_scales: InputScales | None,
    results: Mapping[str, tuple[float, Measure]],
    rounded_on_data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The document, deterministic: all of it follows from source, data and options. rounded_on_data: see gptq."""
    written = list(written)
    return {
        "schema": SCHEMA,
        "halfbyte": __version__,
        "versions": library_versions(),
        "model_type": job.roles.family.model_type,
        "source": {"name": source_name, "files": [file.as_json() for file in source_files]},
        "recipe": job.recipe.model_dump(mode="json"),
        "rounding": rounding,
        **({} if rounded_on_data is None else {"rounded_on_data": dict(rounded_on_data)}),
        "input_scale": None if input_scales is None else input_scale_evidence(input_scales),
        "warnings": job.warnings,
        "roles": role_table(job, {module: measure for module, (_, measure) in results.items()}),
        "shards": [file.as_json() for file in written if file.file.endswith(".safetensors")],
        "files": [file.as_json() for file in written if not file.file.endswith(".safetensors")],
        "tensors": tensor_table(results),
    }


def library_versions() -> dict[str, str]:
    return {name: version(name) for name in ("numpy", "numba", "ml-dtypes")}


def input_scale_evidence(scales: InputScales) -> dict[str, Any]:
    return {
        "description": scales.description,
        "constant": None if scales.constant is None else float(scales.constant),
        "sha256": scales.sha256,
        "calibration": scales.calibration,
    }


def model_card(document: Mapping[str, Any], source_card: str | None) -> str:
    """The README.md of the checkpoint. source_card: the source's own, whose licence line is taken over."""
    front = ["---", f"base_model: {document['source']['name']}", "base_model_relation: quantized"]
    front += _licence_lines(source_card)
    front += ["library_name: transformers", "tags: [nvfp4, modelopt, moe, halfbyte]", "---", ""]
    recipe, scale = document["recipe"], document["input_scale"]
    rows = [
        f"| {row['role']}{' (MTP)' if row['mtp'] else ''} | {row['format']} | {row['parameters']:,} | "
        f"{row['bytes_before']:,} | {row['bytes_after']:,} | "
        + (f"{row['relative_error']:.5f}" if "relative_error" in row else "exact")
        + " |"
        for row in document["roles"]
    ]
    before = sum(row["bytes_before"] for row in document["roles"])
    after = sum(row["bytes_after"] for row in document["roles"])
    body = [
        f"# {document['source']['name']}, NVFP4 ({recipe['name']})",
        "",
        f"{recipe['description']} Made by Halfbyte {document['halfbyte']} in the ModelOpt layout.",
        "",
        f"- algorithm: {recipe['algorithm']}; rounding: {document['rounding']}",
        f"- input scale: {scale['description'] if scale else 'none (weight-only)'}",
        f"- size: {before:,} bytes before, {after:,} after",
        *(f"- note: {warning}" for warning in document["warnings"]),
        "",
        "| role | format | parameters | bytes before | bytes after | relative error |",
        "|---|---|---:|---:|---:|---:|",
        *rows,
        "",
        "Serve it with `sglang serve` or `vllm serve`: both recognise the format from config.json.",
        "`halfbyte.json` holds the SHA-256 of every file and the error of every tensor; check with `halfbyte verify`.",
        "",
    ]
    return "\n".join(front + body)


def _licence_lines(source_card: str | None) -> list[str]:
    if source_card is None or not source_card.startswith("---"):
        return []
    front = source_card.split("---", 2)[1]
    return [line for line in front.splitlines() if line.startswith(("license:", "license_name:", "license_link:"))]
