"""The evidence of a checkpoint that is being improved, and of one that was."""

from collections.abc import Mapping
from typing import Any

from halfbyte import __version__
from halfbyte.evidence.improving import KEY
from halfbyte.formats.nvfp4.codec import Measure
from halfbyte.quantize.evidence import File, input_scale_evidence, library_versions, role_table, tensor_table
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.job import Job

Results = Mapping[str, tuple[float, Measure]]
"""By module: amax (of the pair, where shared), and what rounding cost."""


def rest_of(document: Mapping[str, Any]) -> str:
    """How everything but the experts that were rounded on data was rounded."""
    about = document.get("rounded_on_data")
    for rounding in ("max", "sweep"):
        if isinstance(about, dict) and f"rounded_by_{rounding}" in about:
            return rounding
    return str(document["rounding"])


def in_progress(
    document: Mapping[str, Any],
    hashes: Mapping[str, str],
    results: Results,
    progress: Mapping[str, Any],
    following: File | None,
) -> dict[str, Any]:
    """hashes: of all shards as they are. results: of those replaced. following: the one to be replaced next, which
    may be in place already when somebody looks. What concerns the checkpoint as a whole stays as it was.
    """
    return {
        **document,
        "shards": _shards(document, hashes),
        "tensors": {**document["tensors"], **tensor_table(results)},
        KEY: {**progress, "next": None if following is None else following.as_json()},
    }


def improved(
    document: Mapping[str, Any],
    job: Job,
    hashes: Mapping[str, str],
    results: Results,
    rounded_on_data: Mapping[str, Any],
    input_scales: InputScales | None,
) -> dict[str, Any]:
    """The evidence as one run of gptq would have written it. results: of everything rounded on data.

    input_scales: None if they stayed.
    """
    rows = {_row_key(row): row for row in document["roles"]}
    roles = role_table(job, {module: measure for module, (_, measure) in results.items()})
    changed = {
        "halfbyte": __version__,
        "versions": library_versions(),
        "rounding": "gptq",
        "rounded_on_data": dict(rounded_on_data),
        "roles": [row if "relative_error" in row else rows.get(_row_key(row), row) for row in roles],
        "shards": _shards(document, hashes),
        "tensors": {**document["tensors"], **tensor_table(results)},
    }
    if input_scales is not None:
        changed["input_scale"] = input_scale_evidence(input_scales)
    order = [key for key in document if key not in ("rounded_on_data", KEY)]
    order.insert(order.index("rounding") + 1, "rounded_on_data")
    return {key: changed[key] if key in changed else document[key] for key in order}


def _shards(document: Mapping[str, Any], hashes: Mapping[str, str]) -> list[dict[str, Any]]:
    return [row | {"sha256": hashes[row["file"]]} for row in document["shards"]]


def _row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row.get("role"), row.get("mtp"), row.get("format")
