"""What one forward pass must move and compute on a rank: the inputs of the roofline.

Expected coverage: `tokens` tokens choose `top_k` of `E` experts each; under uniform routing the expected number of
distinct experts is E * (1 - (1 - top_k/E) ** tokens). With measured frequencies f_e (expected visits per token, summing
to top_k) it is sum over e of 1 - (1 - f_e) ** tokens: skewed routing touches fewer experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from halfbyte.formats.catalogue import format_called
from halfbyte.models.architecture import Architecture, CompressedAttention
from halfbyte.models.roles import Role
from halfbyte.plan.hardware import Gpu, Operand
from halfbyte.plan.kv import kv_stage, states_kept
from halfbyte.plan.memory import MemoryPlan
from halfbyte.plan.weight_groups import WeightGroup
from halfbyte.plan.weights import rank_weights


def expected_coverage(experts: int, top_k: float, tokens: float, frequencies: Sequence[float] | None = None) -> float:
    """Expected distinct experts of one layer that a batch of `tokens` touches. See the module's formula."""
    if frequencies is None:
        return experts * (1.0 - float((1 - top_k / experts) ** tokens))
    total = sum(frequencies)
    return sum(1.0 - float((1 - min(1.0, top_k * f / total)) ** tokens) for f in frequencies)


def operand_of(storage: str, gpu: Gpu) -> Operand:
    """The operand type a GEMM runs in: 4-bit weights are native with their activations on Blackwell only."""
    operand = format_called(storage).operand
    return operand if operand in gpu.dense_tflops else "bf16"  # Marlin and kin: weight-only, BF16 arithmetic


@dataclass(frozen=True)
class StepWork:
    """Per rank, over all layers of the model.

    dense_bytes: weights that every pass reads. expert_bytes: all routed experts on the rank. flops_per_token: by
    operand type, 2 per weight that a token visits. kv_read_bytes(context), attention_flops(...) below.
    """

    arch: Architecture
    plan: MemoryPlan
    dense_bytes: float
    expert_bytes: float
    draft_bytes: float
    flops_per_token: dict[Operand, float]

    def weight_bytes(self, tokens: float, frequencies: Sequence[float] | None = None) -> float:
        """Bytes of weights that a pass over `tokens` tokens reads on this rank."""
        touched = expected_coverage(self.arch.experts, self.arch.visited, tokens, frequencies)
        return self.dense_bytes + self.expert_bytes * touched / self.arch.experts

    def kv_read_bytes(self, context: float) -> float:
        """Cache bytes that decoding one token of a sequence of `context` tokens moves on a rank.

        Sparse attention reads the latent of the selected tokens only, and every index key of its indexer layers; a
        sliding layer reads its window; a state is read, and written for each draft.
        """
        stage = kv_stage(self.arch, self.plan.deployment, self.plan.limits, range(self.arch.layers), last=True)
        if self.arch.compressed is not None:
            return self._compressed_read_bytes(self.arch.compressed, context)
        seen = context if self.arch.indexer is None else min(context, self.arch.indexer.top_k)
        window = min(context, self.arch.window)
        heads = stage.heads * context
        if self.arch.selection is not None:
            share = len(self.arch.selection.layers) / self.arch.layers
            heads *= 1 - share + share * min(1.0, self.arch.selection.tokens / context)
        states = stage.state * (1 + 1 / states_kept(self.plan.deployment))
        return stage.latent * seen + stage.index * context + heads + stage.sliding * window + states

    def _compressed_read_bytes(self, parts: CompressedAttention, context: float) -> float:
        """A window's keys in every layer, the compressed ones, of which sparse layers see top_k, and their index."""
        stage = kv_stage(self.arch, self.plan.deployment, self.plan.limits, range(self.arch.layers), last=False)
        assert self.arch.indexer is not None
        key = stage.sliding / self.arch.layers
        seen = sum(
            min(context / ratio, self.arch.indexer.top_k) if ratio == parts.sparse else context / ratio
            for ratio in parts.ratios[: self.arch.layers]
            if ratio
        )
        return key * (seen + self.arch.layers * min(context, self.arch.window)) + stage.index * context

    def attention_flops(self, new: float, context: float) -> float:
        """Attention and indexer FLOPs on a rank of `new` tokens at the end of a context of `context` tokens.

        The indexer scores every earlier token (quadratic), attention proper sees top_k of them. Attention heads are
        shared by the ranks, indexer heads are not.
        """
        arch, ranks = self.arch, self.plan.deployment.layout
        if arch.compressed is not None:
            return self._compressed_flops(arch.compressed, new, context)
        before = context - new / 2  # mean number of earlier tokens
        if arch.mla is not None:
            width = wide = arch.heads / ranks.attention * (2 * arch.mla.kv_rank + arch.mla.rope)
        else:
            width = arch.heads / ranks.attention * arch.kv_numbers
            wide = arch.heads / ranks.attention * arch.sliding_kv_numbers
        seen = before if arch.indexer is None else min(before, arch.indexer.top_k)
        near = len(arch.sliding)
        far = sum(map(arch.attends, range(arch.layers))) * arch.attentions - near
        flops = 2 * new * (width * far * seen + wide * near * min(seen, arch.window))
        if arch.selection is not None:
            few = len(arch.selection.layers)
            flops -= 2 * new * width * few * max(seen - arch.selection.tokens, 0)
            flops += 2 * few * new * before * arch.selection.heads * arch.selection.width
        if arch.indexer is not None:
            flops += 2 * len(arch.indexers) * new * before * arch.indexer.heads * arch.indexer.width
        return flops

    def _compressed_flops(self, parts: CompressedAttention, new: float, context: float) -> float:
        """Attention is spread over ranks by heads; an indexer scores every compressed key of its layer."""
        arch, before = self.arch, context - new / 2
        assert arch.indexer is not None
        seen, scored = arch.layers * min(before, arch.window), 0.0
        for ratio in parts.ratios[: arch.layers]:
            if ratio:
                keys = before / ratio
                scored += keys if ratio == parts.sparse else 0
                seen += min(keys, arch.indexer.top_k) if ratio == parts.sparse else keys
        heads = arch.heads / self.plan.deployment.layout.attention
        return 2 * new * (2 * heads * arch.head_dim * seen + arch.indexer.heads * arch.indexer.width * scored)


def work_of(groups: Sequence[WeightGroup], arch: Architecture, plan: MemoryPlan) -> StepWork:
    """Sum a model's groups for one rank. Pipeline stages run one after another, so their bytes add up."""
    d = plan.deployment
    found = rank_weights(groups, arch, d)
    experts = sum(stage.target.get(Role.ROUTED_EXPERT, 0.0) for stage in found)
    embedding = sum(stage.target.get(Role.EMBEDDING, 0.0) for stage in found)  # a lookup, not a read of the table
    dense = sum(stage.main for stage in found) - experts - embedding - sum(stage.vision for stage in found)
    ranks, flops = d.layout, dict.fromkeys(("bf16", "fp8", "fp4"), 0.0)
    # under data-parallel attention a rank computes its share of the experts for the tokens of all ranks
    experts_of_a_token = ranks.expert_width * ranks.expert_count / d.kv_ranks
    for group in groups:
        if group.mtp or group.role in (Role.EMBEDDING, Role.NORM, Role.TOWER) or len(group.shape) < 2:
            continue
        if group.role is Role.ROUTED_EXPERT and group.projection is None:  # biases
            continue
        share = arch.visited / arch.experts if group.role is Role.ROUTED_EXPERT else 1.0
        divisor = _compute_divisor(group, experts_of_a_token, ranks.attention)
        flops[operand_of(group.format, d.gpu)] += 2 * group.parameters * share / divisor
    by_type: dict[Operand, float] = {"bf16": flops["bf16"], "fp8": flops["fp8"], "fp4": flops["fp4"]}
    return StepWork(arch, plan, dense, experts, sum(stage.draft for stage in found), by_type)


def _compute_divisor(group: WeightGroup, others: float, attention: int) -> float:
    on_each = group.role in (Role.INDEXER, Role.ROUTER, Role.LATENT, Role.HYPER_CONNECTION)
    if on_each or group.projection in ("q_a_proj", "kv_a_proj_with_mqa"):
        return 1
    return attention if group.role in (Role.ATTENTION, Role.LINEAR_ATTENTION) else others
