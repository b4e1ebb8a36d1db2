"""How answers are sampled; every default stands here alone."""

from dataclasses import dataclass

CONTEXT_TOKENS = 8192
"""That llama.cpp reserves memory for."""


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy. seed: None for another answer every time. thinking: None leaves it to the template."""

    max_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    thinking: bool | None = None
