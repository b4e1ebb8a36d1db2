"""`halfbyte evaluate`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halfbyte.cli.output import Json, Plot, check_plot, command, draw, options_from, print_json, shown_progress
from halfbyte.errors import UndecidableError, UsageError, said
from halfbyte.evaluate.options import EvaluateOptions

if TYPE_CHECKING:
    from halfbyte.evaluate.evaluation import Evaluation

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": UndecidableError.exit_code, None: 0}


@command
def evaluate(
    suite: Annotated[
        str | None,
        typer.Option(help="glm-5.2, tiny, long-recall, korean, or a .jsonl file of items.  [default: glm-5.2]"),
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(help="Who is asked: http://host/v1#model, a checkpoint folder, or a GGUF.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Its baseline, asked the same.")] = None,
    judge: Annotated[str | None, typer.Option(help="Target that grades answers, where a suite wants one.")] = None,
    user: Annotated[str | None, typer.Option(help="Target that plays the user of tau2.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of the logs; the same one resumes.  [default: a temporary one]")
    ] = None,
    from_: Annotated[
        Path | None, typer.Option("--from", help="Judge answers that exist: the candidate's folder, of any harness.")
    ] = None,
    against: Annotated[Path | None, typer.Option(help="The baseline's folder.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Metadata field by which items share a source, for --from.")
    ] = None,
    margin: Annotated[float, typer.Option(help="Points that the candidate may lose, stated beforehand.")] = (
        EvaluateOptions.margin
    ),
    power: Annotated[bool, typer.Option("--power", help="Say what the suite can decide, and run nothing.")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Ask one model twice or more: how much is noise.")
    ] = False,
    sequential: Annotated[bool, typer.Option("--sequential", help="Ask in batches, and stop when decided.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Runs of each item.  [default: the suite's, mostly 1]")] = None,
    limit: Annotated[int | None, typer.Option(help="Items of each suite.")] = None,
    correlation: Annotated[
        float, typer.Option(help="Power: between the two models' items.")
    ] = EvaluateOptions.correlation,
    discordance: Annotated[
        float | None, typer.Option(help="Power: share of items that one model alone gets right, instead.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Power: plan.json, for GPU hours and money.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Go on although nothing can be decided.")] = False,
    key_env: Annotated[str, typer.Option(help="Environment variable with the targets' key.")] = EvaluateOptions.key_env,
    temperature: Annotated[float | None, typer.Option(help="Of the requests.  [default: the suite's, often 0]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the requests.  [default: the suite's, often 1]")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Of an answer, reasoning included.  [default: the suite's, mostly 16384]")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="From it each run of each item gets a seed of its own.  [default: 0]")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of your copies of a suite's data.")] = None,
    lengths: Annotated[str, typer.Option(help="Of long-recall, in tokens.")] = EvaluateOptions.lengths,
    sandbox: Annotated[str, typer.Option(help="Of SciCode's code: docker, or local.")] = EvaluateOptions.sandbox,
    context_length: Annotated[
        str | None, typer.Option(help="Tokens of one sequence, of a folder or GGUF served for the run.  [default: 8k]")
    ] = None,
    gpu_layers: Annotated[
        int, typer.Option(help="Layers on a GPU, likewise; -1 for as many as fit.")
    ] = EvaluateOptions.gpu_layers,
    yes: Annotated[bool, typer.Option("--yes", help="Export a GGUF of more than 20 GB without asking.")] = False,
    record: Annotated[
        Path | None,
        typer.Option(help="Checkpoint folder whose halfbyte.json gets the verdict.  [default: the candidate's]"),
    ] = None,
    plot: Plot = None,
    json_output: Json = False,
) -> None:
    """Judge a candidate against its baseline: power first, then PASS, FAIL or INCONCLUSIVE.

    Example: halfbyte evaluate --power --suite glm-5.2 --margin 1
    Example: halfbyte evaluate --suite ours.jsonl --candidate http://b200:8000/v1#nvfp4 --baseline http://h200:8000/v1#bf16
    Example: halfbyte evaluate --from nvfp4-logs --against bf16-logs --margin 2
    """
    from halfbyte.cli.plan import tokens_from

    given = locals()
    verb = _verb(given)
    options = options_from(
        EvaluateOptions,
        given,
        context_length=tokens_from(context_length) or EvaluateOptions.context_length,
    )
    if plot is not None and verb in ("power", "calibrate"):
        raise UsageError(
            said("{plot} draws answers that were judged: it goes with {candidate}, or {from} and {against}")
        )
    check_plot(plot, [from_, against, data, record])
    if verb == "power":
        raise typer.Exit(_power(options, json_output))
    if verb == "calibrate":
        raise typer.Exit(_calibrate(options, json_output))
    if verb == "ask":
        raise typer.Exit(_ask(options, json_output, plot))
    assert from_ is not None
    assert against is not None
    raise typer.Exit(_from(from_, against, options, cluster, json_output, plot))


def _verb(given: dict[str, Any]) -> str:
    """What is wanted, of four things. Raises UsageError for none or several of them."""
    folders = given["from_"] is not None, given["against"] is not None
    targets = given["candidate"] is not None, given["baseline"] is not None
    wanted = {
        "power": given["power"],
        "calibrate": given["calibrate"],
        "ask": any(targets) and not given["calibrate"],
        "from": any(folders),
    }
    chosen = [verb for verb, is_wanted in wanted.items() if is_wanted]
    sound = (all(folders) or not any(folders)) and (targets[0] or not targets[1] or given["calibrate"])
    if len(chosen) != 1 or not sound or (given["calibrate"] and not any(targets)):
        raise UsageError(
            said("wanted {power}, or {candidate}, or {calibrate} and {baseline}, or {from} and {against}"),
            hint=said("{power} says what a suite can decide, {candidate} asks, {from} judges answers that exist"),
        )
    return chosen[0]


def _power(options: EvaluateOptions, as_json: bool) -> int:
    from halfbyte.cli.verdicts import show_power
    from halfbyte.evaluate.evaluation import planned

    found = planned(options)
    if as_json:
        print_json(found.as_json())
    else:
        show_power(found, options.margin)
    return EXIT_CODES["PASS" if found.decidable or options.anyway else "INCONCLUSIVE"]


def _ask(options: EvaluateOptions, as_json: bool, plot: Path | None) -> int:
    from halfbyte.evaluate.evaluation import evaluate as run

    with shown_progress() as progress:
        found = run(options, progress)
    return _show(found, as_json, plot)


def _from(
    candidate: Path, baseline: Path, options: EvaluateOptions, cluster: str | None, as_json: bool, plot: Path | None
) -> int:
    from halfbyte.evaluate.evaluation import judged_from

    with shown_progress() as progress:
        found = judged_from(candidate, baseline, options.margin, cluster, options.record, progress)
    return _show(found, as_json, plot)


def _calibrate(options: EvaluateOptions, as_json: bool) -> int:
    from halfbyte.cli.verdicts import show_noise
    from halfbyte.evaluate.evaluation import calibrated

    with shown_progress() as progress:
        found, document = calibrated(options, progress)
    if as_json:
        print_json(document)
    else:
        show_noise(found)
    return 0


def _show(found: "Evaluation", as_json: bool, plot: Path | None) -> int:
    from halfbyte.cli.verdicts import show_judgement, show_scores

    draw(plot, "evaluate", found.document)
    if as_json:
        print_json(found.document)
    elif found.judgement is None:
        show_scores(found.document["suites"])
    else:
        show_judgement(found.judgement, found.document)
    return EXIT_CODES[found.verdict]
