"""Weights of one rank: which tensors it holds whole, which in part, by pipeline stage.

Rules of vLLM 0.33 and SGLang 0.5.23 (docs/engines.md 5). Replicated on every tensor-parallel rank: the fused down
projections of latent attention, indexer, router, norms, `eh_proj`; and K/V projections where ranks outnumber KV heads.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from halfbyte.engines.server import GIB, Layout
from halfbyte.formats.catalogue import BF16, F16, MXFP4, NVFP4, NVFP4_WEIGHT_ONLY, stored_bytes
from halfbyte.models.architecture import Architecture
from halfbyte.models.roles import Role
from halfbyte.plan.deployment import Deployment
from halfbyte.plan.weight_groups import WeightGroup

REPLICATED_ROLES = (Role.INDEXER, Role.ROUTER, Role.LATENT, Role.NORM, Role.MTP, Role.HYPER_CONNECTION)
REPLICATED_ATTENTION = ("q_a_proj", "kv_a_proj_with_mqa", "q_a_layernorm", "kv_a_layernorm", "q_norm", "k_norm")


@dataclass
class StageWeights:
    """Bytes on one rank of one pipeline stage.

    target: role -> bytes of the main model. shares: (role, ranks that share it) -> bytes in all, padding included.
    replicated: the part of `target` that every rank holds whole. draft: bytes of the MTP layers. absorbed: copies of
    kv_b_proj that an engine makes for absorbed attention. nvfp4_experts: the routed experts in NVFP4,
    largest_expert_layer: those of one layer; both are touched again while loading.
    """

    layers: range
    target: dict[Role, float] = field(default_factory=dict)
    replicated: float = 0.0
    draft: float = 0.0
    absorbed: float = 0.0
    vision: float = 0.0
    shares: dict[tuple[Role, int], float] = field(default_factory=dict)
    largest_expert_layer: float = 0.0
    nvfp4_experts: float = 0.0

    def formula(self, role: Role) -> str:
        """A role's bytes on the rank as a sum: so many GB by so many ranks, and what is whole on each."""
        parts = sorted((ranks, size) for (of, ranks), size in self.shares.items() if of is role)
        return " + ".join(f"{size / 1e9:.3f} GB / {ranks}" for ranks, size in parts) or "as the embedding"

    @property
    def main(self) -> float:
        """Bytes of the target model as loaded."""
        return sum(self.target.values()) + self.absorbed + self.vision


def stages(arch: Architecture, pp: int) -> list[range]:
    """Layers of each pipeline stage: even; what is left over goes to stages before the last (vLLM `get_pp_indices`)."""
    counts = [arch.layers // pp] * pp
    for i in range(arch.layers % pp):
        counts[-(i + 2)] += 1
    found, start = [], 0
    for count in counts:
        found.append(range(start, start + count))
        start += count
    return found


def rank_weights(groups: Iterable[WeightGroup], arch: Architecture, d: Deployment) -> list[StageWeights]:
    """Weights per rank of every pipeline stage, in bytes."""
    ranks = d.layout
    found = [StageWeights(layers) for layers in stages(arch, d.pp)]
    stage_of = {layer: stage for stage in found for layer in stage.layers}
    expert_layers: dict[int, float] = {}
    towers = 0.0
    for group in groups:
        if group.role is Role.TOWER:
            towers += group.bytes
            continue
        if group.mtp:
            if d.mtp_tokens and d.draft_gib is None:
                found[-1].draft += _rank_bytes(group, arch, ranks, d)
            continue
        stage = stage_of[group.layer] if group.layer is not None else _outside(group, found)
        size = _rank_bytes(group, arch, ranks, d)
        stage.target[group.role] = stage.target.get(group.role, 0.0) + size
        key = (group.role, round(group.bytes / size) if size else 1)
        stage.shares[key] = stage.shares.get(key, 0.0) + size * key[1]
        if size == group.bytes and ranks.dense > 1:
            stage.replicated += size
        if group.role is Role.ROUTED_EXPERT and group.layer is not None:
            expert_layers[group.layer] = expert_layers.get(group.layer, 0.0) + size
            stage.nvfp4_experts += size if group.format in (NVFP4, NVFP4_WEIGHT_ONLY) else 0.0
        if (
            group.projection == "kv_b_proj"
            and len(group.shape) == 2
            and d.facts.copies_kv_b(group.format in (BF16, F16))
        ):
            stage.absorbed += 2 * group.parameters / ranks.attention
    if arch.tied_embeddings and d.pp > 1:
        found[-1].target[Role.LM_HEAD] = found[0].target.get(Role.EMBEDDING, 0.0)
    found[-1].draft += (d.draft_gib or 0.0) * GIB
    found[0].vision = (towers or arch.vision_bytes) / d.facts.vision_ranks(ranks.dense)
    for stage in found:
        stage.largest_expert_layer = max((expert_layers.get(layer, 0.0) for layer in stage.layers), default=0.0)
    return found


def _outside(group: WeightGroup, found: list[StageWeights]) -> StageWeights:
    return found[0] if group.role is Role.EMBEDDING else found[-1]


def _rank_bytes(group: WeightGroup, arch: Architecture, ranks: Layout, d: Deployment) -> float:
    if group.mtp and group.role in (Role.EMBEDDING, Role.LM_HEAD):
        return 0.0  # shared with the target model at load
    if group.role is Role.ROUTED_EXPERT:
        return _expert_bytes(group, ranks, d)
    return group.bytes / divisor(group, arch, ranks)


def divisor(group: WeightGroup, arch: Architecture, ranks: Layout) -> int:
    """Ranks that share the matrices of a group, routed experts left out."""
    if group.role in REPLICATED_ROLES:
        return 1
    if group.role is Role.ATTENTION:
        if group.projection in REPLICATED_ATTENTION or group.projection is None:
            return 1
        if group.projection in ("k_proj", "v_proj"):
            return min(ranks.attention, arch.kv_heads if group.layer is None else arch.kv_heads_of(group.layer))
        return ranks.attention
    if group.role is Role.LINEAR_ATTENTION:
        return 1 if group.projection == "norm" else ranks.attention
    by_role = {
        Role.DENSE_MLP: ranks.dense,
        Role.SHARED_EXPERT: ranks.shared,
        Role.EMBEDDING: ranks.embedding,
        Role.LM_HEAD: ranks.head,
    }
    return by_role[group.role]


def _expert_bytes(group: WeightGroup, ranks: Layout, d: Deployment) -> float:
    """A rank's experts, with the padding that MXFP4 kernels ask for: hidden to 256, width per rank to 128.

    Source: vLLM `Mxfp4MoEMethod.create_weights` (Marlin and TRT-LLM kernels); SGLang rounds alike.
    """
    if group.format != MXFP4 or len(group.shape) < 2:
        return group.bytes / (ranks.expert_width * ranks.expert_count)
    if len(group.shape) == 3:
        experts, inputs, outputs = group.shape
        halves = 2 if group.projection == "gate_up_proj" else 1
        hidden, width = (inputs, outputs // halves) if halves == 2 else (outputs, inputs)
        size = (halves * _round_up(width // ranks.expert_width, 128), _round_up(hidden, 256))
        return group.count * experts / ranks.expert_count * stored_bytes(size, MXFP4)
    rows, columns = group.shape
    width_is_rows = group.projection in ("gate_proj", "up_proj")
    width, hidden = (rows, columns) if width_is_rows else (columns, rows)
    width, hidden = _round_up(width // ranks.expert_width, 128), _round_up(hidden, 256)
    shape = (width, hidden) if width_is_rows else (hidden, width)
    return group.count / ranks.expert_count * stored_bytes(shape, MXFP4)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
