"""`halfbyte plan`: `--mtp` may stand without a number."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from halfbyte.cli.output import Json, Plot, check_plot, command, draw, options_from, print_json
from halfbyte.disk import check_output, read_stream
from halfbyte.errors import UsageError, said
from halfbyte.plan.options import PlanOptions
from halfbyte.plan.workload import Workload

if TYPE_CHECKING:
    from halfbyte.plan.result import Plan

DEFAULT_DRAFTS = "3"
LIST_LIMIT_BYTES = 10_000_000


class PlanCommand(TyperCommand):
    """Gives a bare `--mtp` its default number of draft tokens, which click options cannot express through typer."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given: list[str] = []
        for position, word in enumerate(args):
            given.append(word)
            following = args[position + 1] if position + 1 < len(args) else ""
            if word == "--mtp" and not following.isdigit():
                given.append(DEFAULT_DRAFTS)
        return super().parse_args(ctx, given)


COMMAND_CLASS = PlanCommand


@command
def plan(
    target: Annotated[str, typer.Argument(help="Checkpoint folder, config.json, hub name, or https:// base URL.")],
    gpu: Annotated[str, typer.Option(help="GPU type, for instance b200.")] = "",
    gpus: Annotated[int, typer.Option(help="Number of GPUs, replicas included.")] = 8,
    recipe: Annotated[str | None, typer.Option(help="Plan the model in this format instead of its own.")] = None,
    engine: Annotated[str | None, typer.Option(help="sglang or vllm.  [default: sglang]")] = PlanOptions.engine,
    tp: Annotated[int | None, typer.Option(help="Tensor parallel ranks, as the engine counts them.")] = None,
    ep: Annotated[int | None, typer.Option(help="Expert parallel ranks.")] = None,
    dp: Annotated[
        int | None, typer.Option(help="Data parallel ranks (SGLang: DP attention when tp spans all).")
    ] = None,
    pp: Annotated[int | None, typer.Option(help="Pipeline stages.")] = None,
    dcp: Annotated[int | None, typer.Option(help="Decode context parallel ranks.")] = None,
    context: Annotated[
        str | None, typer.Option(help="Tokens of the longest sequence, for instance 131072 or 1M.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Sequences of that length that must fit at once.")] = None,
    chunk: Annotated[int | None, typer.Option(help="Prefill chunk / max batched tokens.")] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="auto, bf16, fp8, fp8_ds_mla, nvfp4_ds_mla.")] = None,
    mem_fraction: Annotated[float | None, typer.Option(help="mem-fraction-static / gpu-memory-utilization.")] = None,
    mtp: Annotated[
        int, typer.Option(help=f"Draft tokens a step; {DEFAULT_DRAFTS} when given without a number.")
    ] = PlanOptions.mtp,
    draft_gib: Annotated[
        float | None,
        typer.Option(help="With --mtp: GiB per GPU of a separate draft model (Eagle3)."),
    ] = None,
    price: Annotated[float | None, typer.Option(help="Dollars per GPU-hour.")] = None,
    api_price: Annotated[
        float | None, typer.Option(help="Dollars per 1M output tokens of an API, to break even.")
    ] = None,
    utilisation: Annotated[float, typer.Option(help="Share of the throughput that is used.")] = Workload.utilisation,
    reasoning_share: Annotated[
        float, typer.Option(help="Share of output tokens that readers do not see.")
    ] = Workload.reasoning_share,
    input_tokens: Annotated[int, typer.Option(help="Prompt tokens of a typical request.")] = Workload.input_tokens,
    output_tokens: Annotated[
        int, typer.Option(help="Output tokens of a typical request, reasoning included.")
    ] = Workload.output_tokens,
    slo_ttft_ms: Annotated[float, typer.Option(help="Time to first token to hold.")] = Workload.slo_ttft_ms,
    slo_tpot_ms: Annotated[float, typer.Option(help="Time per output token to hold.")] = Workload.slo_tpot_ms,
    traffic: Annotated[str | None, typer.Option(help="Trace (CSV, Parquet) or reasoning:REQUESTS@PER_SECOND.")] = None,
    routing: Annotated[Path | None, typer.Option(help="JSON list: how often each expert was chosen.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of generated traffic.")] = PlanOptions.seed,
    compare: Annotated[str | None, typer.Option(help="Machines, for instance b200x8,h200x8,b300x4.")] = None,
    gpu_memory_gib: Annotated[
        float | None, typer.Option(help="Memory a process sees, instead of the catalogue's.")
    ] = None,
    max_sequences: Annotated[int | None, typer.Option(help="max-running-requests / max-num-seqs.")] = None,
    cuda_graph_max_bs: Annotated[int | None, typer.Option(help="Largest captured batch; 0 for eager.")] = None,
    max_total_tokens: Annotated[int | None, typer.Option(help="Cap on the KV pool's tokens.")] = None,
    engine_version: Annotated[str | None, typer.Option(help="Engine release, where it changes the sum.")] = None,
    forecast_graphs: Annotated[
        bool | None, typer.Option(help="vLLM: whether VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS is on. By version.")
    ] = None,
    hardware: Annotated[Path | None, typer.Option(help="YAML with more GPUs.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a server is given, in all.")] = PlanOptions.timeout,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write plan.json here.")] = None,
    terms: Annotated[bool, typer.Option("--terms", help="Show the whole sum, term by term, with sources.")] = False,
    plot: Plot = None,
    json_output: Json = False,
) -> None:
    """Plan capacity by peak memory: what fits, how many sequences, how fast, for how much. Reads headers only.

    Example: halfbyte plan ./glm-nvfp4 --gpu b200 --gpus 8 --context 1M

    Exit status 1 if the plan does not fit; with --compare, if none does.
    """
    from halfbyte.plan.planner import compare as run_compare
    from halfbyte.plan.planner import plan as run

    workload = options_from(Workload, locals(), routing=routing_from(routing))
    options = options_from(PlanOptions, locals(), context=tokens_from(context))
    if compare is not None:
        for name, value in (
            ("traffic", traffic),
            ("output", output),
            ("plot", plot),
            ("gpu_memory_gib", gpu_memory_gib),
        ):
            if value is not None:
                message = said(f"{{{name}}} is for one machine, {{compare}} plans several")
                raise UsageError(message, hint="plan it by itself")
        plans = run_compare(target, machines_from(compare), options)
        _print_comparison(plans, json_output)
        if not any(found.fits for found in plans):
            raise typer.Exit(1)
        return
    if not gpu:
        raise UsageError("no GPU is named", hint=said("add {gpu} b200, or {compare} b200x8,h200x8"))
    if output is not None:
        check_output(output, [Path(one) for one in (target, traffic, hardware, recipe) if one is not None])
    check_plot(plot, [target, traffic, hardware, recipe, output])
    found = run(target, gpu, gpus, options)
    draw(plot, "plan", found.as_json())
    if output is not None:
        found.write(output)
    if json_output:
        print_json(found.as_json())
    else:
        from halfbyte.plan.render import show

        show(found, terms=terms)
    if not found.fits:
        raise typer.Exit(1)


def _print_comparison(plans: "list[Plan]", json_output: bool) -> None:
    if json_output:
        print_json([found.as_json() for found in plans])
        return
    from halfbyte.plan.render import show_comparison

    show_comparison(plans)


def routing_from(path: Path | None) -> tuple[float, ...] | None:
    """Counts by expert from a JSON list. Raises UsageError."""
    if path is None:
        return None
    try:
        counts = json.loads(read_stream(path, UsageError, LIST_LIMIT_BYTES).decode("utf-8"))
        if not isinstance(counts, list):
            raise TypeError(f"a {type(counts).__name__}")
        return tuple(float(count) for count in counts)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{path}: not a JSON list of numbers: {str(error)[:100]}") from None


def tokens_from(text: str | None) -> int | None:
    """`131072`, `128k` or `1M` (both powers of two) as a number. Raises UsageError."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)([kKmM]?)", text.strip())
    if not found:
        raise UsageError(f"{text[:40]!r} is not a number of tokens", hint="for instance 131072, 128k or 1M")
    return int(found.group(1)) * {"": 1, "k": 1 << 10, "m": 1 << 20}[found.group(2).lower()]


def machines_from(text: str) -> list[tuple[str, int]]:
    """`b200x8,h200x8` as (GPU, count) pairs. Raises UsageError."""
    found = []
    for item in text.split(","):
        match = re.fullmatch(r"(.+?)\s*x\s*(\d+)", item.strip())
        if not match:
            raise UsageError(f"{item.strip()[:60]!r} is not GPUxCOUNT", hint="for instance b200x8,h200x8")
        found.append((match.group(1), int(match.group(2))))
    return found
