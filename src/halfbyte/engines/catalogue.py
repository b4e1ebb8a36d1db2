"""The engines there are."""

from halfbyte.engines.engine import Engine, EngineName
from halfbyte.engines.sglang import SGLANG
from halfbyte.engines.vllm import VLLM
from halfbyte.errors import UsageError

ENGINES: dict[EngineName, Engine] = {engine.name: engine for engine in (VLLM, SGLANG)}
DEFAULT_ENGINE: EngineName = SGLANG.name
"""What `plan` plans for unless told otherwise."""


def engine(name: str) -> Engine:
    """Raises UsageError for one that is not known."""
    for known, found in ENGINES.items():
        if name == known:
            return found
    raise UsageError(f"unknown engine {name[:40]!r}", hint=f"known: {', '.join(sorted(ENGINES))}")
