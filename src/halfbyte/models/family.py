"""What is known about one model family: the frame that every `models/<family>.py` fills.

A family says how its config.json is read, lists its tensors, and holds what the engines, llama.cpp and chat must know
of it. All else follows from there: roles (`role_map`), the plan's model on paper, what the gate holds files against.
"""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from halfbyte.formats.catalogue import NVFP4
from halfbyte.models.answers import AnswerFormat
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config
from halfbyte.models.llama_cpp import LlamaCpp
from halfbyte.models.roles import Role, TensorRole


@dataclass(frozen=True, slots=True)
class Described:
    """One tensor that the family knows, or one for each expert.

    name: in full, as published; `{e}` stands for the expert number. shape: of one, not quantized. dtype: as published
    before any quantization. count: how many there are, the number of experts or 1. promised: whether a complete
    checkpoint with this config has it; what is not promised (another way to store the experts, a norm that the config
    switches off) is explained where it is found. also: other spellings of the same tensor. stack: a 3-D tensor of all
    experts.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    projection: str | None = None
    dtype: str = "bf16"
    count: int = 1
    promised: bool = True
    also: tuple[str, ...] = ()
    stack: bool = False
    layer: int | None = None
    mtp: bool = False

    @property
    def multiplies(self) -> bool:
        """Whether it is a linear's matrix, or a stack of them: what a format is chosen for."""
        return self.stack or (len(self.shape) == 2 and self.projection is not None)


@dataclass(frozen=True)
class Known:
    """How a fact is known: an engine was run (version and card), its source read (version and file), or neither."""

    how: Literal["run", "read", "not known"]
    where: str = ""


NOT_KNOWN = Known("not known")


@dataclass(frozen=True)
class Support:
    """One engine and the family.

    file: the file of the engine's models/ that runs it, by which the engine's faults are known; "" if not known.
    since: lowest release known to take it, () if none is; since_known says from where. reasoning_parser, tool_parser:
    the engine's names for the family's answers. asks_router: whether the engine looks the router (`mlp.gate`) up in
    the exclusion list, so that a list without it makes the engine expect packed weights; None where that is not known.
    stacks: whether it loads NVFP4 experts in stacks (`Family.stacked`); None where that is not known, or not asked.
    """

    file: str = ""
    since: tuple[int, ...] = ()
    since_known: Known = NOT_KNOWN
    reasoning_parser: str | None = None
    tool_parser: str | None = None
    asks_router: bool | None = None
    router_known: Known = NOT_KNOWN
    stacks: bool | None = None
    stacks_known: Known = NOT_KNOWN


@dataclass(frozen=True)
class SparseAttention:
    """What differs between the models that share DeepSeek-V3.2's sparse attention.

    index_rotation: which pairs the indexer's rotary embedding turns: neighbours, or the two halves. shares: whether
    layers hand their selection on (IndexShare), which also makes it a third result of the attention's forward.
    """

    index_rotation: Literal["interleaved", "halves"]
    shares: bool


@dataclass(frozen=True)
class Wrapping:
    """How a checkpoint names a text model that stands beside other towers, under `text_config` of its config.json.

    inside: beginning of a text model's names by itself -> what it is there; names with no such beginning stay.
    towers: beginnings of the names of all else, which is kept as it is. First matches count in both.
    """

    inside: Mapping[str, str]
    towers: tuple[str, ...]

    def outer(self, name: str) -> str:
        """A name of the text model as the checkpoint spells it."""
        for own, there in self.inside.items():
            if name.startswith(own):
                return there + name.removeprefix(own)
        return name

    def inner(self, name: str) -> str:
        """A name of the checkpoint as the text model by itself spells it."""
        for own, there in self.inside.items():
            if name.startswith(there):
                return own + name.removeprefix(there)
        return name


UNWRAPPED = Wrapping({}, ())


@dataclass(frozen=True)
class Mixture:
    """What engines load beside a family's NVFP4 experts, where that is more than weights of 16 bits.

    tiles: the storage format of `linears` (role -> projections), in MTP layers too. drafts: formats of the experts in
    MTP layers. exclusions: the list of what is not NVFP4, as ModelOpt writes it. says: keys of config.json by which the
    classes know, if they are there. known: from where.
    """

    tiles: str
    linears: Mapping[Role, tuple[str, ...]]
    drafts: tuple[str, ...]
    exclusions: tuple[str, ...]
    says: Mapping[str, str]
    known: Known

    def wanted(self, role: TensorRole) -> tuple[str, ...]:
        """The formats in which engines take a linear; none: in 16 bits, or more."""
        if role.role is Role.ROUTED_EXPERT:
            return self.drafts if role.mtp else (NVFP4,)
        return (self.tiles,) if role.projection in self.linears.get(role.role, ()) else ()

    def stated(self, config: Config) -> Config:
        """Those of `says` that a config has."""
        return {key: value for key, value in self.says.items() if key in config}

    def not_nvfp4(self, modules: Iterable[str]) -> list[str]:
        """The exclusions that hold of none of the modules that are NVFP4."""
        packed = list(modules)
        return [entry for entry in self.exclusions if not fnmatch.filter(packed, entry)]


@dataclass(frozen=True)
class Family:
    """One `model_type`.

    aliases: other model types with the same config and tensors. read: config.json to numbers; raises CheckpointError.
    tensors: THE list, embedding to MTP, without a vision tower. experts_key, top_k_key: config keys of the number of
    experts and of those that a token visits.
    needs: config keys that engines replace by another model's default where they are missing. engines: by name.
    computed_as: transformers' model type whose classes run it, where that is another's. sparse_attention: if it has
    one. llama_cpp: what llama.cpp calls it; None where its graph is not described; unwritten: what of it is not.
    answers: makes the parser of what it writes, told whether the prompt left it thinking; None where its markup is not
    known.
    wrapping: of the checkpoints that have other towers beside the text model; None where their names are not known.
    only_wrapped: there are no others; the text model by itself is another family's. named_so_alone: a text model by
    itself has the names of `wrapping` too. mxfp4_beside_fp8: what its config.json calls FP8 has experts in MXFP4,
    unless `expert_dtype` says fp8. mixture: what engines load beside NVFP4 experts other than 16 bits. turned_stacks:
    its stacks of experts may have their inputs run down, [E, in, out], instead of across. packs: linears that engines
    load in NVFP4 though of other families none does (role -> projections). stacked: its experts are stacks in every
    checkpoint, inputs down, also those of fewer bits, whose parts are named `STACK_part`: what engines load.
    scores_beside: transformers' block returns its router's scores beside its output. experts_in: the module of a layer
    that both engines put its experts into, though the checkpoint has them in the layer itself. scores_first: a score
    multiplies what an expert is given, not what it gives; transformers' experts take all tokens, which are zeros where
    they have no score. idle_weights: transformers loads no checkpoint without weights of experts that have none.
    vision_bytes: of the tower beside the text model, from the whole config and the text model's width.
    """

    model_type: str
    read: Callable[[Config], Architecture]
    tensors: Callable[[Architecture], Iterable[Described]]
    experts_key: str
    aliases: tuple[str, ...] = ()
    top_k_key: str = "num_experts_per_tok"
    needs: tuple[str, ...] = ()
    engines: Mapping[str, Support] = field(default_factory=dict)
    computed_as: str | None = None
    sparse_attention: SparseAttention | None = None
    llama_cpp: LlamaCpp | None = None
    unwritten: str = ""
    answers: Callable[[bool], AnswerFormat] | None = None
    vision_bytes: Callable[[Config, int], int] | None = None
    wrapping: Wrapping | None = None
    only_wrapped: bool = False
    named_so_alone: bool = False
    mxfp4_beside_fp8: bool = False
    mixture: Mixture | None = None
    turned_stacks: bool = False
    packs: Mapping[Role, tuple[str, ...]] = field(default_factory=dict)
    stacked: bool = False
    scores_beside: bool = False
    experts_in: str = ""
    scores_first: bool = False
    idle_weights: bool = False

    @property
    def by_name(self) -> bool:
        """Whether a checkpoint of this text model alone is explained, tensor by tensor."""
        return not self.only_wrapped

    def but(self, **changes: Any) -> "Family":
        """The same family in all but what is named: for one that reuses another's layers."""
        return replace(self, **changes)

    def support(self, engine: str) -> Support:
        """What is known of an engine; nothing, where the family names none."""
        return self.engines.get(engine, Support())
