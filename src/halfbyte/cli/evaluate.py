"""`halfbyte evaluate`"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.cli.output import Json, command, print_json, shown_progress
from halfbyte.errors import UndecidableError, UnsupportedError, UsageError, said

if TYPE_CHECKING:
    from halfbyte.evaluate.power import Power
    from halfbyte.evaluate.running.arms import Answers

UNDECIDED = 3
EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": UNDECIDED}


@command
def evaluate(
    suite: Annotated[
        str | None, typer.Option(help="A suite by name, or a .jsonl file of items. [default: glm-5.2]")
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(help="Who is asked: an OpenAI-compatible URL, http://host/v1#model.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Its baseline, asked the same.")] = None,
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
    key_env: Annotated[str, typer.Option(help="Environment variable with the targets' key.")] = "OPENAI_API_KEY",
    temperature: Annotated[float, typer.Option(help="Of the requests.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Of the requests.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Of an answer, reasoning included.")] = 16_384,
    json_output: Json = False,
) -> None:
    """Judge a candidate against its baseline: power first, then PASS, FAIL or INCONCLUSIVE.

    Example: halfbyte evaluate --power --suite glm-5.2 --margin 1
    Example: halfbyte evaluate --suite ours.jsonl --candidate http://b200:8000/v1#nvfp4 --baseline http://h200:8000/v1#bf16
    Example: halfbyte evaluate --from nvfp4-logs --against bf16-logs --margin 2
    """
    asked = sum((power, candidate is not None, from_ is not None or against is not None))
    if asked != 1 or (from_ is None) != (against is None) or (baseline is not None and candidate is None):
        raise UsageError(
            said("wanted {power}, or {candidate}, or {from} and {against}"),
            hint=said("{power} says what a suite can decide, {candidate} asks, {from} judges answers that exist"),
        )
    if from_ is not None and against is not None:
        raise typer.Exit(_judge(from_, against, margin, cluster, json_output))
    from halfbyte.cli.verdicts import show_power
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
    if candidate is None:
        if json_output:
            print_json(found.as_json())
        else:
            show_power(found, margin)
        if not found.decidable and not anyway:
            raise typer.Exit(UNDECIDED)
        return
    if baseline is not None and not anyway:
        _check_decidable(found, margin)
    from halfbyte.evaluate.running.arms import answers, earlier
    from halfbyte.evaluate.running.asking import Sampling
    from halfbyte.evaluate.running.targets import target_of

    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens, epochs=epochs)
    there = {} if work is None else earlier(work)
    known = [name for name in (there.get("candidate"), there.get("baseline")) if isinstance(name, str)]
    asked_of = target_of(candidate, key_env, known)
    against_it = None if baseline is None else target_of(baseline, key_env, known)
    with shown_progress() as progress:
        if work is None:
            work = Path(tempfile.mkdtemp(prefix="halfbyte-evaluate-"))
            progress.note(f"logs: {work}")
        said_by = answers(_suite_file(suite), asked_of, against_it, sampling, limit, work, progress)
    raise typer.Exit(_answered(said_by, margin, json_output))


def _suite_file(suite: str | None) -> Path:
    """Raises UnsupportedError for the suites that can only be planned yet."""
    from halfbyte.evaluate.suites import DEFAULT_SUITE, PUBLISHED

    if suite is None or suite in PUBLISHED:
        raise UnsupportedError(
            f"suite {suite or DEFAULT_SUITE} cannot be asked yet",
            hint=said("give a .jsonl file of items, or judge other harnesses' logs with {from} and {against}"),
        )
    return Path(suite)


def _check_decidable(found: "Power", margin: float) -> None:
    """Raise UndecidableError where no outcome of the run could decide."""
    from halfbyte.evaluate.power import undecidable

    if not found.decidable:
        raise UndecidableError(
            f"a margin of {margin:g} points cannot be decided: {undecidable(found.suites)}",
            hint=said("more items or {epochs}, a wider {margin}; {anyway} asks nevertheless"),
        )


def _answered(found: "Answers", margin: float, as_json: bool) -> int:
    """Show what two arms say, or one; the exit code."""
    from halfbyte.cli.verdicts import show_judgement, show_scores
    from halfbyte.evaluate.judging import judge
    from halfbyte.evaluate.running.arms import scores

    more = {"conditions": found.conditions, "log": str(found.log)}
    if found.baseline is None:
        rows = scores(found.candidate)
        if as_json:
            print_json({"verdict": None, "suites": rows, **more})
        else:
            show_scores(rows)
        return 0
    judgement = judge(found.candidate, found.baseline, margin)
    if as_json:
        print_json(judgement.as_json() | more)
    else:
        show_judgement(judgement)
    return EXIT_CODES[judgement.verdict]


def _judge(candidate: Path, baseline: Path, margin: float, cluster: str | None, as_json: bool) -> int:
    """Judge two folders of answers; the exit code."""
    from halfbyte.cli.verdicts import show_judgement
    from halfbyte.evaluate.harnesses.reading import read_arm
    from halfbyte.evaluate.judging import judge

    arm = read_arm(candidate, cluster)
    found = judge(arm, read_arm(baseline, cluster), margin)
    if as_json:
        more = {"harness": arm.harness, "conditions": arm.conditions, "log": str(candidate)}
        print_json(found.as_json() | more)
    else:
        show_judgement(found)
    return EXIT_CODES[found.verdict]
