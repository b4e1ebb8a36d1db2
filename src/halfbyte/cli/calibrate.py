"""`halfbyte calibrate`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.cli.output import Json, command, print_json, print_table, shown_progress, size_text
from halfbyte.cli.quantize import parse_size

if TYPE_CHECKING:
    from halfbyte.calibrate.calibration import CalibrationResult

SHOWN_EXPERTS = 20


@command
def calibrate(
    src: Annotated[Path, typer.Argument(help="Checkpoint folder: BF16, FP8 or NVFP4.")],
    data: Annotated[
        list[str], typer.Option(help="FILE...: JSONL with text or messages, Parquet, plain text, hf:NAME, or a mix.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Scales file to write.")],
    tokens: Annotated[int | None, typer.Option(help="Budget of tokens, shared equally. [default: all]")] = None,
    max_length: Annotated[int | None, typer.Option(help="Cut documents off here. [default: whole]")] = None,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    pack: Annotated[bool, typer.Option("--pack", help="Join documents into sequences of --max-length.")] = False,
    memory_budget: Annotated[
        str | None, typer.Option(help="Resident memory to stay within, e.g. 3GB; the rest goes to files.")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for these files, and to go on from after a kill.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    min_tokens: Annotated[int, typer.Option(help="Experts that saw fewer are reported as uncovered.")] = 64,
    amax: Annotated[
        str, typer.Option(help="max (ModelOpt's), headroom (room for larger ones), percentile:99.99, or mse.")
    ] = "max",
    per_expert: Annotated[
        bool, typer.Option("--per-expert", help="Also each covered expert's own scale; engines take the largest.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing scales file.")] = False,
    json_output: Json = False,
) -> None:
    """Measure activation scales (input_scale) by running text through the model, layer by layer from disk.

    Example: halfbyte calibrate ./GLM-5.2 --data our-domain.jsonl -o scales.json --max-length 2048 --memory-budget 30GB
    """
    from halfbyte.calibrate.calibration import calibrate as run

    def show(result: "CalibrationResult") -> None:
        print_json(result.as_json()) if json_output else _print(result)

    with shown_progress() as progress:
        run(
            src,
            data,
            output,
            tokens=tokens,
            max_length=max_length,
            seed=seed,
            pack=pack,
            memory_budget=None if memory_budget is None else parse_size(memory_budget, "--memory-budget"),
            work=work,
            device=device,
            min_tokens=min_tokens,
            amax=amax,
            per_expert=per_expert,
            overwrite=overwrite,
            progress=progress,
            on_done=show,
        )


def _print(result: "CalibrationResult") -> None:
    scales = result.scales
    rows = []
    for row in result.coverage["layers"]:
        groups = [key for key in scales if key.startswith(f"model.layers.{row['layer']}.") and ".experts." in key]
        values = [
            next((f"{scales[key]:.4g}" for key in groups if key.endswith(f".experts.{group}")), "-")
            for group in ("gate_up_proj", "down_proj")
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
        print(f"uncovered: layer {one['layer']} expert {one['expert']}, {one['tokens']} token(s)")
    if len(uncovered) > SHOWN_EXPERTS:
        print(f"uncovered: {len(uncovered) - SHOWN_EXPERTS} more, see {result.output}")
    for warning in result.warnings:
        print(f"warning: {warning}")
    seconds = result.stream["seconds"]
    resumed = f", {result.resumed_layers} layer(s) resumed" if result.resumed_layers else ""
    cuda = "" if result.peak_cuda_bytes is None else f", on the GPU {size_text(result.peak_cuda_bytes)}"
    print(
        f"wrote {result.output}: {len(scales):,} values, {result.seconds:.1f} s (read {seconds['read']:.1f}, "
        f"compute {seconds['copy'] + seconds['compute']:.1f}, overlap {result.stream['overlap']:.0%}), "
        f"peak memory {size_text(result.peak_rss_bytes)}{cuda}{resumed}"
    )
