"""The two choices a user has at run time: which back end computes, and whether activations are rounded too.

Precedence, for each on its own: an explicit option (of `ModelOptConfig` or `use`), then the environment variable, then
`auto`. A word that is not known is an error, wherever it came from.
"""

import os
from dataclasses import dataclass
from typing import Literal, cast, get_args

from halfbyte.errors import UsageError

BackendName = Literal["auto", "reference", "dequant", "humming"]
ActivationMode = Literal["auto", "a16", "a4-sim"]

BACKEND_VARIABLE = "HALFBYTE_BACKEND"
ACTIVATIONS_VARIABLE = "HALFBYTE_ACTIVATIONS"


@dataclass(frozen=True)
class Options:
    """backend: what computes packed linears. activations: `a16` leaves them alone, `a4-sim` rounds them to NVFP4."""

    backend: BackendName = "auto"
    activations: ActivationMode = "auto"

    @classmethod
    def resolve(cls, backend: str | None = None, activations: str | None = None) -> "Options":
        """Options from explicit words, else the environment, else `auto`. Raises UsageError for an unknown word."""
        return cls(
            cast(BackendName, _choose(backend, BACKEND_VARIABLE, "backend", get_args(BackendName))),
            cast(ActivationMode, _choose(activations, ACTIVATIONS_VARIABLE, "activations", get_args(ActivationMode))),
        )


def _choose(word: str | None, variable: str, option: str, known: tuple[str, ...]) -> str:
    where = option
    if word is None:
        word, where = os.environ.get(variable), f"environment variable {variable}"
    if word is None:
        return "auto"
    if word not in known:
        raise UsageError(f"{where}: {word!r} is unknown", hint=f"known: {', '.join(known)}")
    return word
