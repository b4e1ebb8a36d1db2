"""`halfbyte report`"""

from pathlib import Path
from typing import Annotated

import typer

from halfbyte.cli.output import Json, command, options_from, print_json, say, size_text
from halfbyte.report.options import ReportOptions


@command
def report(
    target: Annotated[Path, typer.Argument(help="Checkpoint folder; its halfbyte.json alone is enough.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = ReportOptions.output,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="With Vega in the page, for zooming; still fetches nothing.")
    ] = ReportOptions.interactive,
    json_output: Json = False,
) -> None:
    """Write one page of all evidence about a checkpoint: bytes, errors, comparison, verdicts, decision, plan, hashes.

    Example: halfbyte report ./glm-nvfp4 -o report.html
    """
    from halfbyte.report.written import report as run

    found = run(target, options_from(ReportOptions, locals()))
    if json_output:
        print_json(found.as_json())
        return
    say(f"wrote {found.output}: {size_text(found.bytes)} from {', '.join(found.read)}")
    if found.missing:
        say(f"no evidence yet for: {', '.join(found.missing)}")
