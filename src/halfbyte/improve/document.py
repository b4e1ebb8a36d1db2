"""The evidence of a checkpoint that is being improved, and of one that was."""

from collections.abc import Mapping

from halfbyte import __version__
from halfbyte.evidence.dossier import Dossier, File, Improving, RoleRow, RoundedOnData
from halfbyte.quantize.dossier import Results, input_scale_record, library_versions, role_table, tensor_table
from halfbyte.quantize.input_scale import InputScales
from halfbyte.quantize.job import Job


def rest_of(dossier: Dossier) -> str:
    """How everything but the experts that were rounded on data was rounded."""
    about = dossier.rounded_on_data
    if about is not None and about.rounded_by_max is not None:
        return "max"
    return "sweep" if about is not None and about.rounded_by_sweep is not None else dossier.rounding


def in_progress(dossier: Dossier, hashes: Mapping[str, str], results: Results, state: Improving) -> Dossier:
    """hashes: of all shards as they are. results: of those replaced. state: with the shard to be replaced next, which
    may be in place already when somebody looks. What concerns the checkpoint as a whole stays as it was.
    """
    return dossier.model_copy(
        update={
            "shards": _shards(dossier, hashes),
            "tensors": {**dossier.tensors, **tensor_table(results)},
            "improving": state,
        }
    )


def improved(
    dossier: Dossier,
    job: Job,
    hashes: Mapping[str, str],
    results: Results,
    rounded_on_data: RoundedOnData,
    input_scales: InputScales | None,
) -> Dossier:
    """The evidence as one run of gptq would have written it. results: of everything rounded on data.

    input_scales: None if they stayed.
    """
    rows = {_row_key(row): row for row in dossier.roles}
    roles = role_table(job, results)
    changed = {
        "halfbyte": __version__,
        "versions": library_versions(),
        "rounding": "gptq",
        "rounded_on_data": rounded_on_data,
        "roles": [row if row.relative_error is not None else rows.get(_row_key(row), row) for row in roles],
        "shards": _shards(dossier, hashes),
        "tensors": {**dossier.tensors, **tensor_table(results)},
    }
    if input_scales is not None:
        changed["input_scale"] = input_scale_record(input_scales)
    return dossier.model_copy(update=changed).without("improving")


def _shards(dossier: Dossier, hashes: Mapping[str, str]) -> list[File]:
    return [row.model_copy(update={"sha256": hashes[row.file]}) for row in dossier.shards]


def _row_key(row: RoleRow) -> tuple[str, bool, str]:
    return row.role, row.mtp, row.format
