"""`halfbyte evaluate`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.cli.output import Json, command, print_json
from halfbyte.errors import UsageError

if TYPE_CHECKING:
    from halfbyte.evaluate.power import Power

UNDECIDED = 3


@command
def evaluate(
    suite: Annotated[
        str | None, typer.Option(help="A suite by name, or a .jsonl file of items. [default: glm-5.2]")
    ] = None,
    margin: Annotated[float, typer.Option(help="Points that the candidate may lose, stated beforehand.")] = 1.0,
    power: Annotated[bool, typer.Option("--power", help="Say what the suite can decide, and run nothing.")] = False,
    epochs: Annotated[int, typer.Option(help="Runs of each item.")] = 1,
    limit: Annotated[int | None, typer.Option(help="Items of each suite.")] = None,
    correlation: Annotated[float, typer.Option(help="Power: between the two models' items.")] = 0.8,
    discordance: Annotated[
        float | None, typer.Option(help="Power: share of items that one model alone gets right, instead.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Power: plan.json, for GPU hours and money.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Go on although nothing can be decided.")] = False,
    json_output: Json = False,
) -> None:
    """Judge a candidate against its baseline: power first, then PASS, FAIL or INCONCLUSIVE.

    Example: halfbyte evaluate --power --suite glm-5.2 --margin 1
    """
    if not power:
        raise UsageError("nothing to evaluate", hint="--power says what a suite can decide")
    from halfbyte.evaluate.power import power as run
    from halfbyte.evaluate.suites import DEFAULT_SUITE

    found = run(
        suite or DEFAULT_SUITE,
        margin=margin,
        epochs=epochs,
        correlation=correlation,
        discordance=discordance,
        limit=limit,
        plan=plan,
    )
    if json_output:
        print_json(found.as_json())
    else:
        _show_power(found, margin)
    if not found.decidable and not anyway:
        raise typer.Exit(UNDECIDED)


def _show_power(found: "Power", margin: float) -> None:
    from halfbyte.evaluate.power import undecidable

    columns = ("items", "runs", "accuracy", "sees drop of", "decides margin", "items wanted", "GPU hours")
    print(f"{'points':24}" + "".join(f"{name:>{max(len(name), 5) + 2}}" for name in columns))
    for suite in found.suites:
        values = (
            str(suite.items),
            str(suite.repeats),
            f"{suite.accuracy:.1f} %",
            f"{suite.smallest_drop:.1f}",
            f"{suite.smallest_margin:.1f}",
            f"{suite.items_needed:,}",
            "-" if suite.gpu_hours is None else f"{suite.gpu_hours:.1f}",
        )
        cells = zip(columns, values, strict=True)
        name = suite.name if len(suite.name) <= 24 else suite.name[:21] + "..."
        print(f"{name:24}" + "".join(f"{value:>{max(len(column), 5) + 2}}" for column, value in cells))
    if found.decidable:
        print(f"a margin of {margin:g} points can be decided")
    else:
        print(f"a margin of {margin:g} points cannot be decided: {undecidable(found.suites)}")
