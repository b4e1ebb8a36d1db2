"""Which engine is taken, and loading it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from halfbyte.chat.answer import Engine
from halfbyte.errors import UnsupportedError, UsageError
from halfbyte.progress import Progress

EngineName = Literal["auto", "llama.cpp", "transformers"]
ENGINES: tuple[EngineName, ...] = ("auto", "llama.cpp", "transformers")


def choose(name: EngineName) -> Literal["llama.cpp", "transformers"]:
    """The engine to use: llama.cpp where it is installed, else transformers. Raises UnsupportedError, UsageError."""
    if name not in ENGINES:
        raise UsageError(f"--engine {name}: wanted one of {', '.join(ENGINES)}")
    has_llama = all(importlib.util.find_spec(module) for module in ("xllamacpp", "gguf"))
    has_transformers = all(importlib.util.find_spec(module) for module in ("torch", "transformers"))
    if name == "llama.cpp" and not has_llama:
        raise UnsupportedError("the llama.cpp engine needs xllamacpp and gguf", hint="pip install 'halfbyte[local]'")
    if name == "transformers" and not has_transformers:
        raise UnsupportedError("the transformers engine needs torch", hint="pip install 'halfbyte[torch]'")
    if name == "auto":
        if not has_llama and not has_transformers:
            raise UnsupportedError("no engine is installed", hint="pip install 'halfbyte[local]' for llama.cpp")
        return "llama.cpp" if has_llama else "transformers"
    return name


def load(
    path: Path, name: EngineName, context_tokens: int, progress: Progress, confirm: Callable[[str], bool]
) -> Engine:
    """Load a checkpoint folder (or, for llama.cpp, a GGUF file). confirm: asked before a large cache file is made.

    Raises HalfbyteError.
    """
    if choose(name) == "llama.cpp":
        from halfbyte.chat.gguf_cache import cached_gguf
        from halfbyte.chat.llamacpp import LlamaCpp

        file = path if path.suffix == ".gguf" else cached_gguf(path, progress, confirm)
        return LlamaCpp(file, context_tokens)
    from halfbyte.chat.hf import Transformers

    return Transformers(path)
