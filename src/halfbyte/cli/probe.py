"""`halfbyte probe`"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.cli.many import many
from halfbyte.cli.output import Json, command, options_from, parse_budget, print_json, say, shown_progress
from halfbyte.errors import UsageError, said
from halfbyte.serve.probe.verdict import EXIT_CODES, Thresholds

if TYPE_CHECKING:
    from halfbyte.serve.probe.verdict import Probed

COMMAND_CLASS = many("--data")


@command
def probe(
    url: Annotated[str | None, typer.Argument(help="Of the running engine, or of a door before it.")] = None,
    reference: Annotated[Path | None, typer.Option(help="What it should answer.")] = None,
    model: Annotated[str | None, typer.Option(help="Its name there.  [default: the first]")] = None,
    key_env: Annotated[str | None, typer.Option(help="Environment variable with an API key for it.")] = None,
    make_reference: Annotated[Path | None, typer.Option(help="Folder of a checkpoint to make a reference of.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="FILE...: texts to make it on, as for compare.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it.")] = None,
    positions: Annotated[int, typer.Option(min=50, help="Of the reference.")] = 320,
    device: Annotated[str | None, typer.Option(help="cpu or cuda, to make it. [default: cuda if there is one]")] = None,
    memory_budget: Annotated[str | None, typer.Option(help="Resident memory while making it, e.g. 16GB.")] = None,
    agree_top1: Annotated[float, typer.Option(help="Likeliest tokens the same, to agree.")] = Thresholds.agree_top1,
    agree_difference: Annotated[
        float, typer.Option(help="Mean difference of log-probabilities in nats, to agree.")
    ] = Thresholds.agree_difference,
    differ_top1: Annotated[float, typer.Option(help="Below it differs.")] = Thresholds.differ_top1,
    differ_difference: Annotated[float, typer.Option(help="Above it differs.")] = Thresholds.differ_difference,
    json_output: Json = False,
) -> None:
    """Ask a running engine whether it computes what the checkpoint says, at some hundred positions.

    Example: halfbyte probe --make-reference ./glm-nvfp4 --data ours.jsonl -o ref.json

    Then: halfbyte probe http://gpu1:8000 --reference ref.json

    Exit status 0 if it agrees, 1 if it differs, 3 if that cannot be told.
    """
    if make_reference is not None:
        if url is not None or reference is not None:
            raise UsageError(said("{make_reference} asks no engine: give neither URL nor {reference}"))
        if not data or output is None:
            raise UsageError(said("{make_reference} needs {data} FILE and {output} FILE"))
        from halfbyte.compare.reference import make_reference as run

        with shown_progress() as progress:
            made = run(
                make_reference,
                data,
                progress,
                positions=positions,
                device=device,
                memory_budget=parse_budget(memory_budget),
            )
        made.write(output)
        if json_output:
            print_json({"reference": str(output), "positions": made.positions})
        else:
            say(f"{output}: {made.positions} positions")
        return
    if url is None or reference is None:
        raise UsageError(said("wanted a URL and {reference} FILE"))
    from halfbyte.evidence.reference import ReferenceDocument
    from halfbyte.serve.probe.ask import Engine
    from halfbyte.serve.probe.verdict import judge

    thresholds = options_from(Thresholds, locals())
    document = ReferenceDocument.read(reference)
    key = None
    if key_env is not None:
        key = os.environ.get(key_env)
        if not key:
            raise UsageError(said("{key_env} {name}: there is no such environment variable", name=key_env[:80]))
    engine = Engine(url, model, key)
    with shown_progress() as progress:
        found = judge(document, engine.scores(document, progress), thresholds)
    if json_output:
        print_json(found.as_json())
    else:
        _print(found)
    if EXIT_CODES[found.verdict]:
        raise typer.Exit(EXIT_CODES[found.verdict])


def _print(found: "Probed") -> None:
    t = found.thresholds
    same, difference = found.top1_agreement, found.mean_abs_logprob_difference
    say(f"{found.verdict}: {found.positions} positions")
    say(f"  likeliest token the same: {same:.1%} (agrees from {t.agree_top1:.0%}, differs below {t.differ_top1:.0%})")
    say(
        f"  mean difference of log-probabilities: {difference:.4f} nats "
        f"(agrees up to {t.agree_difference:g}, differs above {t.differ_difference:g})"
    )
    say(f"  mean negative log-likelihood: engine {found.nll_engine:.4f}, reference {found.nll_reference:.4f}")
