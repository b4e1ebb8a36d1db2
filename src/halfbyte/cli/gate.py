"""`halfbyte gate`"""

from pathlib import Path
from typing import Annotated

import typer

from halfbyte.checkpoint.writer import write_whole
from halfbyte.cli.output import command, fail, options_from, say, say_block, shown_progress
from halfbyte.disk import check_output
from halfbyte.errors import HalfbyteError, UsageError
from halfbyte.gate.options import GateOptions


@command
def gate(
    target: Annotated[str | None, typer.Argument(help="Folder, hub name (owner/name), or https:// base URL.")] = None,
    policy: Annotated[
        str | None, typer.Option(help="Policy file, or default, glm-5.2-nvfp4-production, research. [default: default]")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="sglang or vllm, with @VERSION if it is known. [default: the policy's]")
    ] = None,
    hardware: Annotated[str | None, typer.Option(help="Where it will run, for instance b200x8.")] = None,
    cluster: Annotated[
        Path | None, typer.Option(help="Where it will run: output of kubectl get nodes -o json.")
    ] = None,
    depth: Annotated[
        str, typer.Option(help="headers; scales (also reads scales); full (also codes, hashes, the source).")
    ] = GateOptions.depth,
    source: Annotated[Path | None, typer.Option(help="The unquantized checkpoint, to compare with.")] = None,
    form: Annotated[str, typer.Option("--format", help="table, json, sarif, junit or html.")] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the report here instead of to stdout.")
    ] = None,
    bom: Annotated[Path | None, typer.Option(help="Also write a CycloneDX ML-BOM (JSON) here.")] = None,
    explain: Annotated[str | None, typer.Option(help="Explain one rule, or all of them, and leave.")] = None,
    recorded: Annotated[
        Path | None, typer.Option("--verify-decision", help="Make the decision of this gate.json again and compare.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that a server is given, in all.")] = GateOptions.timeout,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. [default: one per processor]")] = None,
) -> None:
    """Judge a checkpoint by a policy before its weights are trusted, or even downloaded.

    Example: halfbyte gate ./glm-nvfp4 --engine sglang --hardware b200x8

    Exit status 0 passed, 1 refused, 2 wrong usage, 3 undecided because evidence is missing. A local decision is also
    left in TARGET/gate.json.
    """
    if explain is not None:
        _explain(explain)
        return
    try:
        if recorded is not None:
            code = _verify(recorded, target, policy)
        elif target is None:
            raise UsageError("no checkpoint is named", hint="halfbyte gate ./glm-nvfp4")
        else:
            options = options_from(GateOptions, locals(), policy=policy or GateOptions.policy)
            code = _judge(target, options, form, output)
    except HalfbyteError as error:
        fail(error, as_json=form == "json")
    raise typer.Exit(code)


def _judge(target: str, options: GateOptions, form: str, output: Path | None) -> int:
    from halfbyte.gate.formats import FORMATS, rendered
    from halfbyte.gate.judge import gate as run
    from halfbyte.gate.judge import write_decision

    if form not in FORMATS:
        raise UsageError(f"unknown format {form[:40]!r}", hint=f"known: {', '.join(FORMATS)}")
    if output is not None:
        check_output(output, options.files_read(target))
    with shown_progress() as progress:
        decision = run(target, options, progress=progress)
    text = rendered(decision.as_json(), form)
    if output is None:
        say_block(text)
    else:
        write_whole(output, text.encode())
    write_decision(decision, target)
    return decision.exit_code


def _verify(recorded: Path, target: str | None, policy: str | None) -> int:
    """0, 1 or 3 as the decision says, if it still holds; 1 if it does not."""
    from halfbyte.gate.judge import verify_decision

    with shown_progress() as progress:
        again, different = verify_decision(recorded, target, policy=policy, progress=progress)
    for line in different:
        say(f"DIFFERS {line}")
    outcome = "holds" if not different else "does NOT hold"
    say(f"{recorded}: the decision ({again.verdict} by policy {again.policy.name}) {outcome}")
    return again.exit_code if not different else 1


def _explain(id: str) -> None:
    from halfbyte.gate.catalogue import all_rules, find_rule

    if id == "all":
        say("| rule | severity | depth | why |")
        say("|---|---|---|---|")
        for rule in all_rules().values():
            say(f"| `{rule.id}` | {rule.severity} | {rule.needs} | {rule.rationale} |")
        return
    rule = find_rule(id)
    say_block(
        f"{rule.id}: {rule.severity} unless the policy says otherwise, needs depth {rule.needs}\n\n{rule.rationale}\n\n"
    )
    say_block("To accept it for a while, in the policy:\n\n")
    say_block(f"waivers:\n  - rule: {rule.id}\n    owner: YOU\n    reason: WHY\n    expires: YYYY-MM-DD\n")
