"""The spine: what role does a tensor play? Answered from its name and config.json alone, with no weights.

`RoleMap` is the inverse of a family's list of tensors. Recipe, quantizer, inspection, gate and plan all ask it; nobody
else matches names. A name that the list does not hold is an error, never a guess, and so is one that contradicts the
config: an expert number beyond the last, an indexer on a layer that shares its selection, experts on a dense layer.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from halfbyte.errors import CheckpointError, UnknownTensorError
from halfbyte.formats.catalogue import F32, STACK_PARTS
from halfbyte.formats.storage import BARE_SCALE
from halfbyte.models.architecture import Architecture
from halfbyte.models.family import UNWRAPPED, Described, Family, Wrapping
from halfbyte.models.roles import CACHE_SCALES, CORRECTION, PARTS, STACK_NAMES, Role, TensorRole

LAYERS = "model.layers"
"""Path of the decoder layers in a text model by itself."""

_BUFFER = re.compile(r"model\.(?:layers\.(\d{1,6})\.self_attn\.)?rotary_emb\.(?:inv_freq|cos_cached|sin_cached)")
"""What old transformers saved of the rotary embedding, in any family: computed anew by whoever runs the model."""


class _Module(NamedTuple):
    """What all tensors of one module have in common, and which parts it may have."""

    role: Role
    layer: int | None
    projection: str | None
    mtp: bool
    parts: frozenset[str]


class RoleMap:
    """Roles of one model. mtp_layers: layers beyond the last that the config announces, there or not.

    wrapping: how the checkpoint names the text model. layers_path: of the decoder layers in it.
    """

    def __init__(self, family: Family, arch: Architecture, wrapping: Wrapping = UNWRAPPED) -> None:
        self.family, self.arch, self.wrapping = family, arch, wrapping
        self.layers_path = wrapping.outer(f"{LAYERS}.").removesuffix(".")
        self._depth = self.layers_path.count(".") + 1
        self.layers, self.num_experts, self.mtp_layers = arch.layers, arch.experts, arch.mtp_announced
        self.dense, self.indexers = arch.dense, arch.indexers
        self._modules: dict[str, _Module] = {}
        self._experts: dict[tuple[str, str], _Module] = {}  # (path above `.experts.`, path below the number)
        self._stacks: dict[str, TensorRole] = {}
        self._expert_paths: dict[tuple[int | None, str | None], tuple[str, str]] = {}
        self._corrections: set[str] = set()
        self._containers: dict[int | None, str] = {}  # layer -> path of its experts, as published
        self._published: dict[str, str] = {}
        self._projections: dict[Role, dict[int | None, dict[str, None]]] = {}  # by layer, None: of all of them
        self._numbers: dict[str, int | None] = {}  # a few hundred spellings serve many thousand names
        for tensor in family.tensors(arch):
            if tensor.layer is None or tensor.layer < self.layers + self.mtp_layers:
                self._add(tensor)

    def _add(self, tensor: Described) -> None:
        for name in map(self.wrapping.outer, (tensor.name, *tensor.also)):
            if tensor.stack:
                module = name.removesuffix(".weight")
                role = TensorRole(
                    tensor.role, module, "weight", tensor.layer, None, tensor.projection, tensor.mtp, fused=True
                )
                self._stacks[name] = role
                if self.family.stacked:
                    self._stacks |= {role.named(part): role._replace(part=part) for part in STACK_PARTS}
                self._containers.setdefault(tensor.layer, module.rpartition(".")[0])
                continue
            module, _, part = name.rpartition(".")
            if tensor.role is Role.ROUTER and part in CORRECTION and tensor.dtype == F32:
                self._corrections.add(part)
            parts = PARTS if part in PARTS and part not in (*CACHE_SCALES, BARE_SCALE) else frozenset((part,))
            entry = _Module(tensor.role, tensor.layer, tensor.projection, tensor.mtp, parts)
            head, marker, tail = module.partition(".experts.{e}.")
            if marker:
                self._experts[head, tail] = entry
                self._expert_paths.setdefault((tensor.layer, tensor.projection), (head, tail))
                self._containers.setdefault(tensor.layer, f"{head}.experts")
            elif module in self._modules:
                self._modules[module] = self._modules[module]._replace(parts=self._modules[module].parts | parts)
            else:
                self._modules[module] = entry
            container, published = self._container(name), self._container(self.wrapping.outer(tensor.name))
            if container != published:
                parent, _, last = published.rpartition(".")
                repeats = name.removeprefix(f"{container}.").partition(".")[0] == last  # moe.experts for experts
                self._published[container] = parent if repeats else published

    def is_mtp(self, layer: int | None) -> bool:
        return layer is not None and layer >= self.layers

    def is_moe(self, layer: int) -> bool:
        return self.arch.is_moe(layer)

    def role(self, name: str) -> TensorRole:
        """Explain one tensor. Raises UnknownTensorError naming it."""
        module, _, part = name.rpartition(".")
        found = self._modules.get(module)
        if found is not None and part in found.parts:
            return TensorRole(found.role, module, part, found.layer, None, found.projection, found.mtp)
        head, marker, below = module.partition(".experts.")
        if marker and part in PARTS:
            spelled, _, tail = below.partition(".")
            found, expert = self._experts.get((head, tail)), self._number(spelled)
            if found is not None and expert is not None and expert < self.num_experts:
                return TensorRole(found.role, module, part, found.layer, expert, found.projection, found.mtp)
        stack = self._stacks.get(name)
        if stack is not None:
            return stack
        if name.startswith(self.wrapping.towers):
            return TensorRole(Role.TOWER, module, part)
        raise self._unknown(name)

    def is_stack(self, name: str) -> bool:
        """Whether a tensor is a 3-D stack over all experts."""
        return name in self._stacks

    def is_turned(self, role: TensorRole, shape: tuple[int, ...]) -> bool:
        """Whether a stack of experts of this shape has its inputs run down, [E, in, out].

        Raises CheckpointError where the family has such and a square shape does not tell.
        """
        if self.family.stacked:
            return True
        if not self.family.turned_stacks:
            return False
        hidden, width = self.arch.expert_hidden, self.arch.expert_width
        sides = {"gate_up_proj": (2 * width, hidden), "up_proj": (width, hidden)}.get(
            str(role.projection), (hidden, width)
        )
        if sides[0] == sides[1]:
            raise CheckpointError(
                f"{role.module}: shape {list(shape)} does not tell which way its experts lie",
                hint="save the experts one by one",
            )
        return shape == (self.num_experts, *reversed(sides))

    def projections(self, role: Role, layer: int | None = None) -> list[str]:
        """The linears of a role by their standard names, as this model has them, or one of its layers."""
        if role not in self._projections:
            found = self._projections[role] = {None: {}}
            for tensor in self.family.tensors(self.arch):
                if tensor.role is role and tensor.promised and tensor.projection and len(tensor.shape) == 2:
                    for place in (None, tensor.layer):
                        found.setdefault(place, {})[tensor.projection] = None
        return list(self._projections[role].get(layer, ()))

    @property
    def expert_projections(self) -> list[str]:
        """The linears of a routed expert, or the stacks of all: their standard names in the order of use, `down_proj`
        last."""
        return list(STACK_NAMES) if self.family.stacked else self.projections(Role.ROUTED_EXPERT)

    def corrects(self, role: TensorRole) -> bool:
        """Whether a tensor is the bias by which a router chooses experts, and not just that of a linear: it is float32
        where it is published."""
        return role.role is Role.ROUTER and role.part in self._corrections

    def is_buffer(self, name: str) -> bool:
        """Whether a tensor is no weight but what a module computes for itself (Kimi-K2 and Moonlight have such), or of
        an expert that has none (transformers saves such of LongCat-Flash)."""
        if "rotary_emb" not in name:
            return self.arch.zero_experts > 0 and self._is_idle(name)
        found = _BUFFER.fullmatch(self.wrapping.inner(name))
        return found is not None and int(found[1] or 0) < self.layers + self.mtp_layers

    def _is_idle(self, name: str) -> bool:
        head, marker, below = name.rpartition(".")[0].partition(".experts.")
        spelled, _, tail = below.partition(".")
        expert = self._number(spelled) if marker and (head, tail) in self._experts else None
        return expert is not None and 0 <= expert - self.num_experts < self.arch.zero_experts

    def buffers(self, names: Iterable[str]) -> list[str]:
        """Those of the names that are buffers: whoever leaves them out names them."""
        return [name for name in names if self.is_buffer(name)]

    def expert_module(self, layer: int, expert: int, projection: str) -> str:
        """Module path of one expert's linear in the published names, which engines load."""
        head, tail = self._expert_paths[layer, projection]
        return f"{head}.experts.{expert}.{tail}"

    def experts_path(self, layer: int) -> str:
        """Of what holds a layer's routed experts, one by one or in stacks, in the published names."""
        return self._containers[layer]

    def published(self, name: str) -> str:
        """A module or tensor name as the published checkpoints spell it: fused Mixtral says `mlp` where they do not."""
        if not self._published:
            return name
        container = self._container(name)
        return self._published.get(container, container) + name[len(container) :]

    def layer_path(self, layer: int) -> str:
        """Of a decoder layer, as the checkpoint names it."""
        return f"{self.layers_path}.{layer}"

    def _container(self, name: str) -> str:
        """`model.layers.3.mlp` of whatever is below it."""
        return ".".join(name.split(".", self._depth + 2)[: self._depth + 2])

    def _number(self, piece: str) -> int | None:
        if piece not in self._numbers:
            self._numbers[piece] = _number(piece)
        return self._numbers[piece]

    def _unknown(self, name: str) -> UnknownTensorError:
        inner, outer = self.wrapping.inner(name), self.wrapping.outer(name)
        if inner == name != outer and self._knows(name.split(".")):
            reason, contradicts = f"this checkpoint's name of it is {outer[:200]!r}", "family"
        else:
            reason, contradicts = self._why(inner.split("."))
        shown = name if len(name) <= 200 else name[:200] + "..."
        return UnknownTensorError(
            f"tensor {shown!r} has no role in {self.family.model_type}: {reason}",
            hint="check that config.json belongs to these weights",
            contradicts=contradicts,
        )

    def _why(self, pieces: list[str]) -> tuple[str, str]:
        """Why nothing in the list has this name, and which number of the config it contradicts (UnknownTensorError)."""
        if pieces[0] == "mtp":
            return f"no such module in the {self.mtp_layers} MTP layer(s) of the config", "family"
        if pieces[:2] != LAYERS.split(".") or len(pieces) < 5:
            return "no such module in this family", "family"
        layer, last = self._number(pieces[2]), self.layers + self.mtp_layers
        if layer is None or layer >= last:
            beyond = layer is not None and self._knows([*LAYERS.split("."), str(last - 1), *pieces[3:]])
            reason = f"the config has layers 0 to {self.layers - 1} and {self.mtp_layers} MTP layer(s)"
            return reason, "layers" if beyond else "family"
        held = pieces.index("experts") if "experts" in pieces[3:5] else 0
        if held and len(pieces) > held + 1 and self._holds_experts(".".join(pieces[2:held])):
            return self._why_no_expert(layer, pieces, held + 1)
        inside, part = ".".join(pieces[3:-1]), pieces[-1]
        found = self._modules.get(self.wrapping.outer(".".join(pieces[:-1])))
        if found is not None and (part in PARTS or part == "e_score_correction_bias"):
            return f"{inside!r} owns no {part!r}", "family"
        if part not in PARTS:
            return f"unknown ending {part!r}", "family"
        if inside.startswith("self_attn.") and self._selects_elsewhere(inside):
            return f"layer {layer} shares an earlier layer's selection and carries no indexer", "indexer"
        return f"no such module in {self._kind(layer)} layer of this family", "family"

    def _kind(self, layer: int) -> str:
        if layer >= self.layers:
            return "an MTP"
        if self.arch.blocks:
            return {"state": "a Mamba", "attention": "an attention", "experts": "a MoE", "mlp": "a dense"}[
                self.arch.blocks[layer]
            ]
        return "a MoE" if self.is_moe(layer) else "a dense"

    def _why_no_expert(self, layer: int, pieces: list[str], place: int) -> tuple[str, str]:
        if not self.is_moe(layer):
            kind = f"is {self._kind(layer)} layer" if self.arch.blocks else "is dense"
            return f"layer {layer} {kind} by the config", "family"
        expert = self._number(pieces[place])
        if expert is not None and expert >= self.num_experts:
            known = self._knows([*pieces[:place], "0", *pieces[place + 1 :]])
            return f"the config has {self.num_experts} experts", "experts" if known else "family"
        return "no such expert tensor", "family"

    def _knows(self, pieces: list[str]) -> bool:
        try:
            self.role(self.wrapping.outer(".".join(pieces)))
        except UnknownTensorError:
            return False
        return True

    def _holds_experts(self, container: str) -> bool:
        """container: of some layer, by its number."""
        inside = container.partition(".")[2]
        return any((head.removeprefix(f"{self.layers_path}.").partition(".")[2]) == inside for head, _ in self._experts)

    def _selects_elsewhere(self, inside: str) -> bool:
        """Whether a layer that selects has this module."""
        layer = min(self.indexers, default=None)
        found = self._modules.get(f"{self.layer_path(layer or 0)}.{inside}")
        return found is not None and found.role is Role.INDEXER


def _number(piece: str) -> int | None:
    """The number a path component spells, if it is one in the canonical spelling."""
    return int(piece) if piece.isascii() and piece.isdigit() and len(piece) < 7 and str(int(piece)) == piece else None
