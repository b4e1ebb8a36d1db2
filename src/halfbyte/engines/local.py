"""Engines that answer on this machine, and what each needs installed."""

import importlib.util
from typing import Literal

LocalName = Literal["llama.cpp", "transformers"]

LLAMA_CPP: LocalName = "llama.cpp"
TRANSFORMERS: LocalName = "transformers"
LOCAL: dict[LocalName, tuple[str, ...]] = {LLAMA_CPP: ("xllamacpp", "gguf"), TRANSFORMERS: ("torch", "transformers")}
"""Engine -> the modules that it is made of, in the order in which they are preferred."""

EXTRAS: dict[LocalName, str] = {LLAMA_CPP: "halfbyte[local]", TRANSFORMERS: "halfbyte[torch]"}


def installed(name: LocalName) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in LOCAL[name])
