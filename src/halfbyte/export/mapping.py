"""Which GGUF tensors a checkpoint becomes, and from which bytes each is made. Headers and scalar scales only.

Experts are stacked to [E, N, K], `kv_b_proj` is split into heads, everything else maps one to one. Types follow
llama.cpp's converter: vectors, norms, routers and the indexer's `weights_proj` in float32, NVFP4 as it is, all else in
its own dtype. (The converter rounds float32 matrices to 16 bits; here they stay.)
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import numpy.typing as npt
from gguf import MODEL_ARCH, GGMLQuantizationType, TensorNameMap, get_tensor_name_map

from halfbyte.checkpoint.inventory import Entry, inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError, UnsupportedError, said
from halfbyte.export import pieces
from halfbyte.export.blocks import ELEMENTS
from halfbyte.export.lossy import ROUNDED, Lossy, type_of
from halfbyte.export.pieces import AS_IT_IS, Layout, Piece
from halfbyte.export.scales import scale_vector
from halfbyte.export.stacks import Share, shares
from halfbyte.formats.catalogue import BF16, F16, F32, MXFP4, NVFP4
from halfbyte.formats.mxfp4 import BLOCKS, SCALES
from halfbyte.formats.storage import SCALE
from halfbyte.models import text_config_of
from halfbyte.models.architecture import Architecture
from halfbyte.models.llama_cpp import LlamaCpp, Written
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import CACHE_SCALES, Role, TensorRole

DTYPES = {
    BF16: GGMLQuantizationType.BF16,
    F16: GGMLQuantizationType.F16,
    F32: GGMLQuantizationType.F32,
}


@dataclass(frozen=True)
class Planned:
    """One tensor of the output. shape: logical, slowest dimension first. Its bytes come from `pieces` in order, or are
    `values` (the scale vectors)."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...] = ()
    values: npt.NDArray[np.float32] | None = None

    @property
    def bytes(self) -> int:
        if self.values is not None:
            return self.values.nbytes
        return sum(piece.transform.output_bytes for piece in self.pieces)


@dataclass
class Mapping:
    """dropped: tensors of the checkpoint that llama.cpp has no use for (MTP where it loads none, scales of a quantized
    KV cache, buffers, towers beside the text model)."""

    tensors: list[Planned] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


class Mapper:
    """Maps one checkpoint. Raises UnsupportedError and CheckpointError, naming the tensor.

    arch, blocks: of the model and its layers, MTP layers counted only where they are loaded and in the checkpoint.
    """

    def __init__(
        self, checkpoint: Checkpoint, roles: RoleMap, architecture: LlamaCpp, lossy: Lossy | None = None
    ) -> None:
        """lossy: what matrices are rounded to; None to keep every bit."""
        self.checkpoint, self.roles, self.architecture, self.lossy = checkpoint, roles, architecture, lossy
        self._entries = inventory(checkpoint.tensors, roles)
        self.arch = _with_mtp_there(roles.arch, self._entries) if architecture.mtp else roles.arch
        self.blocks = roles.layers + (self.arch.mtp_announced if architecture.mtp else 0)
        self._names: TensorNameMap = get_tensor_name_map(MODEL_ARCH[architecture.names], self.blocks)

    def map(self) -> Mapping:
        mapping = Mapping(dropped=self.roles.buffers(self.checkpoint.tensors))
        stacks: dict[tuple[int | None, str | None], dict[int, Entry]] = {}
        ordered: list[Entry | dict[int, Entry]] = []
        for entry in self._entries:
            role = entry.role
            if self._dropped(role):
                mapping.dropped += [tensor.name for tensor in entry.tensors.values()]
                continue
            self._check_format(entry)
            if role.role is Role.ROUTED_EXPERT and role.expert is not None:
                stack = stacks.setdefault((role.layer, role.projection), {})
                if not stack:
                    ordered.append(stack)
                stack[role.expert] = entry
            else:
                ordered.append(entry)
        planned = [
            tensor
            for item in ordered
            for tensor in (self._expert_stack(item) if isinstance(item, dict) else self._single(item))
        ]
        planned += [
            Planned(name, GGMLQuantizationType.F32, (len(made),), values=np.array(made, np.float32))
            for name, made in self.architecture.made(text_config_of(self.checkpoint.config), self.arch)
        ]
        mapping.tensors = self._multiplied(planned)
        return mapping

    def _multiplied(self, planned: list[Planned]) -> list[Planned]:
        """Scales that two tensors of the checkpoint give for the same experts are one: their product, in float32."""
        found: dict[str, Planned] = {}
        for tensor in planned:
            other = found.get(tensor.name)
            if other is not None and tensor.name.endswith(".scale") and other.shape == tensor.shape:
                tensor = replace(tensor, pieces=(), values=self._values(other) * self._values(tensor))
            elif other is not None:
                raise CheckpointError(f"two tensors of the checkpoint are {tensor.name} in llama.cpp")
            found[tensor.name] = tensor
        return list(found.values())

    def _values(self, tensor: Planned) -> npt.NDArray[np.float32]:
        """A vector in float32, as it will be written."""
        if tensor.values is not None:
            return tensor.values
        made = []
        for piece in tensor.pieces:
            inputs = [np.empty(source.bytes, np.uint8) for source in piece.sources]
            for source, data in zip(piece.sources, inputs, strict=True):
                self.checkpoint.read_into(source, data.data)
            made.append(np.empty(piece.transform.output_bytes, np.uint8))
            piece.transform.forward(inputs, made[-1])
        return np.concatenate(made).view(np.float32)

    def _dropped(self, role: TensorRole) -> bool:
        return role.part in CACHE_SCALES or role.role is Role.TOWER or (role.mtp and not self.architecture.mtp)

    def _check_format(self, entry: Entry) -> None:
        role, arch = entry.role, self.architecture.name
        if entry.format in DTYPES or (entry.format == MXFP4 and role.fused):
            return
        if entry.format != NVFP4:
            raise UnsupportedError(
                f"{entry.name}: {entry.format} cannot be exported losslessly",
                hint="export takes ModelOpt NVFP4 checkpoints and plain BF16, F16 or F32 ones",
            )
        if self.lossy is not None and role.projection != "kv_b_proj":
            return
        if role.role not in self.architecture.scaled:
            raise UnsupportedError(
                f"{entry.name}: llama.cpp's {arch!r} does not apply the NVFP4 scale of a {role.role}; the exported "
                "model would compute nonsense without saying so",
                hint=said("{type} q8_0 writes a lossy file that runs; lossless is only the BF16 checkpoint's export"),
            )
        across = entry.shape[1 if role.fused else -1]  # stacks in NVFP4 have their inputs down
        if across % ELEMENTS:
            raise UnsupportedError(
                f"{entry.name}: rows of {across} elements; NVFP4 in GGUF needs a multiple of {ELEMENTS}"
            )

    def _written(self, entry: Entry) -> list[Written]:
        """What a tensor becomes: as the family says, else itself under the name from the `gguf` package's own map."""
        role, part = entry.role, _part(entry)
        name = self.roles.wrapping.inner(f"{role.module}.{part}")
        module = name.removesuffix(f".{part}")
        own = list(self.architecture.written(self.arch, name, role.layer))
        if own:
            return own
        if role.role is Role.ROUTED_EXPERT:
            return [Written(_experts_key(role), f".{part}")]
        if part == "e_score_correction_bias":
            return [Written(f"model.layers.{role.layer}.mlp.gate.e_score_correction", ".bias")]
        return [Written(module, f".{part}")]

    def _lookup(self, key: str, role: TensorRole) -> str:
        name = key if key.startswith("blk.") else self._names.get_name(key)
        if name is None:
            raise UnsupportedError(
                f"{role.module}.{role.part}: llama.cpp's {self.architecture.name!r} has no tensor for it"
            )
        return name

    def _single(self, entry: Entry) -> Iterator[Planned]:
        role = entry.role
        if role.fused:
            yield from self._fused_stack(entry)
        elif role.projection == "kv_b_proj" and _part(entry) == "weight":
            yield from self._split_heads(entry)
        else:
            for written in self._written(entry):
                yield from self._one(entry, written)

    def _one(self, entry: Entry, written: Written) -> Iterator[Planned]:
        name = self._lookup(written.key, entry.role) + written.ending
        layout = Layout(self._rope_rows(entry) if self.architecture.rope_pairs else 0, written.columns)
        parts = [_rows(entry, some) for some in written.rows] or [entry]
        shape = written.shape or (*entry.shape[:-1], *map(layout.taken, entry.shape[-1:]))
        if written.rows and not written.shape:
            shape = (sum(map(len, written.rows)), *shape[1:])
        if self._rounds(entry):
            yield self._rounded(name, parts, shape, layout)
        elif entry.format == NVFP4:
            made = tuple(piece for part in parts for piece in pieces.nvfp4(part, layout.rope_rows))
            yield Planned(name, GGMLQuantizationType.NVFP4, shape, made)
            yield from self._scales(name, [entry])
        else:
            wanted = self._type(entry, written, shape)
            wide = wanted == GGMLQuantizationType.F32
            made = tuple(piece for part in parts for piece in pieces.plain(_only(part), wide, layout, written.change))
            yield Planned(name, wanted, shape, made)

    def _rounds(self, entry: Entry) -> bool:
        """Whether a matrix is rounded: what is packed always, a plain one where it can be had in fewer bits."""
        if self.lossy is None or len(entry.shape) != 2 or _part(entry) != "weight":
            return False
        return entry.format == NVFP4 or (self.lossy != "bf16" and entry.role.role in ROUNDED and not entry.role.mtp)

    def _rounded(self, name: str, entries: list[Entry], shape: tuple[int, ...], layout: Layout = AS_IT_IS) -> Planned:
        assert self.lossy is not None
        first = entries[0]
        kind = type_of(self.lossy, first.role.role, first.shape[1])
        scales = scale_vector(self.checkpoint, entries, "weight_scale_2") if first.format == NVFP4 else None
        made = tuple(
            piece
            for number, entry in enumerate(entries)
            for piece in pieces.rounded(entry, kind, 1.0 if scales is None else float(scales[number]), layout)
        )
        return Planned(name, kind, shape, made)

    def _type(self, entry: Entry, written: Written, shape: tuple[int, ...]) -> GGMLQuantizationType:
        role = entry.role
        if (
            len(shape) <= 1
            or written.ending != ".weight"
            or written.widened
            or written.change
            or role.role in (Role.NORM, Role.ROUTER)
            or (role.role is Role.INDEXER and role.projection == "weights_proj")
        ):
            return GGMLQuantizationType.F32
        return DTYPES[entry.format]

    def _rope_rows(self, entry: Entry) -> int:
        """Rows of one head of q_proj or k_proj, else 0."""
        arch = self.roles.arch
        counts = {"q_proj": (arch.heads, "num_attention_heads"), "k_proj": (arch.kv_heads, "num_key_value_heads")}
        if entry.role.projection not in counts:
            return 0
        heads, key = counts[entry.role.projection]
        if entry.shape[0] % (2 * heads):
            raise CheckpointError(f"{entry.name}: {entry.shape[0]} rows do not make {heads} heads ({key})")
        return entry.shape[0] // heads

    def _expert_stack(self, stack: dict[int, Entry]) -> Iterator[Planned]:
        first = next(iter(stack.values()))
        missing = [expert for expert in range(self.roles.num_experts) if expert not in stack]
        if missing:
            raise CheckpointError(
                f"layer {first.role.layer}: {len(missing)} expert(s) have no {first.role.projection}, first expert "
                f"{missing[0]}"
            )
        entries = [stack[expert] for expert in range(self.roles.num_experts)]
        for entry in entries:
            if entry.shape != first.shape or entry.format != first.format:
                raise CheckpointError(
                    f"{entry.name}: {entry.format} {list(entry.shape)}, but {first.name} is {first.format} "
                    f"{list(first.shape)}; the experts of a layer are one tensor in GGUF"
                )
        name, shape = _experts_key(first.role) + ".weight", (len(entries), *first.shape)
        if self._rounds(first):
            yield self._rounded(name, entries, shape)
        elif first.format == NVFP4:
            made = tuple(piece for entry in entries for piece in pieces.nvfp4(entry))
            yield Planned(name, GGMLQuantizationType.NVFP4, shape, made)
            yield from self._scales(name, entries)
        else:
            made = tuple(piece for entry in entries for piece in pieces.plain(_only(entry)))
            yield Planned(name, DTYPES[first.format], shape, made)

    def _fused_stack(self, entry: Entry) -> Iterator[Planned]:
        """Every projection of a stack of all experts, in 16 or 32 bits, NVFP4 or MXFP4."""
        for share in shares(entry, self.roles, self.architecture.interleaved):
            name = _experts_key(entry.role, share.projection) + ".weight"
            if entry.format == MXFP4:
                made = [
                    pieces.mxfp4_rows(one.tensors[BLOCKS], one.tensors[SCALES], share.outputs) for one in share.experts
                ]
                yield Planned(name, GGMLQuantizationType.MXFP4, share.shape, tuple(made))
            elif share.turned:
                yield from self._turned(name, share)
            else:
                split = [_rows(one, share.outputs) for one in share.experts]
                if self._rounds(split[0]):
                    yield self._rounded(name, split, share.shape)
                else:
                    plain = tuple(piece for part in split for piece in pieces.plain(_only(part)))
                    yield Planned(name, DTYPES[entry.format], share.shape, plain)

    def _turned(self, name: str, share: Share) -> Iterator[Planned]:
        """Stacks whose inputs run down. In NVFP4 one `weight_scale_2` serves all experts, in GGUF each has its own."""
        first, rounds = share.experts[0], self._rounds(share.experts[0])
        scales = scale_vector(self.checkpoint, [first], "weight_scale_2") if first.format == NVFP4 else None
        target = type_of(self.lossy, first.role.role, share.inputs) if rounds and self.lossy is not None else None
        scale = 1.0 if scales is None else float(scales[0])
        made = tuple(pieces.turned(one, share.outputs, target, scale) for one in share.experts)
        stored = GGMLQuantizationType.NVFP4 if first.format == NVFP4 else DTYPES[first.format]
        yield Planned(name, stored if target is None else target, share.shape, made)
        if first.format == NVFP4 and target is None:
            yield from self._scales(name, [first] * len(share.experts))

    def _split_heads(self, entry: Entry) -> Iterator[Planned]:
        """`kv_b_proj` [heads * (nope + v), rank] as `attn_k_b` [heads, rank, nope] and `attn_v_b` [heads, v, rank]."""
        arch, tensor = self.roles.arch, _only(entry)
        assert arch.mla is not None, "only latent attention has a kv_b_proj"
        heads, nope, value = arch.heads, arch.mla.nope, arch.mla.value
        if len(entry.shape) != 2 or entry.shape[0] != heads * (nope + value):
            raise CheckpointError(
                f"{entry.name}: shape {list(entry.shape)} is not num_attention_heads × (qk_nope_head_dim + v_head_dim) "
                f"= {heads} × ({nope} + {value}) rows"
            )
        rank, kind = entry.shape[1], DTYPES[entry.format]
        layer = f"model.layers.{entry.role.layer}.self_attn"
        starts = [head * (nope + value) * rank for head in range(heads)]
        keys = tuple(pieces.transposed(tensor.part(start, (nope, rank))) for start in starts)
        yield Planned(self._lookup(f"{layer}.k_b_proj", entry.role) + ".weight", kind, (heads, rank, nope), keys)
        values = [tensor.part(start + nope * rank, (value, rank)) for start in starts]
        made = tuple(piece for part in values for piece in pieces.plain(part))
        yield Planned(self._lookup(f"{layer}.v_b_proj", entry.role) + ".weight", kind, (heads, value, rank), made)

    def _scales(self, name: str, entries: list[Entry]) -> Iterator[Planned]:
        """`.scale` (weight_scale_2) and `.input_scale`, one value per matrix; left out where all are exactly 1."""
        for part, suffix in (("weight_scale_2", ".scale"), ("input_scale", ".input_scale")):
            values = scale_vector(self.checkpoint, entries, part)
            if values is not None and (values != 1).any():
                stem = name.removesuffix(".weight")
                yield Planned(stem + suffix, GGMLQuantizationType.F32, values.shape, values=values)


def _experts_key(role: TensorRole, projection: str | None = None) -> str:
    """The stack of a layer's experts: llama.cpp's own name, which gguf has not for every architecture that takes it."""
    return f"blk.{role.layer}.ffn_{(projection or role.projection or '').removesuffix('_proj')}_exps"


def _with_mtp_there(arch: Architecture, entries: Iterable[Entry]) -> Architecture:
    """With as many MTP layers as the checkpoint has."""
    last = max((entry.role.layer or 0 for entry in entries if entry.role.mtp), default=arch.layers - 1)
    return replace(arch, mtp_announced=last + 1 - arch.layers)


def _rows(entry: Entry, some: range) -> Entry:
    """Consecutive rows of a tensor that stand by themselves."""
    tensors = {
        part: tensor.part(some.start * prod(tensor.shape[1:]), (len(some), *tensor.shape[1:]))
        if part in (_part(entry), SCALE)
        else tensor
        for part, tensor in entry.tensors.items()
    }
    return entry._replace(shape=(len(some), *entry.shape[1:]), tensors=tensors)


def _part(entry: Entry) -> str:
    """What of its module an entry is; a quantized linear is its weight, whichever of its tensors came first."""
    return "weight" if "weight" in entry.tensors else entry.role.part


def _only(entry: Entry) -> Tensor:
    (tensor,) = entry.tensors.values()
    if prod(entry.shape) == 0:
        raise CheckpointError(f"{tensor.name}: is empty")
    return tensor
