"""The `halfbyte` command. Command modules import their work when they run, so that `--help` is immediate."""

import gc
import os
import sys
from typing import Annotated, NoReturn

import typer

from halfbyte import __version__
from halfbyte.cli import (
    calibrate,
    chat,
    compare,
    export,
    gate,
    inspect,
    plan,
    quantize,
    schema,
    search,
    verdict,
    verify,
)
from halfbyte.cli.many import many

app = typer.Typer(
    name="halfbyte",
    help="Take a mixture-of-experts checkpoint from 16 bits to a served half byte.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command(cls=many("--calibrate"))(quantize.quantize)
app.command(cls=many("--data"))(calibrate.calibrate)
app.command()(inspect.inspect)
app.command()(verify.verify)
app.command(cls=many("--data"))(compare.compare)
app.command(cls=many("--data"))(search.search)
app.command()(gate.gate)
app.command()(export.export)
app.command()(chat.chat)
app.command(cls=plan.PlanCommand)(plan.plan)
app.command()(verdict.verdict)
app.command()(schema.schema)


def main() -> NoReturn:
    """Run the command line and leave at once: tearing down compiled code takes longer than most commands."""
    code: object = 0
    gc.set_threshold(100_000, 50, 50)  # half a million tensors make no cycles, only work for the collector
    try:
        app()
    except SystemExit as stop:
        code = stop.code
    if sys.stdout is not None:
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
