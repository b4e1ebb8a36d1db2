"""`halfbyte serve`"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from halfbyte.cli.output import Json, command, options_from, shown_progress
from halfbyte.errors import UsageError
from halfbyte.serve.ledger.sqlite import Durability
from halfbyte.serve.options import ServeOptions


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
    with shown_progress() as progress:
        from halfbyte.serve.run import serve as run

        def gguf(path: Path) -> Path:
            from halfbyte.chat.gguf_cache import cached_gguf

            return cached_gguf(path, progress, lambda question: yes or _confirmed(question))

        run(target, options, progress, gguf)


def _confirmed(question: str) -> bool:
    return sys.stdin.isatty() and typer.confirm(f"{question}. Go on?", err=True)
