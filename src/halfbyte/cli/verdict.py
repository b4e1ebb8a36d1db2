"""`halfbyte verdict`"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from halfbyte.cli.output import Json, command, print_json, say

if TYPE_CHECKING:
    from halfbyte.evaluate.published import Resolution, Verdict

NAME_WIDTH = 28
COLUMNS = ("n", "difference", "error", "z", "told apart", "sees from", "drop ruled out")


@command
def verdict(
    card: Annotated[Path, typer.Argument(help="YAML: {correlation: 0, suites: [{name, n, baseline, candidate}]}.")],
    json_output: Json = False,
) -> None:
    """Judge a published table of benchmark means: which differences can be told from chance, which drops ruled out.

    Means in percent, n in items; correlation is that between the two models' items, 0 by default.

    Example: halfbyte verdict card.yaml
    """
    from halfbyte.evaluate.published import verdict as run

    found = run(card)
    if json_output:
        print_json(found.as_json())
        return
    say(f"{'points':{NAME_WIDTH}}" + "".join(f"{name:>{_width(name)}}" for name in COLUMNS))
    for suite in found.suites:
        say(_row(suite))
    say(_words(found))


def _width(column: str) -> int:
    return max(len(column), 5) + 2


def _row(suite: "Resolution") -> str:
    name = suite.name if suite.name.isprintable() else ascii(suite.name)[1:-1]
    shown = name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 3] + "..."
    values = (
        str(suite.n) if suite.n < 10**6 else f"{suite.n:.0e}",
        f"{suite.difference:+.2f}",
        f"{suite.standard_error:.2f}",
        f"{suite.z:+.2f}" if abs(suite.z) < 100 else f"{suite.z:+.0e}",
        "yes" if suite.resolvable else "no",
        f"{suite.smallest_detectable:.1f}",
        f"over {suite.ruled_out:.1f}",
    )
    cells = zip(COLUMNS, values, strict=True)
    row = f"{shown:{NAME_WIDTH}}"
    for column, value in cells:
        row += f" {value}".rjust(_width(column))
    return row


def _words(found: "Verdict") -> str:
    told = [suite for suite in found.suites if suite.resolvable]
    count = len(found.suites)
    if not told:
        which = "the difference" if count == 1 else f"none of the {count} differences"
        return f"{found.verdict}: {which} can{'not' if count == 1 else ''} be told from chance"
    return f"{found.verdict}: {len(told)} of {count} differences can be told from chance"
