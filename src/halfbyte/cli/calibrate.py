"""`halfbyte calibrate`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.calibrate.options import CalibrateOptions
from halfbyte.cli.many import many
from halfbyte.cli.output import (
    Json,
    command,
    options_from,
    parse_budget,
    print_json,
    print_table,
    say,
    shown_progress,
    size_text,
)

if TYPE_CHECKING:
    from halfbyte.calibrate.calibration import CalibrationResult

SHOWN_EXPERTS = 20


COMMAND_CLASS = many("--data")


@command
def calibrate(
    src: Annotated[str, typer.Argument(help="Checkpoint, BF16, FP8 or NVFP4: folder, hub name or URL.")],
    data: Annotated[
        list[str], typer.Option(help="FILE...: JSONL with text or messages, Parquet, plain text, hf:NAME, or a mix.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Scales file to write.")],
    tokens: Annotated[int | None, typer.Option(help="Budget of tokens, shared equally. [default: all]")] = None,
    max_length: Annotated[int | None, typer.Option(help="Cut documents off here. [default: whole]")] = None,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = CalibrateOptions.seed,
    pack: Annotated[bool, typer.Option("--pack", help="Join documents into sequences of --max-length.")] = False,
    memory_budget: Annotated[
        str | None, typer.Option(help="Resident memory to stay within, e.g. 3GB; the rest goes to files.")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for these files, and to go on from after a kill.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = CalibrateOptions.device,
    min_tokens: Annotated[
        int, typer.Option(help="Experts that saw fewer are reported as uncovered.")
    ] = CalibrateOptions.min_tokens,
    amax: Annotated[
        str, typer.Option(help="max (ModelOpt's), headroom (room for larger ones), percentile:99.99, or mse.")
    ] = CalibrateOptions.amax,
    per_expert: Annotated[
        bool, typer.Option("--per-expert", help="Also each covered expert's own scale; engines take the largest.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing scales file.")] = False,
    ray: Annotated[
        str | None, typer.Option(help="HOST:PORT, auto or local: a share of the documents on every machine there.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Measure activation scales (input_scale) by running text through the model, layer by layer from disk.

    Example: halfbyte calibrate ./GLM-5.2 --data our-domain.jsonl -o scales.json --max-length 2048 --memory-budget 30GB
    """
    from halfbyte.calibrate.calibration import calibrate as run

    options = options_from(CalibrateOptions, locals(), memory_budget=parse_budget(memory_budget))

    def show(result: "CalibrationResult") -> None:
        print_json(result.as_json()) if json_output else _print(result)

    with shown_progress() as progress:
        run(src, data, output, options, progress=progress, on_done=show)


def _print(result: "CalibrationResult") -> None:
    scales = result.scales
    rows = []
    for row in result.coverage["layers"]:
        groups = [key for key in scales if f".layers.{row['layer']}." in key and ".experts." in key]
        values = [
            next((f"{scales[key]:.4g}" for key in groups if key.endswith(names)), "-")
            for names in ((".experts.gate_up_proj", ".experts.up_proj"), ".experts.down_proj")
        ]
        least, middle, most = (row["tokens"][name] for name in ("least", "median", "most"))
        histogram = " ".join(f"{name}:{count}" for name, count in row["histogram"].items() if count)
        rows.append([str(row["layer"]), *values, f"{least:,}", f"{middle:,.0f}", f"{most:,}", histogram])
    columns = ["layer", "amax gate/up", "amax down", "least tokens", "median", "most", "experts by tokens"]
    title = (
        f"{result.output} (routed experts, {result.amax}, {result.tokens:,} tokens of {result.documents:,} documents)"
    )
    print_table(title, columns, rows)
    uncovered = result.coverage["uncovered"]
    for one in uncovered[:SHOWN_EXPERTS]:
        say(f"uncovered: layer {one['layer']} expert {one['expert']}, {one['tokens']} token(s)")
    if len(uncovered) > SHOWN_EXPERTS:
        say(f"uncovered: {len(uncovered) - SHOWN_EXPERTS} more, see {result.output}")
    for warning in result.warnings:
        say(f"warning: {warning}")
    seconds = result.stream["seconds"]
    resumed = f", {result.resumed_layers} layer(s) resumed" if result.resumed_layers else ""
    cuda = "" if result.peak_cuda_bytes is None else f", on the GPU {size_text(result.peak_cuda_bytes)}"
    say(
        f"wrote {result.output}: {len(scales):,} values, {result.seconds:.1f} s (read {seconds['read']:.1f}, "
        f"compute {seconds['copy'] + seconds['compute']:.1f}, overlap {result.stream['overlap']:.0%}), "
        f"peak memory {size_text(result.peak_rss_bytes)}{cuda}{resumed}"
    )
