"""Which documents are held out: one rule for calibration and for rounding, so that both judge on the same text."""

HELD_OUT_EVERY = 32
LEAST_DOCUMENTS = 8
"""With fewer none is held out."""


def held_out(documents: int, every: int = HELD_OUT_EVERY) -> list[bool]:
    """For each document, in order, whether it is held out: every `every`-th, and of LEAST_DOCUMENTS or more the last
    if they are fewer than that."""
    every = min(every, max(LEAST_DOCUMENTS, documents))
    return [i % every == every - 1 for i in range(documents)]
