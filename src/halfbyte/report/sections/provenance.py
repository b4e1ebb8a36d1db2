"""Where it comes from: source, tools, settings and shards, with hashes."""

from halfbyte.evidence.dossier import Dossier, File, identity
from halfbyte.plots.parts import Section, Table
from halfbyte.report.words import HEX_DIGITS, hexadecimal, number, pairs, short

MOST_FILES = 1500


def provenance(dossier: Dossier) -> Section:
    lines = [
        f"Halfbyte {short(dossier.halfbyte, 40)}, {pairs(dossier.versions)}. Source {short(dossier.source.name, 120)}, "
        f"{len(dossier.source.files)} files. All shards together: "
        f"{hexadecimal(identity({row.file: row.sha256 for row in dossier.shards}))}.",
    ]
    scale = dossier.input_scale
    if scale is None:
        lines.append("Activations keep 16 bits.")
    else:
        lines.append(f"Input scale: {short(scale.description)}.")
        used = scale.calibration.data if scale.calibration else None
        if used is not None:
            lines.append(
                f"Calibrated on {used.documents} documents, {used.tokens} tokens ({hexadecimal(used.sha256)})."
            )
    rounded = dossier.rounded_on_data
    if rounded is not None:
        lines.append(
            f"Rounded by {short(rounded.method, 40)} on {rounded.data.documents} documents, "
            f"{rounded.data.tokens} tokens ({hexadecimal(rounded.data.sha256)}); {len(rounded.coverage.uncovered)} of "
            f"{number(rounded.coverage.experts, '{}')} experts saw fewer than {rounded.coverage.min_tokens}."
        )
    if dossier.improving is not None:
        lines.append(f"This checkpoint is {dossier.improving.statement}.")
    lines += [f"Warning: {short(warning)}" for warning in dossier.warnings[:50]]
    tables = [
        _files("source", dossier.source.files),
        _files("shards written", dossier.shards),
        _files("other files written", dossier.files),
    ]
    return Section("Provenance", lines, tables=[one for one in tables if one.rows])


def _files(title: str, files: list[File]) -> Table:
    rows = [[short(row.file, 200), row.sha256[:HEX_DIGITS], str(row.bytes)] for row in files[:MOST_FILES]]
    if len(files) > MOST_FILES:
        title += f", the first {MOST_FILES} of {len(files)}; halfbyte.json has all"
    return Table(title, ["file", f"SHA-256, first {HEX_DIGITS} digits", "bytes"], rows, text=2)
