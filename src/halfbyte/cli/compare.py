"""`halfbyte compare`"""

from pathlib import Path
from typing import Annotated, Any

import typer

from halfbyte.cli.many import many
from halfbyte.cli.output import (
    Json,
    Plot,
    check_plot,
    command,
    draw,
    options_from,
    parse_budget,
    print_json,
    print_table,
    say,
    shown_progress,
    size_text,
)
from halfbyte.compare.options import CompareOptions

MemoryBudget = Annotated[
    str | None, typer.Option("--memory-budget", help="Resident memory of this process, e.g. 16GB. [default: no bound]")
]


COMMAND_CLASS = many("--data")


@command
def compare(
    base: Annotated[str, typer.Argument(help="The baseline: folder, hub name or URL.")],
    candidate: Annotated[str, typer.Argument(help="The candidate, the same model in another format.")],
    data: Annotated[
        list[str] | None, typer.Option(help="FILE...: JSONL, Parquet or text files, hf:NAME, or nemotron-7.")
    ] = None,
    slice: Annotated[list[str] | None, typer.Option(help="Field of the data to break down by. Repeatable.")] = None,
    recall: Annotated[str | None, typer.Option(help="Needle-in-context probes of these lengths: 1k,4k,16k.")] = None,
    probes: Annotated[int, typer.Option(min=1, help="Probes of each length and language.")] = CompareOptions.probes,
    a4_sim: Annotated[
        bool, typer.Option("--a4-sim", help="Also with activations rounded to four bits, as on Blackwell.")
    ] = False,
    tokens: Annotated[int | None, typer.Option(min=1, help="Budget; rows are drawn by the seed.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Cut documents off here.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = CompareOptions.seed,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. [default: cuda if there is one]")] = None,
    memory_budget: MemoryBudget = None,
    work: Annotated[Path | None, typer.Option(help="Folder for what spills, in which a killed run goes on.")] = None,
    save_reference: Annotated[
        Path | None, typer.Option(help="Keep the candidate's answers at some hundred positions here, for probe.")
    ] = None,
    plot: Plot = None,
    json_output: Json = False,
) -> None:
    """Measure what a candidate lost, both models streamed layer by layer from disk over the same tokens.

    Example: halfbyte compare ./GLM-5.2 ./glm-nvfp4 --data ours.jsonl --slice domain --recall 1k,16k
    """
    from halfbyte.compare.comparison import compare as run

    options = options_from(
        CompareOptions, locals(), data=data or (), slice=slice or (), memory_budget=parse_budget(memory_budget)
    )
    check_plot(plot, [base, candidate, *(data or [])])
    with shown_progress() as progress:
        found = run(base, candidate, options, progress=progress).as_json()
    draw(plot, "compare", found)
    if json_output:
        print_json(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    if found["documents"]:
        _print_figures(found)
        _print_worst(found["worst"])
    _print_layers(found)
    if "recall" in found:
        _print_recall(found)
    for note in found["notes"]:
        say(f"note: {note}")
    if "evidence" in found:
        say(f"written to {found['evidence']}")
    say(f"peak memory {size_text(found['peak_rss_bytes'])}")
    if "peak_cuda_bytes" in found:
        say(f"peak GPU memory {size_text(found['peak_cuda_bytes'])}")


def _print_figures(found: dict[str, Any]) -> None:
    columns = ["tokens of", "documents", "tokens", "KL, nats", "perplexity", "candidate", "ratio", "top-1 equal"]
    columns.append(f"top-{found['topk_overlap']['k']} shared")
    rows = [_figures("all", found)]
    if "a4_sim" in found:
        rows.append(_figures("all, a4-sim", found["a4_sim"]))
    for field, values in found["slices"].items():
        rows += [_figures(f"{field} = {value}", row) for value, row in values.items()]
    if len(found["positions"]) > 1:
        rows += [_figures(f"position {row['start']:,} to {row['stop'] - 1:,}", row) for row in found["positions"]]
    print_table("baseline against candidate, 95 % intervals over documents", columns, rows)


def _figures(name: str, row: dict[str, Any]) -> list[str]:
    perplexity = row["perplexity"]
    ratio = {"mean": perplexity["ratio"], "low": perplexity["low"], "high": perplexity["high"]}
    return [
        name,
        f"{row['documents']:,}",
        f"{row['tokens']:,}",
        _interval(row["kl"], "{:.5f}"),
        _number(perplexity["base"], "{:.3f}"),
        _number(perplexity["candidate"], "{:.3f}"),
        _interval(ratio, "{:.4f}"),
        _interval(row["top1_agreement"], "{:.1%}"),
        _interval(row["topk_overlap"], "{:.1%}"),
    ]


def _print_worst(worst: list[dict[str, Any]]) -> None:
    rows = [
        [
            f"{row['source']}:{row['row']}",
            f"{row['tokens']:,}",
            f"{row['kl']:.5f}",
            _number(row["perplexity_ratio"], "{:.4f}"),
            f"{row['top1_agreement']:.1%}",
        ]
        for row in worst
    ]
    print_table("documents that lost most", ["document", "tokens", "KL, nats", "ratio", "top-1 equal"], rows)


def _print_layers(found: dict[str, Any]) -> None:
    rows = [
        [
            str(row["layer"]),
            f"{row['hidden_error']:.4f}",
            _number(row["router_agreement"], "{:.1%}"),
            _number(row["indexer_overlap"], "{:.1%}"),
        ]
        for row in found["layers"]
    ]
    print_table("where they part", ["layer", "hidden error", "same experts", "same keys"], rows)


def _print_recall(found: dict[str, Any]) -> None:
    rows = []
    for row in found["recall"]:
        logp, recalled = row["log_probability"], row["recalled"]
        rows.append(
            [f"{row['length']:,} {row['language']}", str(row["probes"])]
            + [f"{logp['base']['mean']:.3f}", f"{logp['candidate']['mean']:.3f}"]
            + [_interval(logp["difference"], "{:+.3f}")]
            + [f"{row['rank'][side]:g}" for side in ("base", "candidate")]
            + [f"{recalled[side]['mean']:.0%}" for side in ("base", "candidate")]
        )
    columns = ["tokens", "probes", "log p", "candidate", "difference", "rank", "candidate", "recalled", "candidate"]
    print_table("recall: log-probability, worst rank and full recall of the answer", columns, rows)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _interval(estimate: dict[str, Any], form: str) -> str:
    if estimate["mean"] is None:
        return "-"
    mean = form.format(estimate["mean"])
    if estimate["low"] is None:
        return mean
    return f"{mean} [{form.format(estimate['low'])}, {form.format(estimate['high'])}]"
