"""`halfbyte search`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halfbyte.cli.compare import MemoryBudget
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
    say_block,
    shown_progress,
    size_text,
)
from halfbyte.cli.plan import tokens_from
from halfbyte.search.options import SearchOptions

if TYPE_CHECKING:
    from halfbyte.search.best_recipe import SearchResult

SHOWN = 20
"""Points of the front in the table; `--json` has all."""


COMMAND_CLASS = many("--data")


@command
def search(
    src: Annotated[str, typer.Argument(help="BF16 checkpoint: folder, hub name or URL.")],
    data: Annotated[list[str], typer.Option(help="FILE...: JSONL, Parquet or text files, hf:NAME, or nemotron-7.")],
    gb: Annotated[
        float | None, typer.Option("--gb", "--budget-gb", help="Largest size of the checkpoint, in 10^9 bytes.")
    ] = None,
    bits: Annotated[float | None, typer.Option(help="Largest size, in bits per parameter of the whole model.")] = None,
    fit: Annotated[str | None, typer.Option(help="Machine that is to serve it, for instance b200x8.")] = None,
    context: Annotated[str | None, typer.Option(help="With --fit: tokens of one sequence, 131072 or 1M.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="With --fit: sequences at once.")] = None,
    verify: Annotated[int, typer.Option(min=0, help="Points of the front to measure whole.")] = SearchOptions.verify,
    also: Annotated[list[str] | None, typer.Option(help="fp8-block, mxfp4: measured too, not offered.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Recipe file to write; must not exist.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Budget; rows are drawn by the seed.")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="Cut documents off here.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = SearchOptions.seed,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. [default: cuda if there is one]")] = None,
    memory_budget: MemoryBudget = None,
    work: Annotated[Path | None, typer.Option(help="Folder in which a killed run goes on.")] = None,
    plot: Plot = None,
    json_output: Json = False,
) -> None:
    """Find the recipe of least damage under a size: which layers' experts and MLPs to make four bits.

    Example: halfbyte search ./GLM-5.2 --data ours.jsonl --tokens 20000 --gb 450 -o recipe.yaml
    """
    from halfbyte.search.best_recipe import search as run

    given = {"memory_budget": parse_budget(memory_budget), "context": tokens_from(context), "also": also or ()}
    options = options_from(SearchOptions, locals(), **given)
    check_plot(plot, [src, *data])
    with shown_progress() as progress:
        result = run(src, options, progress=progress)
    draw(plot, "search", result.as_json())
    if json_output:
        print_json(result.as_json())
    else:
        _print(result)


def _print(result: "SearchResult") -> None:
    formats = list(result.not_offered)
    rows = [
        [
            f"{group['role']} {group['layer']}",
            f"{group['parameters']:,}",
            size_text(group["bytes_before"] - group["bytes_after"]),
            f"{group['kl']:.6f}",
            *(f"{group['others'][name]['kl']:.6f}" for name in formats),
        ]
        for group in sorted(result.groups, key=lambda group: -group["kl"])
    ]
    columns = ["group", "parameters", "saves", "KL, nats", *formats]
    print_table("each group alone in NVFP4", columns, rows)
    for name, reason in result.not_offered.items():
        say(f"{name}: not offered: {reason}")
    step = max(1, -(-len(result.front) // SHOWN))
    shown = [
        row
        for i, row in enumerate(result.front)
        if i % step == 0 or i == len(result.front) - 1 or row["kl"] is not None
    ]
    print_table(
        "best trades (damages added up)",
        ["size", "bits", "groups", "KL added up", "KL measured"],
        [
            [
                size_text(row["bytes"]),
                _bits(row, result),
                str(len(row["groups"])),
                f"{row['predicted_kl']:.5f}",
                "" if row["kl"] is None else f"{row['kl']:.5f}",
            ]
            for row in shown
        ],
    )
    rows = [
        [
            row["name"],
            size_text(row["bytes"]),
            _bits(row, result),
            str(row["groups"]),
            f"{row['predicted_kl']:.5f}",
            f"{row['kl']:.5f}",
        ]
        for row in (result.chosen, *result.usual, result.beside_published)
    ]
    columns = ["recipe", "size", "bits", "groups", "KL added up", "KL measured"]
    print_table(f"chosen for {size_text(result.budget_bytes)}, and the usual recipes", columns, rows)
    say_block(result.recipe)
    if result.output:
        say(f"written to {result.output}")


def _bits(row: dict[str, Any], result: "SearchResult") -> str:
    return f"{8 * row['bytes'] / result.parameters:.3f}"
