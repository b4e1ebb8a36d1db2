"""Which engine is taken, and loading it."""

from collections.abc import Callable
from pathlib import Path

from halfbyte.chat.answer import Engine
from halfbyte.engines.local import EXTRAS, LLAMA_CPP, LOCAL, LocalName, installed
from halfbyte.errors import UnsupportedError, UsageError, said
from halfbyte.progress import Progress

AUTO = "auto"
CHOICES = (AUTO, *LOCAL)


def choose(name: str) -> LocalName:
    """The engine to use, the first installed for `auto`. Raises UnsupportedError, UsageError."""
    for known in LOCAL:
        if name == known:
            if not installed(known):
                needs = " and ".join(LOCAL[known])
                raise UnsupportedError(f"the {known} engine needs {needs}", hint=f"pip install '{EXTRAS[known]}'")
            return known
    if name != AUTO:
        raise UsageError(said("{engine} {name}: wanted one of {known}", name=name, known=", ".join(CHOICES)))
    for known in LOCAL:
        if installed(known):
            return known
    raise UnsupportedError("no engine is installed", hint=f"pip install '{EXTRAS[LLAMA_CPP]}' for {LLAMA_CPP}")


def load(
    path: Path,
    name: str,
    context_tokens: int,
    progress: Progress,
    confirm: Callable[[str], bool],
    follow_links: bool = False,
) -> Engine:
    """Load a checkpoint folder (or, for llama.cpp, a GGUF file). confirm: asked before a large cache file is made.

    follow_links: whether links may lead out of the folder.

    Raises HalfbyteError.
    """
    if choose(name) == LLAMA_CPP:
        from halfbyte.chat.gguf_cache import cached_gguf
        from halfbyte.chat.llamacpp import LlamaCpp

        file = path if path.suffix == ".gguf" else cached_gguf(path, progress, confirm, follow_links)
        return LlamaCpp(file, context_tokens)
    from halfbyte.chat.hf import Transformers

    return Transformers(path, follow_links)
