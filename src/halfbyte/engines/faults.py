"""What an engine refuses or computes wrong, by version and hardware, and what helps.

A sound checkpoint can meet an engine that is not: each fault says for which checkpoints, on which kernels and up to
which version it was seen, and which flag or version mends it. The gate finds them, the plan warns, the launcher sets
the flag.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from halfbyte.models.architecture import Architecture
from halfbyte.models.family import Family, Known

HOPPER = frozenset(("sm80", "sm89", "sm90"))
"""GPU families on which NVFP4 runs weight-only, on Marlin."""

Certainty = Literal["certain", "possible"]


@dataclass(frozen=True)
class Loaded:
    """What a fault asks of a checkpoint.

    algorithm: `quant_algo`, None if it is not quantized. packed_experts, packed_drafts, kept_shared: whether routed
    experts are NVFP4, those of MTP layers too, and a shared expert is not. routed_scale: `routed_scaling_factor`.
    dtype: `torch_dtype`, "" if not said.
    """

    family: Family
    arch: Architecture
    algorithm: str | None = None
    packed_experts: bool = False
    packed_drafts: bool = False
    kept_shared: bool = False
    routed_scale: float = 1.0
    dtype: str = ""


@dataclass(frozen=True)
class Fault:
    """One fault of one engine.

    name: stable. what: said to users. helps: the flag or version that does. flag: to be added to the command line.
    shows: whether it concerns a checkpoint. mended: engine file of models/ -> first version without it; for files not
    named no version is known. seen: newest version in which it was run or read. kernels: GPU families on which it
    shows, all if empty. fatal: whether the engine stops or answers wrong; else it is only worth knowing.
    """

    name: str
    what: str
    helps: str
    shows: Callable[[Loaded, str], bool]
    seen: tuple[int, ...]
    known: Known
    flag: str = ""
    mended: dict[str, tuple[int, ...]] = field(default_factory=dict)
    kernels: frozenset[str] = frozenset()
    fatal: bool = True

    def certainty(self, engine: str, loaded: Loaded, gpu: str | None, version: tuple[int, ...]) -> Certainty | None:
        """Whether the fault is met. None: it is not. gpu: its family, None if not stated; version: () if not."""
        file = loaded.family.support(engine).file
        if not self.shows(loaded, file):
            return None
        if self.kernels and gpu is not None and gpu not in self.kernels:
            return None
        mended = self.mended.get(file)
        if mended is not None and version >= mended:
            return None
        elsewhere = gpu is None and bool(self.kernels)
        unknown = not version if mended is not None else version > self.seen
        return "possible" if elsewhere or unknown else "certain"

    def advice(self, engine: str, loaded: Loaded) -> str:
        """What helps, with the version that mends it for this checkpoint, where one is known."""
        mended = self.mended.get(loaded.family.support(engine).file)
        version = "" if mended is None else f"{engine} {'.'.join(map(str, mended))} or newer"
        return " or ".join(help_ for help_ in (version, self.helps) if help_)


@dataclass(frozen=True)
class Met:
    """A fault that a checkpoint meets."""

    fault: Fault
    certain: bool
    message: str


def faults_met(
    engine: str, faults: Sequence[Fault], loaded: Loaded, gpu: str | None, version: tuple[int, ...]
) -> list[Met]:
    """The faults of `engine` that `loaded` meets on a GPU of family `gpu`, in the order of `faults`."""
    found = []
    for fault in faults:
        certainty = fault.certainty(engine, loaded, gpu, version)
        if certainty is not None:
            message = f"{engine}: {fault.what}; {fault.advice(engine, loaded)} helps ({fault.known.where})"
            found.append(Met(fault, certainty == "certain", message))
    return found
