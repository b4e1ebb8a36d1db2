"""Full-size synthetic safetensors headers (names, dtypes, shapes; no data) of published MoE checkpoints.

`header_set(name)` gives the headers and `role_set(name)` the role of every tensor, both from the family's own list of
tensors: what is tested with them is the code that reads such headers. That the lists are right is held elsewhere:
`expected.py` computes the totals of every set a second time, from the config alone, and has exact figures of published
checkpoints; `recorded.json` has hashes of sets that were once written without a list; `test_header_sets` has samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from halfbyte.models import FAMILIES, architecture_of, roles_of
from halfbyte.models.family import Described
from halfbyte.models.roles import Role

from .configs import CONFIGS, Config

Header = tuple[str, tuple[int, ...]]
Label = tuple[str, bool]

ROLES = tuple(str(role) for role in Role)


@dataclass(frozen=True)
class Variant:
    """How one set departs from the plain per-expert BF16 layout of its config."""

    fp8: bool = False
    nvfp4: bool = False
    fused: bool = False
    mxfp4: bool = False
    mtp: bool = True


# In memory, transformers 5 keeps experts fused and has no MTP layer; "-fused-mtp" is the same with the MTP layer kept.
_VARIANTS: dict[str, Variant] = {
    "GLM-5.2-FP8": Variant(fp8=True),
    "GLM-5.2-NVFP4": Variant(nvfp4=True),
    "DeepSeek-V4-Flash": Variant(fp8=True, mxfp4=True),
    "DeepSeek-V4-Flash-0731": Variant(fp8=True, mxfp4=True),
    "GLM-5.2-fused": Variant(fused=True, mtp=False),
    "GLM-5.2-fused-mtp": Variant(fused=True),
    "gpt-oss-20b": Variant(mxfp4=True),
    "gpt-oss-120b": Variant(mxfp4=True),
    "DeepSeek-V3": Variant(fp8=True),
    "DeepSeek-V3.2": Variant(fp8=True),
    "Kimi-K2-Instruct": Variant(fp8=True),
    "Qwen3-235B-A22B-fused": Variant(fused=True),
    "Qwen3-30B-A3B-fused": Variant(fused=True),
    "Gemma-4-26B-A4B-text-fused": Variant(fused=True),
    "MiniMax-M2.5": Variant(fp8=True),
    "MiniMax-M2.5-fused": Variant(fused=True),
    "Mixtral-8x7B-v0.1-fused": Variant(fused=True),
    "Mixtral-8x22B-v0.1-fused": Variant(fused=True),
}
STACKED = frozenset(("gemma4_text",))
"""Model types of which transformers loads no experts one by one."""
PLAIN = (
    *("weights_proj", "eh_proj", "gate", "compressor_wkv", "compressor_wgate"),
    *("markov_w1", "markov_w2", "confidence_head"),
)
"""Linears that no published checkpoint quantizes."""


def variant(name: str) -> Variant:
    """Return the storage variant of a set."""
    return _VARIANTS.get(name, Variant())


@dataclass
class _Writer:
    """Collects tensors and writes the storage form (BF16, block FP8 or NVFP4) of each linear layer."""

    variant: Variant
    headers: dict[str, Header] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)

    def add(self, tensor: Described, name: str) -> None:
        """One tensor of the list under its own name; linears in the variant's format."""
        label = (str(tensor.role), tensor.mtp)
        is_linear = len(tensor.shape) == 2 and tensor.projection is not None and tensor.projection not in PLAIN
        if tensor.stack and self.variant.mxfp4:
            experts, inputs, outputs = tensor.shape
            self.tensor(f"{name}_blocks", (experts, outputs, inputs // 32, 16), label, "U8")
            self.tensor(f"{name}_scales", (experts, outputs, inputs // 32), label, "U8")
        elif is_linear and self.variant.mxfp4 and self.variant.fp8:
            (rows, columns), owner = tensor.shape, name.removesuffix("weight")
            if label[0] == "routed_expert":
                self.tensor(name, (rows, columns // 2), label, "I8")
                self.tensor(f"{owner}scale", (rows, columns // 32), label, "F8_E8M0")
            else:
                self.tensor(name, tensor.shape, label, "F8_E4M3")
                self.tensor(f"{owner}scale", (-(-rows // 128), -(-columns // 128)), label, "F8_E8M0")
        elif is_linear and self.variant.fp8:
            rows, columns = tensor.shape
            self.tensor(name, tensor.shape, label, "F8_E4M3")
            self.tensor(f"{name}_scale_inv", (-(-rows // 128), -(-columns // 128)), label, "F32")
        elif is_linear and self.variant.nvfp4 and label == ("routed_expert", False):
            rows, columns = tensor.shape
            self.tensor(name, (rows, columns // 2), label, "U8")
            self.tensor(f"{name}_scale", (rows, columns // 16), label, "F8_E4M3")
            self.tensor(f"{name}_scale_2", (), label, "F32")
            self.tensor(f"{name.removesuffix('weight')}input_scale", (), label, "F32")
        else:
            self.tensor(name, tensor.shape, label, tensor.dtype.upper())

    def tensor(self, name: str, shape: tuple[int, ...], label: Label, dtype: str) -> None:
        if name in self.headers:
            raise ValueError(f"duplicate tensor {name}")
        self.headers[name] = (dtype, shape)
        self.labels[name] = label


def _stored(tensors: list[Described], stored: Variant) -> Iterator[tuple[Described, str]]:
    """The tensors of a checkpoint and their names, an expert's linears side by side. `tensors` are of one place."""
    for tensor in tensors:
        if tensor.stack:
            if stored.fused or tensor.promised:
                yield tensor, _as_transformers_saves(tensor)
        elif tensor.promised and "{e}" not in tensor.name:
            yield tensor, _as_transformers_saves(tensor) if stored.fused else tensor.name
    experts = [tensor for tensor in tensors if "{e}" in tensor.name and tensor.promised and not stored.fused]
    for number in range(max((tensor.count for tensor in experts), default=0)):
        for tensor in experts:
            yield tensor, tensor.name.format(e=number)


def _as_transformers_saves(tensor: Described) -> str:
    """The spelling under `mlp`, where the published name has another container."""
    other = tensor.name.replace(".block_sparse_moe.", ".mlp.")
    return other if other in tensor.also else tensor.name


@lru_cache(maxsize=2)
def _build(name: str) -> _Writer:
    return _write(CONFIGS[name], variant(name))


def _write(cfg: Config, stored: Variant) -> _Writer:
    out, arch, spelled = _Writer(stored), architecture_of(cfg), roles_of(cfg).wrapping.outer
    last = arch.layers + (arch.mtp_layers if stored.mtp else 0)
    together: list[Described] = []
    for tensor in FAMILIES[arch.model_type].tensors(arch):
        if tensor.layer is not None and tensor.layer >= last:
            continue
        if together and (tensor.layer != together[0].layer or (tensor.role is not together[0].role)):
            for one, name in _stored(together, stored):
                out.add(one, spelled(name))
            together = []
        together.append(tensor)
    for one, name in _stored(together, stored):
        out.add(one, spelled(name))
    return out


def header_set(name: str) -> dict[str, Header]:
    """Return `{tensor name: (safetensors dtype, stored shape)}` of one checkpoint; names are the keys of `CONFIGS`."""
    return dict(_build(name).headers)


def headers_for(cfg: Config, stored: Variant) -> dict[str, Header]:
    """As `header_set`, for a config of one's own: a published one made small, say."""
    return _write(cfg, stored).headers


def role_set(name: str) -> dict[str, Label]:
    """Return `{tensor name: (role, belongs to an MTP layer)}`; scale tensors carry the role of their weight."""
    return dict(_build(name).labels)
