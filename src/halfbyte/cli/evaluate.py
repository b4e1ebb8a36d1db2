"""`halfbyte evaluate`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.cli.output import Json, command, print_json, say
from halfbyte.errors import UsageError, said

if TYPE_CHECKING:
    from halfbyte.evaluate.judging import Judgement
    from halfbyte.evaluate.power import Power

UNDECIDED = 3
EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": UNDECIDED}
SAYS = {"PASS": "is ruled out", "FAIL": "is certain", "INCONCLUSIVE": "is neither ruled out nor certain"}


@command
def evaluate(
    suite: Annotated[
        str | None, typer.Option(help="A suite by name, or a .jsonl file of items. [default: glm-5.2]")
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Judge answers that exist: the candidate's folder, of any harness.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="The baseline's folder.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Metadata field by which items share a source, for --from.")
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
    Example: halfbyte evaluate --from nvfp4-logs --against bf16-logs --margin 2
    """
    if from_ is not None or against is not None:
        if from_ is None or against is None or power:
            raise UsageError(said("{from} and {against} go together, and without {power}"))
        raise typer.Exit(_judge(from_, against, margin, cluster, json_output))
    if not power:
        raise UsageError(
            "nothing to evaluate", hint=said("{power} says what a suite can decide, {from} judges answers that exist")
        )
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


def _judge(candidate: Path, baseline: Path, margin: float, cluster: str | None, as_json: bool) -> int:
    """Judge two folders of answers; the exit code."""
    from halfbyte.evaluate.harnesses.reading import read_arm
    from halfbyte.evaluate.judging import judge

    arm = read_arm(candidate, cluster)
    found = judge(arm, read_arm(baseline, cluster), margin)
    if as_json:
        more = {"harness": arm.harness, "conditions": arm.conditions, "log": str(candidate)}
        print_json(found.as_json() | more)
    else:
        _show_judgement(found)
    return EXIT_CODES[found.verdict]


def _show_judgement(found: "Judgement") -> None:
    columns = ("n", "baseline", "candidate", "difference", "90 % interval", "cut", "verdict")
    widths = (6, 9, 10, 11, 17, 7, 14)
    say(f"{'points':24}" + "".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)))
    for suite in found.suites:
        low, high = suite.interval
        values = (
            f"{suite.n:,}",
            f"{suite.baseline:.1f}",
            f"{suite.candidate:.1f}",
            f"{suite.difference:+.2f}",
            f"{low:+.2f} .. {high:+.2f}",
            f"{suite.truncated['candidate']}/{suite.truncated['baseline']}",
            suite.verdict,
        )
        name = suite.name if len(suite.name) <= 24 else suite.name[:21] + "..."
        say(f"{name:24}" + "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True)))
        for state, counts in (("failed", suite.failed), ("unscorable", suite.unscorable)):
            if any(counts.values()):
                say(f"  {state}: {counts['candidate']} of the candidate's, {counts['baseline']} of the baseline's")
    low, high = found.pooled["interval"]
    if len(found.suites) > 1:
        say(f"mean over suites: {found.pooled['difference']:+.2f} ({low:+.2f} .. {high:+.2f})")
    say(f"{found.verdict}: a loss of {found.suites[0].margin:g} points {SAYS[found.verdict]}")


def _show_power(found: "Power", margin: float) -> None:
    from halfbyte.evaluate.power import undecidable

    columns = ("items", "runs", "accuracy", "sees drop of", "decides margin", "items wanted", "GPU hours")
    say(f"{'points':24}" + "".join(f"{name:>{max(len(name), 5) + 2}}" for name in columns))
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
        say(f"{name:24}" + "".join(f"{value:>{max(len(column), 5) + 2}}" for column, value in cells))
    if found.decidable:
        say(f"a margin of {margin:g} points can be decided")
    else:
        say(f"a margin of {margin:g} points cannot be decided: {undecidable(found.suites)}")
