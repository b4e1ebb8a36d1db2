"""What all packed modules of one model share: the algorithm, the chosen back end and the activation mode."""

import logging
from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn

from halfbyte.errors import UsageError
from halfbyte.formats.modelopt import WITH_ACTIVATIONS, Algorithm
from halfbyte.runtime.options import Options

logger = logging.getLogger("halfbyte.runtime")


class Named(Protocol):
    """What is asked of a back end here; what it computes is between it and the packed modules (`packed.Backend`)."""

    name: str
    rearranges: bool


B = TypeVar("B", bound=Named)


class Runtime(Generic[B]):
    """One per model. `backend` is set by `start`, once it is known where the weights lie."""

    def __init__(self, algorithm: Algorithm, options: Options) -> None:
        self.algorithm = algorithm
        self.options = options
        self._backend: B | None = None
        self.reason = ""

    @property
    def started(self) -> bool:
        return self._backend is not None

    @property
    def backend(self) -> B:
        assert self._backend is not None, "a packed module was called before loading was done"
        return self._backend

    @property
    def simulates_activations(self) -> bool:
        """Whether activations are rounded; `auto` leaves them alone, which is what engines do off Blackwell."""
        return self.options.activations == "a4-sim"

    def start(self, backend: B, reason: str) -> None:
        if self.simulates_activations and self.algorithm != WITH_ACTIVATIONS:
            raise UsageError(
                f"activations=a4-sim needs input_scale, a {self.algorithm} checkpoint has none",
                hint="quantize with algorithm NVFP4, or use activations=a16",
            )
        self._backend, self.reason = backend, reason

    def activation_scale(self, module: nn.Module, name: str) -> Tensor | None:
        """The scale by which to round a module's activations (float32 []), None in a16.

        Engines take the largest over a layer's experts, gate and up: SGLang and vLLM on FlashInfer's FP4 back ends.
        """
        if not self.simulates_activations:
            return None
        largest = getattr(module, f"_largest_{name}", None)
        if largest is None or largest.device != getattr(module, name).device:
            largest = getattr(module, name).max()
            setattr(module, f"_largest_{name}", largest)
        assert isinstance(largest, Tensor)
        return largest

    def describe(self) -> str:
        """One line for people: what computes, and why."""
        mode = "a4-sim" if self.simulates_activations else "a16"
        return f"{self.algorithm} on back end {self.backend.name} ({self.reason}), activations {mode}"
