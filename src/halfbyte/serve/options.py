"""What `serve` can be asked for; every default stands here alone."""

from dataclasses import dataclass
from pathlib import Path

from halfbyte.serve.ledger.sqlite import Durability

CONTEXT_TOKENS = 8192
RUNNING = 8


@dataclass(frozen=True)
class ServeOptions:
    """state: a folder or postgresql:// URL, None for the user's own folder. upstream: URLs, none to start an engine.

    upstream_key_env, metrics_key_env: environment variables that hold keys. price: prices, or a plan.json with them.
    max_running_requests: of each upstream; None for any number, or 8 of an embedded engine. context_length: tokens of
    one sequence of an embedded engine. gpu_layers: that it puts on a GPU, -1 for as many as fit. drain_timeout: seconds
    that running answers get after SIGTERM. reparse: parsers of reasoning and calls, for upstreams that give raw text.
    router: `smg` to put it between the door and several upstreams. probe: a reference that every engine must agree with
    before the door opens.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    state: str | None = None
    upstream: tuple[str, ...] = ()
    upstream_key_env: str | None = None
    metrics_key_env: str | None = None
    price: Path | None = None
    durability: Durability = "process"
    max_running_requests: int | None = None
    context_length: int | None = None
    gpu_layers: int = -1
    drain_timeout: float = 600.0
    served_model_name: str | None = None
    reparse: str | None = None
    router: str | None = None
    probe: Path | None = None
