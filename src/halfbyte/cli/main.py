"""The `halfbyte` command. A command's module is imported when it is run, so that `--help` is immediate."""

import gc
import os
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from halfbyte import __version__

SUMMARIES = {
    "quantize": "Turn a BF16 mixture-of-experts checkpoint into a selective NVFP4 one that SGLang, vLLM "
    "and TensorRT-LLM load.",
    "calibrate": "Measure activation scales (input_scale) by running text through the model, layer by layer from disk.",
    "convert": "Change the layout of an NVFP4 checkpoint, ModelOpt's or compressed-tensors', and not one number.",
    "inspect": "Show what a checkpoint holds, by role and format: parameters, bytes, bits per weight. "
    "Reads headers only.",
    "verify": "Check a quantized checkpoint against its source: hashes, every kept byte, every packed tensor's error.",
    "compare": "Measure what a candidate lost, both models streamed layer by layer from disk over the same tokens.",
    "search": "Find the recipe of least damage under a size: which layers' experts and MLPs to make four bits.",
    "gate": "Judge a checkpoint by a policy before its weights are trusted, or even downloaded.",
    "export": "Write a checkpoint as GGUF for llama.cpp, losslessly: NVFP4 codes and scales are "
    "rearranged, never requantized.",
    "chat": "Talk to a checkpoint on this machine; llama.cpp runs it on any processor, no Blackwell needed.",
    "plan": "Plan capacity by peak memory: what fits, how many sequences, how fast, for how much. Reads headers only.",
    "serve": "Serve a model behind one door: tenants whose tokens and money are reserved, then settled, to the token.",
    "tenants": "Tenants of a door: keys, limits per minute, budgets per day and month, priority, allowed models.",
    "usage": "What tenants used and paid, from the ledger, and what the machines cost beyond that.",
    "probe": "Ask a running engine whether it computes what the checkpoint says, at some hundred positions.",
    "evaluate": "Judge a candidate against its baseline: power first, then PASS, FAIL or INCONCLUSIVE.",
    "verdict": "Judge a published table of benchmark means: which differences can be told from chance, "
    "which drops ruled out.",
    "report": "Write one page of all evidence about a checkpoint: bytes, errors, comparison, verdicts, decision, plan, "
    "hashes.",
    "deploy": "Write Kubernetes manifests of a served checkpoint: Kueue, serving, doors, autoscaling, cost. "
    "Needs no cluster.",
    "bundle": "Put checkpoint, decision, manifests, image list and hashes into one folder, to carry across an air gap.",
    "unbundle": "Put down a bundle, every file checked by its SHA-256 before it is in its place.",
    "doctor": "Show what is installed, which engines, GPUs and disk are here, and what is missing for what.",
    "schema": "Print the JSON Schema of a document: halfbyte.json, gate.json, plan.json, a recipe, a policy or "
    "a platform.",
}
"""Commands in the order of `--help`, each a module of this package; the first line of its function."""


class Commands(TyperGroup):
    """Knows the commands by name; their options, when one is run."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands.update({name: TyperCommand(name=name, help=text) for name, text in SUMMARIES.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, known, rest = super().resolve_command(ctx, args)
        return name, known if name is None or known is None else command_of(name), rest


def command_of(name: str) -> Any:
    """The command as typer runs it. A module that needs a class of its own for that calls it COMMAND_CLASS; one of
    several commands calls them APP."""
    module = import_module(f"halfbyte.cli.{name}")
    if hasattr(module, "APP"):
        return typer.main.get_command(module.APP)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name, cls=getattr(module, "COMMAND_CLASS", TyperCommand))(getattr(module, name))
    return typer.main.get_command(alone)


app = typer.Typer(
    name="halfbyte",
    cls=Commands,
    help="Take a mixture-of-experts checkpoint from 16 bits to a served half byte.",
    no_args_is_help=True,
    add_completion=True,
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


def main() -> NoReturn:
    """Run the command line and leave at once: tearing down compiled code takes longer than most commands."""
    gc.set_threshold(100_000, 50, 50)  # half a million tensors make no cycles, only work for the collector
    os._exit(_run())


def _run() -> int:
    """The exit code; all that is to be said has been said."""
    from halfbyte.cli.output import Stdout, exit_code_of, flush  # not before they are needed

    Stdout.take()
    try:
        code = app(standalone_mode=False)
        flush()
        return code if isinstance(code, int) else 0
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except (Exception, KeyboardInterrupt) as error:
        return exit_code_of(error)
