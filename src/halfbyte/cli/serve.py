"""`halfbyte serve`"""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from halfbyte.cli.output import Json, command, flag, options_from, print_json, say, shown_progress
from halfbyte.errors import UsageError, said
from halfbyte.progress import tell
from halfbyte.serve.ledger.sqlite import Durability
from halfbyte.serve.options import ServeOptions

if TYPE_CHECKING:
    from halfbyte.serve.engine.command import Command


@command
def serve(
    target: Annotated[str, typer.Argument(help="Checkpoint folder or GGUF; with --upstream, the served model's name.")],
    host: Annotated[
        str, typer.Option(help="Address to listen at; without keys, this machine's own only.")
    ] = ServeOptions.host,
    port: Annotated[int, typer.Option(help="0 for a free one.")] = ServeOptions.port,
    state: Annotated[
        str | None, typer.Option(help="Folder or postgresql:// URL of the ledger.  [default: the user's own folder]")
    ] = ServeOptions.state,
    upstream: Annotated[
        str | None, typer.Option(help="URL,... of engines that serve this model, with or without /v1.")
    ] = None,
    upstream_key_env: Annotated[str | None, typer.Option(help="Environment variable with the upstream's key.")] = None,
    metrics_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key for /metrics.  [default: this machine only]")
    ] = None,
    price: Annotated[Path | None, typer.Option(help="JSON with prices, or a plan.json; see docs/serve.md.")] = None,
    durability: Annotated[
        Durability, typer.Option(help="What the ledger outlives: process, or full for power cuts.")
    ] = ServeOptions.durability,
    max_running_requests: Annotated[
        int | None, typer.Option(help="At each upstream.  [default: embedded 8, others any]")
    ] = None,
    context_length: Annotated[
        str | None, typer.Option(help="Tokens of one sequence, for instance 131072 or 1M.")
    ] = None,
    gpu_layers: Annotated[int, typer.Option(help="Layers on a GPU; -1 for as many as fit.")] = ServeOptions.gpu_layers,
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds for running answers after SIGTERM.")
    ] = ServeOptions.drain_timeout,
    served_model_name: Annotated[str | None, typer.Option(help="Name of the model.  [default: the folder's]")] = None,
    reparse: Annotated[
        str | None, typer.Option(help="Parsers for upstreams that give raw text, REASONING,CALLS: glm45,glm47.")
    ] = ServeOptions.reparse,
    router: Annotated[
        str | None, typer.Option(help="smg: started between the door and its upstreams, which it routes by prefix.")
    ] = ServeOptions.router,
    probe: Annotated[
        Path | None, typer.Option(help="Reference that every engine must agree with before the door opens.")
    ] = ServeOptions.probe,
    engine: Annotated[str | None, typer.Option(help="llama.cpp, sglang or vllm.  [default: llama.cpp]")] = None,
    hardware: Annotated[str | None, typer.Option(help="Machine of sglang or vllm, for instance b200x8.")] = None,
    kv_dtype: Annotated[str | None, typer.Option(help="Of sglang or vllm: auto, bf16, fp8.")] = None,
    mtp: Annotated[int, typer.Option(help="Of sglang or vllm: draft tokens a step.")] = 0,
    preset: Annotated[str | None, typer.Option(help="card: the model card's command, flag for flag.")] = None,
    engine_version: Annotated[str | None, typer.Option(help="Release of sglang or vllm.  [default: any]")] = None,
    print_: Annotated[bool, typer.Option("--print", help="Print the engine's command and start nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Export a GGUF of more than 20 GB without asking.")] = False,
    json_output: Json = False,
) -> None:
    """Serve a model behind one door: tenants whose tokens and money are reserved, then settled, to the token.

    Example: halfbyte serve ./glm-nvfp4 --port 8000
    """
    from halfbyte.cli.plan import tokens_from

    urls = tuple(url.strip() for url in (upstream or "").split(",") if url.strip())
    if upstream is not None and not urls:
        raise UsageError("--upstream: no URL given")
    options = options_from(ServeOptions, locals(), upstream=urls, context_length=tokens_from(context_length))
    launch = _launch(target, engine, options, hardware, locals())
    if print_:
        _print(launch, json_output)
        return
    with shown_progress() as progress:
        from halfbyte.serve.run import serve as run

        def gguf(path: Path) -> Path:
            from halfbyte.chat.gguf_cache import cached_gguf

            return cached_gguf(path, progress, lambda question: yes or _confirmed(question))

        run(target, options, progress, gguf, launch)


def _launch(
    target: str, engine: str | None, options: ServeOptions, hardware: str | None, values: dict[str, Any]
) -> "Command | None":
    """The command of a GPU engine; None for the embedded one and for upstreams. Raises HalfbyteError."""
    from halfbyte.engines.local import LLAMA_CPP

    own = ("hardware", "kv_dtype", "mtp", "preset", "engine_version")
    if engine is None or engine == LLAMA_CPP:
        given = next((name for name in own if values[name]), None)
        if given is not None:
            raise UsageError(said("{option}: of a GPU engine alone; name it with {engine}", option=flag(given)))
        if values["print_"]:
            raise UsageError(said("{print} shows the command of a GPU engine; name it with {engine}"))
        return None
    from halfbyte.engines.catalogue import engine as find_engine
    from halfbyte.serve.engine.command import LaunchOptions, command_for

    found = find_engine(engine)
    if options.upstream:
        raise UsageError(said("{engine} starts an engine here, {upstream} asks one elsewhere: give one of them"))
    if hardware is None:
        raise UsageError(said("{engine} {name} without a machine", name=found.name), hint=said("add {hardware} b200x8"))
    asked = {name: values[name] for name in own}
    return command_for(
        target,
        LaunchOptions(
            found.name,
            context_length=options.context_length,
            max_running_requests=options.max_running_requests,
            served_model_name=options.served_model_name,
            **asked,
        ),
    )


def _print(launch: "Command | None", json_output: bool) -> None:
    assert launch is not None
    if json_output:
        print_json(launch.as_json())
        return
    say(" ".join([*(f"{name}={shlex.quote(value)}" for name, value in launch.env.items()), shlex.join(launch.words)]))
    for note in launch.notes:
        tell(f"# {note}")


def _confirmed(question: str) -> bool:
    return sys.stdin.isatty() and typer.confirm(f"{question}. Go on?", err=True)
