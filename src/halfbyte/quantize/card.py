"""The model card, README.md of the checkpoint, made from its evidence."""

from halfbyte.evidence.dossier import Dossier


def model_card(document: Dossier, source_card: str | None) -> str:
    """The README.md of the checkpoint. source_card: the source's own, whose licence line is taken over."""
    front = ["---", f"base_model: {document.source.name}", "base_model_relation: quantized"]
    front += _licence_lines(source_card)
    front += ["library_name: transformers", "tags: [nvfp4, modelopt, moe, halfbyte]", "---", ""]
    recipe, scale = document.recipe, document.input_scale
    rows = [
        f"| {row.role}{' (MTP)' if row.mtp else ''} | {row.format} | {row.parameters:,} | "
        f"{row.bytes_before:,} | {row.bytes_after:,} | "
        + (f"{row.relative_error:.5f}" if row.relative_error is not None else "exact")
        + " |"
        for row in document.roles
    ]
    before = sum(row.bytes_before for row in document.roles)
    after = sum(row.bytes_after for row in document.roles)
    body = [
        f"# {document.source.name}, NVFP4 ({recipe.name})",
        "",
        f"{recipe.description} Made by Halfbyte {document.halfbyte} in the ModelOpt layout.",
        "",
        f"- algorithm: {recipe.algorithm}; rounding: {document.rounding}",
        f"- input scale: {scale.description if scale else 'none (weight-only)'}",
        *([f"- source format: {document.source.format}"] if document.source.format else []),
        f"- size: {before:,} bytes before, {after:,} after",
        *(f"- note: {warning}" for warning in document.warnings),
        "",
        "| role | format | parameters | bytes before | bytes after | relative error |",
        "|---|---|---:|---:|---:|---:|",
        *rows,
        "",
        *_evaluation_lines(document),
        "Serve it with `sglang serve` or `vllm serve`, whichever `halfbyte gate --engine` lets it through to: both "
        "recognise the format from config.json.",
        "`halfbyte.json` holds the SHA-256 of every file and the error of every tensor; check with `halfbyte verify`.",
        "",
    ]
    return "\n".join(front + body)


def _evaluation_lines(document: Dossier) -> list[str]:
    """Verdicts that `halfbyte evaluate` recorded; nothing where there are none."""
    if not document.evaluate:
        return []
    return [
        "Evaluated against its baseline; differences in points, intervals 90 %, two-sided:",
        "",
        "| suite | items | difference | interval | margin | verdict |",
        "|---|---:|---:|---:|---:|---|",
        *(
            f"| {row.suite} | {row.n or '-'} | {_points(row.difference)} | "
            + (" .. ".join(map(_points, row.interval)) if row.interval else "-")
            + f" | {'-' if row.margin is None else f'{row.margin:g}'} | {row.verdict} |"
            for row in document.evaluate
        ),
        "",
    ]


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _licence_lines(source_card: str | None) -> list[str]:
    if source_card is None or not source_card.startswith("---"):
        return []
    front = source_card.split("---", 2)[1]
    return [line for line in front.splitlines() if line.startswith(("license:", "license_name:", "license_link:"))]
