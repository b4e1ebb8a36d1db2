"""What was packed: bytes by role, before and after."""

from halfbyte.evidence.dossier import Dossier, RoleRow
from halfbyte.plots.charts import bytes_by_role, finite
from halfbyte.plots.parts import Figure, Section, Table
from halfbyte.report.words import number, short, size


def packed(dossier: Dossier) -> Section:
    rows = dossier.roles
    before, after = sum(row.bytes_before for row in rows), sum(row.bytes_after for row in rows)
    parameters = sum(row.parameters for row in rows)
    table = Table(
        "bytes by role, exact",
        [
            "role",
            "format",
            "tensors",
            "parameters",
            "bytes before",
            "bytes after",
            "bits/weight",
            "relative error",
            "SQNR, dB",
        ],
        [
            [
                role_of(row),
                row.format,
                str(row.tensors),
                str(row.parameters),
                str(row.bytes_before),
                str(row.bytes_after),
                _bits(row.bytes_after, row.parameters),
                number(row.relative_error, "{:.4f}"),
                number(row.sqnr_db, "{:.2f}"),
            ]
            for row in rows
        ]
        + [
            [
                "total",
                "",
                *map(str, (sum(row.tensors for row in rows), parameters, before, after)),
                _bits(after, parameters),
                "",
                "",
            ]
        ],
        text=2,
    )
    lines = [
        f"{size(before)} became {size(after)}, {_bits(after, parameters)} bits per weight. "
        f"Recipe {short(dossier.recipe.name)}, rounded by {short(dossier.rounding)}."
    ]
    drawn = finite(
        (
            {"role": f"{role_of(row)}, {row.format}", "when": when, "bytes": value}
            for row in rows
            for when, value in (("before", row.bytes_before), ("after", row.bytes_after))
        ),
        "bytes",
    )
    if not drawn:
        return Section("What was packed", lines, tables=[table])
    says = f"Bytes by role, before and after: {size(before)} became {size(after)}."
    return Section("What was packed", lines, [Figure("packed", bytes_by_role(drawn), says, [table])])


def role_of(row: RoleRow) -> str:
    return short(f"{row.role} (MTP)" if row.mtp else row.role, 60)


def _bits(size_bytes: int, parameters: int) -> str:
    try:
        return f"{8 * size_bytes / parameters:.3f}" if parameters else "–"
    except OverflowError:  # of numbers that no checkpoint has
        return "–"
