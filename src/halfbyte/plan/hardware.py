"""The hardware catalogue: what a GPU offers, by name. Data in `data/hardware.yaml`; users add their own file.

Nothing here is measured by Halfbyte; every entry names its sources.
"""

import re
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from halfbyte.disk import read_text
from halfbyte.engines.kernels import gpu_family
from halfbyte.errors import UsageError, said

Operand = Literal["bf16", "fp8", "fp4"]
NOISE = frozenset({"nvidia", "amd", "instinct", "gpu", "tensor", "core", "sxm", "sxm2", "sxm4", "sxm5", "sxm6"})
"""Words of product names that tell no two entries apart."""
LIMIT_BYTES = 1_000_000
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Gpu(BaseModel):
    """One GPU type. memory_gib: the total a process sees; bandwidth and link in 10^9 bytes/s, one direction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    memory_gib: float = Field(gt=0, le=100_000)
    bandwidth_gb_s: float = Field(gt=0)
    dense_tflops: dict[Operand, float]
    link: Literal["nvlink", "xgmi", "pcie"]
    link_gb_s: float = Field(gt=0)
    compute_capability: str
    platform: Literal["cuda", "rocm"] = "cuda"
    gpus_per_node: int = Field(8, ge=1)
    sources: dict[str, str]

    @property
    def family(self) -> str:
        """What kernels are chosen by: as `gpu_family` says, or rocm."""
        if self.platform == "rocm":
            return "rocm"
        major, minor = self.compute_capability.split(".")
        return gpu_family(int(major), int(minor))

    def flops(self, operand: Operand) -> float:
        """Dense FLOP/s of a GEMM whose operands are stored as `operand`; a missing type runs in the next wider one."""
        order: tuple[Operand, ...] = ("fp4", "fp8", "bf16")
        for wider in order[order.index(operand) :]:
            if wider in self.dense_tflops:
                return self.dense_tflops[wider] * 1e12
        raise UsageError(f"hardware {self.name}: dense_tflops has no {operand} and nothing wider")


@cache
def catalogue(extra: Path | None = None) -> dict[str, Gpu]:
    """All GPUs by name, the user's file last. Raises UsageError naming the file and the entry."""
    shipped = (resources.files("halfbyte.plan") / "data" / "hardware.yaml").read_text("utf-8")
    found = _parse(shipped, "hardware.yaml")
    if extra is not None:
        found |= _parse(read_text(extra, LIMIT_BYTES, UsageError), str(extra))
    return found


def find_gpu(name: str, extra: Path | None = None, memory_gib: float | None = None) -> Gpu:
    """A GPU by name or alias, however spelled (`NVIDIA B200`, `b200`). memory_gib replaces the catalogue's figure."""
    gpus = catalogue(extra)
    wanted = _plain(name)
    by_alias = {_plain(alias): gpu for gpu in gpus.values() for alias in (gpu.name, *gpu.aliases)}
    gpu = by_alias.get(wanted)
    if gpu is None:
        near = get_close_matches(wanted, by_alias, n=1)
        nearest = f"did you mean {by_alias[near[0]].name!r}?" if near else f"known: {', '.join(gpus)}"
        raise UsageError(
            f"unknown GPU {name[:80]!r}", hint=said("{nearest} Add others with {hardware} FILE.yaml", nearest=nearest)
        )
    if memory_gib is None:
        return gpu
    if not 1 <= memory_gib <= 100_000:
        raise UsageError(f"GPU memory of {memory_gib:g} GiB is not possible", hint="give GiB per GPU, for instance 178")
    return gpu.model_copy(update={"memory_gib": memory_gib})


def _plain(name: str) -> str:
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).split()
    return "".join(word for word in words if word not in NOISE)


def _parse(text: str, where: str) -> dict[str, Gpu]:
    try:
        document: Any = yaml.load(text, Loader=LOADER)  # a safe loader, in C where there is one
    except Exception as error:  # PyYAML's constructors let whatever int(), float() and their like raise pass
        raise UsageError(f"{where}: not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(document, list):
        raise UsageError(f"{where}: wanted a list of GPUs")
    found = {}
    for number, entry in enumerate(document):
        try:
            gpu = Gpu.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(piece) for piece in first["loc"])
            raise UsageError(f"{where}: entry {number}: {place}: {first['msg']}") from None
        found[gpu.name] = gpu
    return found
