"""`halfbyte quantize`"""

from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.cli.many import many
from halfbyte.cli.output import (
    FollowLinks,
    Json,
    command,
    options_from,
    parse_budget,
    parse_size,
    print_json,
    print_table,
    role_text,
    say,
    shown_progress,
    size_text,
)
from halfbyte.errors import UsageError, said
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.part_options import PartOptions
from halfbyte.recipes.names import DEFAULT_RECIPE

if TYPE_CHECKING:
    from halfbyte.quantize.result import QuantizeResult
    from halfbyte.quantize.room import Room


COMMAND_CLASS = many("--calibrate")


@command
def quantize(
    src: Annotated[str, typer.Argument(help="Checkpoint: folder, hub name (owner/name[@revision]) or URL.")],
    dst: Annotated[
        str, typer.Argument(help="Folder to write, or s3://BUCKET/FOLDER; must be new or empty, unless --improve.")
    ],
    recipe: Annotated[
        str,
        typer.Option(
            help="nvfp4-routed-experts, nvfp4-experts-and-shared, nvfp4-mlp, nvfp4-weight-only, or a YAML file."
        ),
    ] = DEFAULT_RECIPE,
    rounding: Annotated[
        str,
        typer.Option(
            help="max: ModelOpt's, bit for bit. sweep: scales of least error; weighted-sweep: weighed by activations. "
            "gptq: for the least error of outputs. The last two on --calibrate data."
        ),
    ] = QuantizeOptions.rounding,
    input_scale: Annotated[
        str | None,
        typer.Option(
            help="Of activations: max or headroom (of --calibrate data), NUMBER, or FILE of calibrated amax. "
            "[default: headroom with --calibrate, else 1]"
        ),
    ] = None,
    calibrate: Annotated[
        list[str] | None, typer.Option(help="FILE...: data to measure activation scales on, or for gptq to round on.")
    ] = None,
    calibration_tokens: Annotated[int | None, typer.Option(help="Tokens of it to use. [default: all]")] = None,
    calibration_length: Annotated[
        int, typer.Option(help="Cut its documents off here.")
    ] = QuantizeOptions.calibration_length,
    memory_budget: Annotated[str | None, typer.Option(help="Resident memory of the calibration, e.g. 3GB.")] = None,
    device: Annotated[str, typer.Option(help="Where to calibrate: cpu or cuda.")] = QuantizeOptions.device,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. [default: one per processor]")] = None,
    max_shard_size: Annotated[
        str, typer.Option(help="Largest output file, e.g. 5GB or 500MB.")
    ] = f"{QuantizeOptions.max_shard_bytes // 10**9}GB",
    improve: Annotated[
        bool,
        typer.Option("--improve", help="DST is finished: replace its experts by those of gptq, shard by shard."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written, write nothing.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the checkpoint in DST once ours is done.")
    ] = False,
    keep_format: Annotated[
        bool, typer.Option("--keep-format", help="Copy what is kept as it is stored, if engines load the mixture.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(help="i/n: do one part of n, others beside it on the same folder. /n: i is JOB_COMPLETION_INDEX."),
    ] = None,
    lease_seconds: Annotated[
        float, typer.Option(help="A part without a heartbeat for so long is dead; others take its shards over.")
    ] = PartOptions.lease_seconds,
    ray: Annotated[
        str | None, typer.Option(help="HOST:PORT, auto or local: parts on every machine of this cluster, then joined.")
    ] = None,
    finish: Annotated[bool, typer.Option("--finish", help="Check what the parts wrote, and join it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write what engines are known not to load.")] = False,
    follow_links: FollowLinks = False,
    json_output: Json = False,
) -> None:
    """Turn a BF16 mixture-of-experts checkpoint into a selective NVFP4 one that SGLang, vLLM and TensorRT-LLM load.

    Streams in constant memory; after a kill the same command resumes.
    Example: halfbyte quantize ./GLM-5.2 ./glm-nvfp4
    """
    from halfbyte.api import quantize as run

    options = options_from(
        QuantizeOptions,
        locals(),
        calibrate=calibrate or (),
        memory_budget=parse_budget(memory_budget),
        max_shard_bytes=parse_size(max_shard_size, "max_shard_bytes"),
    )

    if ray is not None and (part is not None or finish or improve):
        raise UsageError(said("{ray} does parts and joins them: it goes with none of {part}, {finish}, {improve}"))
    if part is not None:
        if finish or improve:
            raise UsageError(
                said("{part} stands alone: {finish} comes after it, {improve} needs a finished checkpoint")
            )
        _print_part(src, dst, options, PartOptions(part, lease_seconds), json_output)
        return
    if finish and improve:
        raise UsageError(said("{finish} joins parts, {improve} needs a finished checkpoint"))

    def show(result: "QuantizeResult") -> None:
        print_json(result.as_json()) if json_output else _print(result)

    with shown_progress() as progress:
        result = run(
            src,
            dst,
            options,
            improve=improve,
            finish=finish,
            ray=ray,
            lease_seconds=lease_seconds,
            progress=progress,
            on_done=show,
        )
    if dry_run:
        show(result)


def _print_part(src: str, dst: str, options: QuantizeOptions, part: PartOptions, json_output: bool) -> None:
    from halfbyte.quantize.parts import quantize_part

    with shown_progress() as progress:
        result = quantize_part(src, dst, options, part, progress)
    if json_output:
        print_json(result.as_json())
        return
    taken = f", {result.taken_over} of them taken over" if result.taken_over else ""
    left = (
        f"; {result.left} are left for parts that have not begun" if result.left else "; all are there: --finish joins"
    )
    say(f"part {result.part} of {result.parts}: {result.shards} shard(s){taken}, {result.seconds:.1f} s; {left}")


def _print(result: "QuantizeResult") -> None:
    gain = result.rounding == "sweep"  # gptq trades error of the weights for error of the output
    rows = []
    for row in result.roles:
        error = row.get("relative_error")
        cells = [
            role_text(row),
            row["format"],
            f"{row['tensors']:,}",
            f"{row['parameters']:,}",
            size_text(row["bytes_before"]),
            size_text(row["bytes_after"]),
            "exact" if error is None and row["format"] != "nvfp4" else "-" if error is None else f"{error:.5f}",
            f"{row['sqnr_db']:.2f}" if row.get("sqnr_db") else "",
        ]
        if gain:
            before = row.get("max_rule_relative_error")
            cells.append(f"{1 - error / before:.1%} less" if before and error is not None else "")
        rows.append(cells)
    columns = ["role", "format", "tensors", "parameters", "before", "after", "rel. error", "SQNR dB"]
    columns += ["error vs max"] if gain else []
    footer = ["total", "", "", f"{sum(row['parameters'] for row in result.roles):,}", size_text(result.bytes_in)]
    footer += [size_text(result.bytes_out), "", ""] + ([""] if gain else [])
    print_table(
        f"{result.output} ({result.recipe}, {result.algorithm}, rounding {result.rounding})", columns, rows, footer
    )
    for warning in result.warnings:
        say(f"warning: {warning}")
    say(f"input scale: {result.input_scale or 'none (weight-only)'}")
    if result.dry_run:
        count = result.shards if result.replaced_shards is None else result.replaced_shards
        done = "written" if result.replaced_shards is None else f"replaced, of {result.shards}"
        say(f"dry run: {count} shard(s) would be {done}, nothing was")
        if result.room is not None:
            say(_room(result.room))
        if result.fetch is not None:
            slow, fast = result.fetch.seconds_at_1_gbit_per_s, result.fetch.seconds_at_10_gbit_per_s
            say(f"to fetch: {size_text(result.fetch.bytes)}, {slow:,.0f} s at 1 Gbit/s, {fast:,.0f} s at 10 Gbit/s")
        return
    resumed = f", {result.resumed_shards} of {result.shards} shards resumed" if result.resumed_shards else ""
    if result.replaced_shards is not None:
        say(f"{_improved(result)}, {result.seconds:.1f} s, peak memory {size_text(result.peak_rss_bytes)}{resumed}")
        return
    say(
        f"wrote {result.output}: {size_text(result.bytes_out)} in {result.shards} shard(s), {result.seconds:.1f} s, "
        f"{result.bytes_in / 1e9 / max(result.seconds, 1e-9):.2f} GB/s of source, "
        f"peak memory {size_text(result.peak_rss_bytes)}{resumed}"
    )


def _room(room: "Room") -> str:
    parts = [f"shards {size_text(room.shards)}"]
    parts += [f"rounded experts that wait {size_text(room.rounded_experts)}"] if room.rounded_experts else []
    parts += [f"activations and notes {size_text(room.activations)}"] if room.activations else []
    return f"room on the disk: at most {size_text(room.peak)} at once ({', '.join(parts)}, not all at the same time)"


def _improved(result: "QuantizeResult") -> str:
    if not result.replaced_shards:
        return f"nothing to do: {result.output} is rounded by gptq on this data already"
    return f"improved {result.output}: {result.replaced_shards} of {result.shards} shard(s) replaced"
