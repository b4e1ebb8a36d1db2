"""The tensors of published checkpoints as listed in public reports of their headers: names, shapes, dtypes; no weights.

A line is `name shape dtype`; `A-B` in a name stands for each number from A to B, `A-B/2` for every second. b, f, 8, i,
u, w, q: BF16, F32, F8_E4M3, I8, U8, I32, I64. What is listed as `name*` also has the block scales of FP8 beside it
(`weight_scale_inv`, one for 128 x 128; float32, or bf16 where the line ends in `8b`); as `name+` DeepSeek-V4's
(`scale`, F8_E8M0; of I8 one for 32 numbers, which are 16 bytes), as `name=` one for each row (`weight_scale`, F32).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

from .configs import CONFIGS, Config

DTYPES = {"b": "BF16", "f": "F32", "8": "F8_E4M3", "i": "I8", "u": "U8", "w": "I32", "q": "I64"}
RANGE = re.compile(r"(?<=\.)(\d+)-(\d+)(?:/(\d+))?(?=\.)")


@dataclass(frozen=True)
class Line:
    """One line. names: all that it stands for, or with `few` the first and the last of every range."""

    pattern: str
    shape: tuple[int, ...]
    dtype: str

    def names(self, few: bool = False) -> Iterator[str]:
        for numbers in product(*[[found[0], found[-1]] if few else found for found in self.ranges]):
            rest = iter(numbers)
            yield RANGE.sub(lambda _: str(next(rest)), self.pattern)  # noqa: B023

    @property
    def ranges(self) -> list[range]:
        return [range(int(a), int(b) + 1, int(step or 1)) for a, b, step in RANGE.findall(self.pattern)]

    @property
    def count(self) -> int:
        return prod(map(len, self.ranges))


def lines(text: str) -> Iterator[Line]:
    for line in text.strip().splitlines():
        name, shape, dtype = line.split()
        sides = tuple(map(int, shape.split("x")))
        yield Line(name.rstrip("*+="), sides, DTYPES[dtype[0]])
        if name.endswith("="):
            yield Line(f"{name[:-1]}_scale", (sides[0], 1), "F32")
        if name.endswith("+"):
            scales = (sides[0], sides[1] // 16) if dtype == "i" else (ceil(sides[0] / 128), ceil(sides[1] / 128))
            yield Line(f"{name.removesuffix('weight+')}scale", scales, "F8_E8M0")
        if name.endswith("*"):
            blocks = (ceil(sides[0] / 128), ceil(sides[1] / 128))
            yield Line(name[:-1] + "_scale_inv", blocks, "BF16" if dtype == "8b" else "F32")


@dataclass(frozen=True)
class Published:
    """config: a key of `configs.CONFIGS`, or whole. tensors, numbers: how many the report counts, 0 if it does not."""

    config: str | Config
    tensors: int
    text: str
    numbers: int = 0

    @property
    def described(self) -> Config:
        return CONFIGS[self.config] if isinstance(self.config, str) else self.config


GLM_5 = """
lm_head.weight 154880x6144 b
model.embed_tokens.weight 154880x6144 b
model.layers.0-2.mlp.down_proj.weight 6144x12288 b
model.layers.0-2.mlp.gate_proj.weight 12288x6144 b
model.layers.0-2.mlp.up_proj.weight 12288x6144 b
model.layers.0-78.input_layernorm.weight 6144 b
model.layers.0-78.post_attention_layernorm.weight 6144 b
model.layers.0-78.self_attn.indexer.k_norm.bias 128 b
model.layers.0-78.self_attn.indexer.k_norm.weight 128 b
model.layers.0-78.self_attn.indexer.weights_proj.weight 32x6144 b
model.layers.0-78.self_attn.indexer.wk.weight 128x6144 b
model.layers.0-78.self_attn.indexer.wq_b.weight 4096x2048 b
model.layers.0-78.self_attn.kv_a_layernorm.weight 512 b
model.layers.0-78.self_attn.kv_a_proj_with_mqa.weight 576x6144 b
model.layers.0-78.self_attn.kv_b_proj.weight 28672x512 b
model.layers.0-78.self_attn.o_proj.weight 6144x16384 b
model.layers.0-78.self_attn.q_a_layernorm.weight 2048 b
model.layers.0-78.self_attn.q_a_proj.weight 2048x6144 b
model.layers.0-78.self_attn.q_b_proj.weight 16384x2048 b
model.layers.3-78.mlp.experts.0-255.down_proj.weight 6144x2048 b
model.layers.3-78.mlp.experts.0-255.gate_proj.weight 2048x6144 b
model.layers.3-78.mlp.experts.0-255.up_proj.weight 2048x6144 b
model.layers.3-78.mlp.gate.e_score_correction_bias 256 f
model.layers.3-78.mlp.gate.weight 256x6144 b
model.layers.3-78.mlp.shared_experts.down_proj.weight 6144x2048 b
model.layers.3-78.mlp.shared_experts.gate_proj.weight 2048x6144 b
model.layers.3-78.mlp.shared_experts.up_proj.weight 2048x6144 b
model.layers.78.eh_proj.weight 6144x12288 b
model.layers.78.enorm.weight 6144 b
model.layers.78.hnorm.weight 6144 b
model.layers.78.shared_head.norm.weight 6144 b
model.norm.weight 6144 b
"""

GLM_47_FLASH = """
lm_head.weight 154880x2048 b
model.embed_tokens.weight 154880x2048 b
model.layers.0-47.input_layernorm.weight 2048 b
model.layers.0-47.post_attention_layernorm.weight 2048 b
model.layers.0-47.self_attn.kv_a_layernorm.weight 512 b
model.layers.0-47.self_attn.kv_a_proj_with_mqa.weight 576x2048 b
model.layers.0-47.self_attn.kv_b_proj.weight 8960x512 b
model.layers.0-47.self_attn.o_proj.weight 2048x5120 b
model.layers.0-47.self_attn.q_a_layernorm.weight 768 b
model.layers.0-47.self_attn.q_a_proj.weight 768x2048 b
model.layers.0-47.self_attn.q_b_proj.weight 5120x768 b
model.layers.0.mlp.down_proj.weight 2048x10240 b
model.layers.0.mlp.gate_proj.weight 10240x2048 b
model.layers.0.mlp.up_proj.weight 10240x2048 b
model.layers.1-47.mlp.experts.0-63.down_proj.weight 2048x1536 b
model.layers.1-47.mlp.experts.0-63.gate_proj.weight 1536x2048 b
model.layers.1-47.mlp.experts.0-63.up_proj.weight 1536x2048 b
model.layers.1-47.mlp.gate.e_score_correction_bias 64 f
model.layers.1-47.mlp.gate.weight 64x2048 b
model.layers.1-47.mlp.shared_experts.down_proj.weight 2048x1536 b
model.layers.1-47.mlp.shared_experts.gate_proj.weight 1536x2048 b
model.layers.1-47.mlp.shared_experts.up_proj.weight 1536x2048 b
model.layers.47.eh_proj.weight 2048x4096 b
model.layers.47.embed_tokens.weight 154880x2048 b
model.layers.47.enorm.weight 2048 b
model.layers.47.hnorm.weight 2048 b
model.layers.47.shared_head.head.weight 154880x2048 b
model.layers.47.shared_head.norm.weight 2048 b
model.norm.weight 2048 b
"""


def _deepseek(
    last: int, dense: int, heads: int, experts: int, vocab: int, norms: str = "b", more: str = "", dense_from: str = ""
) -> str:
    """DeepSeek-V3's layers in FP8 blocks, as V3, R1, V3.2 and Kimi K2 share them. last: number of the last layer."""
    moe, mlp = f"{dense}-{last}", dense_from or f"0-{dense - 1}"
    return f"""
lm_head.weight {vocab}x7168 b
model.embed_tokens.weight {vocab}x7168 b
model.layers.{mlp}.mlp.down_proj.weight* 7168x18432 8
model.layers.{mlp}.mlp.gate_proj.weight* 18432x7168 8
model.layers.{mlp}.mlp.up_proj.weight* 18432x7168 8
model.layers.0-{last}.input_layernorm.weight 7168 {norms}
model.layers.0-{last}.post_attention_layernorm.weight 7168 {norms}
model.layers.0-{last}.self_attn.kv_a_layernorm.weight 512 {norms}
model.layers.0-{last}.self_attn.kv_a_proj_with_mqa.weight* 576x7168 8
model.layers.0-{last}.self_attn.kv_b_proj.weight* {heads * 256}x512 8
model.layers.0-{last}.self_attn.o_proj.weight* 7168x{heads * 128} 8
model.layers.0-{last}.self_attn.q_a_layernorm.weight 1536 {norms}
model.layers.0-{last}.self_attn.q_a_proj.weight* 1536x7168 8
model.layers.0-{last}.self_attn.q_b_proj.weight* {heads * 192}x1536 8
model.layers.{moe}.mlp.experts.0-{experts - 1}.down_proj.weight* 7168x2048 8
model.layers.{moe}.mlp.experts.0-{experts - 1}.gate_proj.weight* 2048x7168 8
model.layers.{moe}.mlp.experts.0-{experts - 1}.up_proj.weight* 2048x7168 8
model.layers.{moe}.mlp.gate.e_score_correction_bias {experts} f
model.layers.{moe}.mlp.gate.weight {experts}x7168 b
model.layers.{moe}.mlp.shared_experts.down_proj.weight* 7168x2048 8
model.layers.{moe}.mlp.shared_experts.gate_proj.weight* 2048x7168 8
model.layers.{moe}.mlp.shared_experts.up_proj.weight* 2048x7168 8
model.norm.weight 7168 {norms}
{more}"""


def _deepseek_mtp(norms: str) -> str:
    return f"""model.layers.61.eh_proj.weight 7168x14336 b
model.layers.61.embed_tokens.weight 129280x7168 b
model.layers.61.enorm.weight 7168 {norms}
model.layers.61.hnorm.weight 7168 {norms}
model.layers.61.shared_head.head.weight 129280x7168 b
model.layers.61.shared_head.norm.weight 7168 {norms}
"""


_INDEXER = """model.layers.0-61.self_attn.indexer.k_norm.bias 128 f
model.layers.0-61.self_attn.indexer.k_norm.weight 128 f
model.layers.0-61.self_attn.indexer.weights_proj.weight 64x7168 b
model.layers.0-61.self_attn.indexer.wk.weight* 128x7168 8
model.layers.0-61.self_attn.indexer.wq_b.weight* 8192x1536 8
"""

MINIMAX = """
lm_head.weight 200064x3072 b
model.embed_tokens.weight 200064x3072 b
model.layers.0-61.block_sparse_moe.e_score_correction_bias 256 f
model.layers.0-61.block_sparse_moe.experts.0-255.w1.weight* 1536x3072 8
model.layers.0-61.block_sparse_moe.experts.0-255.w2.weight* 3072x1536 8
model.layers.0-61.block_sparse_moe.experts.0-255.w3.weight* 1536x3072 8
model.layers.0-61.block_sparse_moe.gate.weight 256x3072 f
model.layers.0-61.input_layernorm.weight 3072 b
model.layers.0-61.post_attention_layernorm.weight 3072 b
model.layers.0-61.self_attn.k_norm.weight 1024 b
model.layers.0-61.self_attn.k_proj.weight* 1024x3072 8
model.layers.0-61.self_attn.o_proj.weight* 3072x6144 8
model.layers.0-61.self_attn.q_norm.weight 6144 b
model.layers.0-61.self_attn.q_proj.weight* 6144x3072 8
model.layers.0-61.self_attn.v_proj.weight* 1024x3072 8
model.norm.weight 3072 b
"""


def _qwen3(star: str, dtype: str) -> str:
    return f"""
lm_head.weight 151936x2048 b
model.embed_tokens.weight 151936x2048 b
model.layers.0-47.input_layernorm.weight 2048 b
model.layers.0-47.mlp.experts.0-127.down_proj.weight{star} 2048x768 {dtype}
model.layers.0-47.mlp.experts.0-127.gate_proj.weight{star} 768x2048 {dtype}
model.layers.0-47.mlp.experts.0-127.up_proj.weight{star} 768x2048 {dtype}
model.layers.0-47.mlp.gate.weight 128x2048 b
model.layers.0-47.post_attention_layernorm.weight 2048 b
model.layers.0-47.self_attn.k_norm.weight 128 b
model.layers.0-47.self_attn.k_proj.weight{star} 512x2048 {dtype}
model.layers.0-47.self_attn.o_proj.weight{star} 2048x4096 {dtype}
model.layers.0-47.self_attn.q_norm.weight 128 b
model.layers.0-47.self_attn.q_proj.weight{star} 4096x2048 {dtype}
model.layers.0-47.self_attn.v_proj.weight{star} 512x2048 {dtype}
model.norm.weight 2048 b
"""


MIXTRAL = """
lm_head.weight 32000x4096 b
model.embed_tokens.weight 32000x4096 b
model.layers.0-31.block_sparse_moe.experts.0-7.w1.weight 14336x4096 b
model.layers.0-31.block_sparse_moe.experts.0-7.w2.weight 4096x14336 b
model.layers.0-31.block_sparse_moe.experts.0-7.w3.weight 14336x4096 b
model.layers.0-31.block_sparse_moe.gate.weight 8x4096 b
model.layers.0-31.input_layernorm.weight 4096 b
model.layers.0-31.post_attention_layernorm.weight 4096 b
model.layers.0-31.self_attn.k_proj.weight 1024x4096 b
model.layers.0-31.self_attn.o_proj.weight 4096x4096 b
model.layers.0-31.self_attn.q_proj.weight 4096x4096 b
model.layers.0-31.self_attn.v_proj.weight 1024x4096 b
model.norm.weight 4096 b
"""

GLM_45_AIR = """
lm_head.weight 151552x4096 b
model.embed_tokens.weight 151552x4096 b
model.layers.0-46.input_layernorm.weight 4096 b
model.layers.0-46.post_attention_layernorm.weight 4096 b
model.layers.0-46.self_attn.k_proj.bias 1024 b
model.layers.0-46.self_attn.k_proj.weight 1024x4096 b
model.layers.0-46.self_attn.o_proj.weight 4096x12288 b
model.layers.0-46.self_attn.q_proj.bias 12288 b
model.layers.0-46.self_attn.q_proj.weight 12288x4096 b
model.layers.0-46.self_attn.v_proj.bias 1024 b
model.layers.0-46.self_attn.v_proj.weight 1024x4096 b
model.layers.0.mlp.down_proj.weight 4096x10944 b
model.layers.0.mlp.gate_proj.weight 10944x4096 b
model.layers.0.mlp.up_proj.weight 10944x4096 b
model.layers.1-46.mlp.experts.0-127.down_proj.weight 4096x1408 b
model.layers.1-46.mlp.experts.0-127.gate_proj.weight 1408x4096 b
model.layers.1-46.mlp.experts.0-127.up_proj.weight 1408x4096 b
model.layers.1-46.mlp.gate.e_score_correction_bias 128 f
model.layers.1-46.mlp.gate.weight 128x4096 b
model.layers.1-46.mlp.shared_experts.down_proj.weight 4096x1408 b
model.layers.1-46.mlp.shared_experts.gate_proj.weight 1408x4096 b
model.layers.1-46.mlp.shared_experts.up_proj.weight 1408x4096 b
model.layers.46.eh_proj.weight 4096x8192 b
model.layers.46.embed_tokens.weight 151552x4096 b
model.layers.46.enorm.weight 4096 b
model.layers.46.hnorm.weight 4096 b
model.layers.46.shared_head.head.weight 151552x4096 b
model.layers.46.shared_head.norm.weight 4096 b
model.norm.weight 4096 b
"""

_V4_LAYER = """
@.attn.attn_sink 64 f
@.attn.kv_norm.weight 512 b
@.attn.q_norm.weight 1024 b
@.attn.wkv.weight+ 512x4096 8
@.attn.wo_a.weight+ 8192x4096 8
@.attn.wo_b.weight+ 4096x8192 8
@.attn.wq_a.weight+ 1024x4096 8
@.attn.wq_b.weight+ 32768x1024 8
@.attn_norm.weight 4096 b
@.ffn.experts.0-255.w1.weight+ 2048x2048 i
@.ffn.experts.0-255.w2.weight+ 4096x1024 i
@.ffn.experts.0-255.w3.weight+ 2048x2048 i
@.ffn.gate.weight 256x4096 b
@.ffn.shared_experts.w1.weight+ 2048x4096 8
@.ffn.shared_experts.w2.weight+ 4096x2048 8
@.ffn.shared_experts.w3.weight+ 2048x4096 8
@.ffn_norm.weight 4096 b
@.hc_attn_base 24 f
@.hc_attn_fn 24x16384 f
@.hc_attn_scale 3 f
@.hc_ffn_base 24 f
@.hc_ffn_fn 24x16384 f
@.hc_ffn_scale 3 f
"""

DEEPSEEK_V4 = f"""
embed.weight 129280x4096 b
head.weight 129280x4096 b
hc_head_base 4 f
hc_head_fn 4x16384 f
hc_head_scale 1 f
{_V4_LAYER.replace("@", "layers.0-42").strip()}
layers.0-2.ffn.gate.tid2eid 129280x6 q
layers.2-42/2.attn.compressor.ape 4x1024 f
layers.2-42/2.attn.compressor.wgate.weight 1024x4096 b
layers.2-42/2.attn.compressor.wkv.weight 1024x4096 b
layers.2-42/2.attn.indexer.compressor.ape 4x256 f
layers.2-42/2.attn.indexer.compressor.norm.weight 128 b
layers.2-42/2.attn.indexer.compressor.wgate.weight 256x4096 b
layers.2-42/2.attn.indexer.compressor.wkv.weight 256x4096 b
layers.2-42/2.attn.indexer.weights_proj.weight 64x4096 b
layers.2-42/2.attn.indexer.wq_b.weight+ 8192x1024 8
layers.2-42.attn.compressor.norm.weight 512 b
layers.3-41/2.attn.compressor.ape 128x512 f
layers.3-41/2.attn.compressor.wgate.weight 512x4096 b
layers.3-41/2.attn.compressor.wkv.weight 512x4096 b
layers.3-42.ffn.gate.bias 256 f
{_V4_LAYER.replace("@", "mtp.0").strip()}
mtp.0.e_proj.weight+ 4096x4096 8
mtp.0.enorm.weight 4096 b
mtp.0.ffn.gate.bias 256 f
mtp.0.h_proj.weight+ 4096x4096 8
mtp.0.hc_head_base 4 f
mtp.0.hc_head_fn 4x16384 f
mtp.0.hc_head_scale 1 f
mtp.0.hnorm.weight 4096 b
mtp.0.norm.weight 4096 b
norm.weight 4096 b
"""

GLM_52 = "\n".join(
    [
        *(line for line in GLM_5.strip().splitlines() if ".indexer." not in line),
        *(
            line.replace("0-78", layers)
            for line in GLM_5.strip().splitlines()
            for layers in ("0-2", "6-78/4")
            if ".indexer." in line
        ),
    ]
)

GLM_45_ROWS = """
lm_head.weight 151552x5120 b
model.embed_tokens.weight 151552x5120 b
model.layers.0-2.mlp.down_proj.weight= 5120x12288 8
model.layers.0-2.mlp.gate_proj.weight= 12288x5120 8
model.layers.0-2.mlp.up_proj.weight= 12288x5120 8
model.layers.0-92.input_layernorm.weight 5120 b
model.layers.0-92.post_attention_layernorm.weight 5120 b
model.layers.0-92.self_attn.k_norm.weight 128 b
model.layers.0-92.self_attn.k_proj.bias 1024 b
model.layers.0-92.self_attn.k_proj.weight= 1024x5120 8
model.layers.0-92.self_attn.o_proj.weight= 5120x12288 8
model.layers.0-92.self_attn.q_norm.weight 128 b
model.layers.0-92.self_attn.q_proj.bias 12288 b
model.layers.0-92.self_attn.q_proj.weight= 12288x5120 8
model.layers.0-92.self_attn.v_proj.bias 1024 b
model.layers.0-92.self_attn.v_proj.weight= 1024x5120 8
model.layers.3-92.mlp.experts.0-159.down_proj.weight= 5120x1536 8
model.layers.3-92.mlp.experts.0-159.gate_proj.weight= 1536x5120 8
model.layers.3-92.mlp.experts.0-159.up_proj.weight= 1536x5120 8
model.layers.3-92.mlp.gate.e_score_correction_bias 160 f
model.layers.3-92.mlp.gate.weight 160x5120 b
model.layers.3-92.mlp.shared_experts.down_proj.weight= 5120x1536 8
model.layers.3-92.mlp.shared_experts.gate_proj.weight= 1536x5120 8
model.layers.3-92.mlp.shared_experts.up_proj.weight= 1536x5120 8
model.layers.92.eh_proj.weight 5120x10240 b
model.layers.92.embed_tokens.weight 151552x5120 b
model.layers.92.enorm.weight 5120 b
model.layers.92.hnorm.weight 5120 b
model.layers.92.shared_head.head.weight= 151552x5120 8
model.layers.92.shared_head.norm.weight 5120 b
model.norm.weight 5120 b
"""


def _delta(path: str, count: int, linear: str, attention: str, mlp: str) -> str:
    """Qwen's delta net in three of four layers, attention in the fourth, the same MLP in all."""
    layers = [
        *(linear.replace("@", f"{path}{first}-{count - 4 + first}/4").strip() for first in range(3)),
        attention.replace("@", f"{path}3-{count - 1}/4").strip(),
        mlp.replace("@", f"{path}0-{count - 1}").strip(),
    ]
    return "\n".join(layers)


_QWEN_ATTENTION = """
@.self_attn.k_norm.weight 256 b
@.self_attn.k_proj.weight 512x2048 b
@.self_attn.o_proj.weight 2048x4096 b
@.self_attn.q_norm.weight 256 b
@.self_attn.q_proj.weight 8192x2048 b
@.self_attn.v_proj.weight 512x2048 b
"""
_QWEN_LINEAR = """
@.linear_attn.A_log 32 b
@.linear_attn.conv1d.weight 8192x1x4 b
@.linear_attn.dt_bias 32 b
@.linear_attn.norm.weight 128 b
@.linear_attn.out_proj.weight 2048x4096 b
"""
_QWEN_SHARED = """
@.input_layernorm.weight 2048 b
@.mlp.shared_expert.down_proj.weight 2048x512 b
@.mlp.shared_expert.gate_proj.weight 512x2048 b
@.mlp.shared_expert.up_proj.weight 512x2048 b
@.mlp.shared_expert_gate.weight 1x2048 b
@.post_attention_layernorm.weight 2048 b
"""
_QWEN_MTP = """
mtp.fc.weight 2048x4096 b
mtp.norm.weight 2048 b
mtp.pre_fc_norm_embedding.weight 2048 b
mtp.pre_fc_norm_hidden.weight 2048 b
"""

_NEXT_JOINED = "@.linear_attn.in_proj_ba.weight 64x2048 b\n@.linear_attn.in_proj_qkvz.weight 12288x2048 b\n"
_NEXT_MLP = f"""{_QWEN_SHARED.strip()}
@.mlp.experts.0-511.down_proj.weight 2048x512 b
@.mlp.experts.0-511.gate_proj.weight 512x2048 b
@.mlp.experts.0-511.up_proj.weight 512x2048 b
@.mlp.gate.weight 512x2048 b
"""
QWEN3_NEXT = f"""
lm_head.weight 151936x2048 b
model.embed_tokens.weight 151936x2048 b
model.norm.weight 2048 b
{_delta("model.layers.", 48, _QWEN_LINEAR + _NEXT_JOINED, _QWEN_ATTENTION, _NEXT_MLP)}
{(_QWEN_ATTENTION + _NEXT_MLP.strip()).replace("@", "mtp.layers.0").strip()}
{_QWEN_MTP.strip()}
"""

_QWEN35_APART = """
@.linear_attn.in_proj_a.weight 32x2048 b
@.linear_attn.in_proj_b.weight 32x2048 b
@.linear_attn.in_proj_qkv.weight 8192x2048 b
@.linear_attn.in_proj_z.weight 4096x2048 b
"""
_QWEN35_MLP = f"""{_QWEN_SHARED.strip()}
@.mlp.experts.down_proj 256x2048x512 b
@.mlp.experts.gate_up_proj 256x1024x2048 b
@.mlp.gate.weight 256x2048 b
"""
_QWEN_VISION = """
model.visual.blocks.0-26.attn.proj.bias 1152 b
model.visual.blocks.0-26.attn.proj.weight 1152x1152 b
model.visual.blocks.0-26.attn.qkv.bias 3456 b
model.visual.blocks.0-26.attn.qkv.weight 3456x1152 b
model.visual.blocks.0-26.mlp.linear_fc1.bias 4304 b
model.visual.blocks.0-26.mlp.linear_fc1.weight 4304x1152 b
model.visual.blocks.0-26.mlp.linear_fc2.bias 1152 b
model.visual.blocks.0-26.mlp.linear_fc2.weight 1152x4304 b
model.visual.blocks.0-26.norm1.bias 1152 b
model.visual.blocks.0-26.norm1.weight 1152 b
model.visual.blocks.0-26.norm2.bias 1152 b
model.visual.blocks.0-26.norm2.weight 1152 b
model.visual.merger.linear_fc1.bias 4608 b
model.visual.merger.linear_fc1.weight 4608x4608 b
model.visual.merger.linear_fc2.bias 2048 b
model.visual.merger.linear_fc2.weight 2048x4608 b
model.visual.merger.norm.bias 1152 b
model.visual.merger.norm.weight 1152 b
model.visual.patch_embed.proj.bias 1152 b
model.visual.patch_embed.proj.weight 1152x3x2x16x16 b
model.visual.pos_embed.weight 2304x1152 b
"""
QWEN36 = f"""
lm_head.weight 248320x2048 b
model.language_model.embed_tokens.weight 248320x2048 b
model.language_model.norm.weight 2048 b
{_delta("model.language_model.layers.", 40, _QWEN_LINEAR + _QWEN35_APART.strip(), _QWEN_ATTENTION, _QWEN35_MLP)}
{_QWEN_VISION.strip()}
{(_QWEN_ATTENTION + _QWEN35_MLP.strip()).replace("@", "mtp.layers.0").strip()}
{_QWEN_MTP.strip()}
"""

QWEN3_VL = f"""
lm_head.weight 151936x2048 b
model.language_model.embed_tokens.weight 151936x2048 b
model.language_model.layers.0-47.input_layernorm.weight 2048 b
model.language_model.layers.0-47.mlp.experts.down_proj 128x768x2048 b
model.language_model.layers.0-47.mlp.experts.gate_up_proj 128x2048x1536 b
model.language_model.layers.0-47.mlp.gate.weight 128x2048 b
model.language_model.layers.0-47.post_attention_layernorm.weight 2048 b
model.language_model.layers.0-47.self_attn.k_norm.weight 128 b
model.language_model.layers.0-47.self_attn.k_proj.weight 512x2048 b
model.language_model.layers.0-47.self_attn.o_proj.weight 2048x4096 b
model.language_model.layers.0-47.self_attn.q_norm.weight 128 b
model.language_model.layers.0-47.self_attn.q_proj.weight 4096x2048 b
model.language_model.layers.0-47.self_attn.v_proj.weight 512x2048 b
model.language_model.norm.weight 2048 b
{_QWEN_VISION.strip()}
model.visual.deepstack_merger_list.0-2.linear_fc1.bias 4608 b
model.visual.deepstack_merger_list.0-2.linear_fc1.weight 4608x4608 b
model.visual.deepstack_merger_list.0-2.linear_fc2.bias 2048 b
model.visual.deepstack_merger_list.0-2.linear_fc2.weight 2048x4608 b
model.visual.deepstack_merger_list.0-2.norm.bias 4608 b
model.visual.deepstack_merger_list.0-2.norm.weight 4608 b
"""


def _int4(line: str) -> str:
    """A routed expert's line as compressed-tensors packs it: eight numbers in an int32, a scale for 32."""
    name, shape, _ = line.split()
    rows, columns = map(int, shape.split("x"))
    packed = f"{name}_packed {rows}x{columns // 8} w\n{name}_scale {rows}x{columns // 32} b"
    return f"{packed}\n{name}_shape 2 w"


KIMI_K26_TEXT = _deepseek(60, 1, 64, 384, 163840, dense_from="0").replace("*", "").replace(" 8\n", " b\n")
KIMI_K26 = (
    "\n".join(
        f"language_model.{part}"
        for line in KIMI_K26_TEXT.strip().splitlines()
        for part in (_int4(line) if ".experts." in line else line).splitlines()
    )
    + """
mm_projector.pre_norm.bias 1152 b
mm_projector.pre_norm.weight 1152 b
mm_projector.proj.0.bias 4608 b
mm_projector.proj.0.weight 4608x4608 b
mm_projector.proj.2.bias 7168 b
mm_projector.proj.2.weight 7168x4608 b
vision_tower.encoder.blocks.0-26.mlp.fc0.bias 4304 b
vision_tower.encoder.blocks.0-26.mlp.fc0.weight 4304x1152 b
vision_tower.encoder.blocks.0-26.mlp.fc1.bias 1152 b
vision_tower.encoder.blocks.0-26.mlp.fc1.weight 1152x4304 b
vision_tower.encoder.blocks.0-26.norm0.bias 1152 b
vision_tower.encoder.blocks.0-26.norm0.weight 1152 b
vision_tower.encoder.blocks.0-26.norm1.bias 1152 b
vision_tower.encoder.blocks.0-26.norm1.weight 1152 b
vision_tower.encoder.blocks.0-26.wo.bias 1152 b
vision_tower.encoder.blocks.0-26.wo.weight 1152x1152 b
vision_tower.encoder.blocks.0-26.wqkv.bias 3456 b
vision_tower.encoder.blocks.0-26.wqkv.weight 3456x1152 b
vision_tower.encoder.final_layernorm.bias 1152 b
vision_tower.encoder.final_layernorm.weight 1152 b
vision_tower.patch_embed.pos_emb.weight 64x64x1152 b
vision_tower.patch_embed.proj.bias 1152 b
vision_tower.patch_embed.proj.weight 1152x3x14x14 b
"""
)

_M3_VISION = "vision_tower.vision_model."
_M3_BLOCK = f"{_M3_VISION}encoder.layers.0-31."
MINIMAX_M3 = f"""
language_model.lm_head.weight 200064x6144 b
language_model.model.embed_tokens.weight 200064x6144 b
language_model.model.layers.0-2.mlp.down_proj.weight 6144x12288 b
language_model.model.layers.0-2.mlp.gate_proj.weight 12288x6144 b
language_model.model.layers.0-2.mlp.up_proj.weight 12288x6144 b
language_model.model.layers.0-59.input_layernorm.weight 6144 b
language_model.model.layers.0-59.post_attention_layernorm.weight 6144 b
language_model.model.layers.0-59.self_attn.k_norm.weight 128 b
language_model.model.layers.0-59.self_attn.k_proj.weight 512x6144 b
language_model.model.layers.0-59.self_attn.o_proj.weight 6144x8192 b
language_model.model.layers.0-59.self_attn.q_norm.weight 128 b
language_model.model.layers.0-59.self_attn.q_proj.weight 8192x6144 b
language_model.model.layers.0-59.self_attn.v_proj.weight 512x6144 b
language_model.model.layers.3-59.block_sparse_moe.e_score_correction_bias 128 f
language_model.model.layers.3-59.block_sparse_moe.experts.0-127.w1.weight 3072x6144 b
language_model.model.layers.3-59.block_sparse_moe.experts.0-127.w2.weight 6144x3072 b
language_model.model.layers.3-59.block_sparse_moe.experts.0-127.w3.weight 3072x6144 b
language_model.model.layers.3-59.block_sparse_moe.gate.weight 128x6144 f
language_model.model.layers.3-59.block_sparse_moe.shared_experts.down_proj.weight 6144x3072 b
language_model.model.layers.3-59.block_sparse_moe.shared_experts.gate_proj.weight 3072x6144 b
language_model.model.layers.3-59.block_sparse_moe.shared_experts.up_proj.weight 3072x6144 b
language_model.model.layers.3-59.self_attn.index_k_norm.weight 128 b
language_model.model.layers.3-59.self_attn.index_k_proj.weight 128x6144 b
language_model.model.layers.3-59.self_attn.index_q_norm.weight 128 b
language_model.model.layers.3-59.self_attn.index_q_proj.weight 512x6144 b
language_model.model.norm.weight 6144 b
multi_modal_projector.linear_1.bias 6144 b
multi_modal_projector.linear_1.weight 6144x1280 b
multi_modal_projector.linear_2.bias 6144 b
multi_modal_projector.linear_2.weight 6144x6144 b
patch_merge_mlp.linear_1.bias 6144 b
patch_merge_mlp.linear_1.weight 6144x24576 b
patch_merge_mlp.linear_2.bias 6144 b
patch_merge_mlp.linear_2.weight 6144x6144 b
{_M3_VISION}embeddings.patch_embedding.weight 1280x3x2x14x14 f
{_M3_BLOCK}layer_norm1.bias 1280 b
{_M3_BLOCK}layer_norm1.weight 1280 b
{_M3_BLOCK}layer_norm2.bias 1280 b
{_M3_BLOCK}layer_norm2.weight 1280 b
{_M3_BLOCK}mlp.fc1.bias 5120 b
{_M3_BLOCK}mlp.fc1.weight 5120x1280 b
{_M3_BLOCK}mlp.fc2.bias 1280 b
{_M3_BLOCK}mlp.fc2.weight 1280x5120 b
{_M3_BLOCK}self_attn.k_proj.bias 1280 b
{_M3_BLOCK}self_attn.k_proj.weight 1280x1280 b
{_M3_BLOCK}self_attn.out_proj.bias 1280 b
{_M3_BLOCK}self_attn.out_proj.weight 1280x1280 b
{_M3_BLOCK}self_attn.q_proj.bias 1280 b
{_M3_BLOCK}self_attn.q_proj.weight 1280x1280 b
{_M3_BLOCK}self_attn.v_proj.bias 1280 b
{_M3_BLOCK}self_attn.v_proj.weight 1280x1280 b
{_M3_VISION}pre_layrnorm.bias 1280 b
{_M3_VISION}pre_layrnorm.weight 1280 b
"""
GPT_OSS_20B = """
lm_head.weight 201088x2880 b
model.embed_tokens.weight 201088x2880 b
model.layers.0-23.input_layernorm.weight 2880 b
model.layers.0-23.mlp.experts.down_proj_bias 32x2880 b
model.layers.0-23.mlp.experts.down_proj_blocks 32x2880x90x16 u
model.layers.0-23.mlp.experts.down_proj_scales 32x2880x90 u
model.layers.0-23.mlp.experts.gate_up_proj_bias 32x5760 b
model.layers.0-23.mlp.experts.gate_up_proj_blocks 32x5760x90x16 u
model.layers.0-23.mlp.experts.gate_up_proj_scales 32x5760x90 u
model.layers.0-23.mlp.router.bias 32 b
model.layers.0-23.mlp.router.weight 32x2880 b
model.layers.0-23.post_attention_layernorm.weight 2880 b
model.layers.0-23.self_attn.k_proj.bias 512 b
model.layers.0-23.self_attn.k_proj.weight 512x2880 b
model.layers.0-23.self_attn.o_proj.bias 2880 b
model.layers.0-23.self_attn.o_proj.weight 2880x4096 b
model.layers.0-23.self_attn.q_proj.bias 4096 b
model.layers.0-23.self_attn.q_proj.weight 4096x2880 b
model.layers.0-23.self_attn.sinks 64 b
model.layers.0-23.self_attn.v_proj.bias 512 b
model.layers.0-23.self_attn.v_proj.weight 512x2880 b
model.norm.weight 2880 b
"""
_FROM_THE_FOURTH = [0] * 3 + [1] * 57
MINIMAX_M3_CONFIG: Config = {
    "model_type": "minimax_m3_vl",
    "text_config": {
        "hidden_size": 6144,
        "intermediate_size": 3072,
        "num_hidden_layers": 60,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 200064,
        "max_position_embeddings": 1048576,
        "tie_word_embeddings": False,
        "dense_intermediate_size": 12288,
        "shared_intermediate_size": 3072,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "n_shared_experts": 1,
        "moe_layer_freq": _FROM_THE_FOURTH,
        "num_mtp_modules": 1,
        "swiglu_limit": 7.0,
        "sparse_attention_config": {
            "sparse_index_dim": 128,
            "sparse_num_index_heads": 4,
            "sparse_topk_blocks": 16,
            "sparse_block_size": 128,
            "sparse_attention_freq": _FROM_THE_FOURTH,
        },
    },
}


def _beside_a_tower(whole: str, name: str, **more: str | int) -> Config:
    return {"model_type": whole, "text_config": CONFIGS[name] | more, "tie_word_embeddings": False}


_KIMI_BUFFERS = "model.layers.0-60.self_attn.rotary_emb.inv_freq 56 b\n"

PUBLISHED = {
    "GLM-5": Published("GLM-5.1", 59_870, GLM_5),
    "GLM-5.2": Published("GLM-5.2", 59_585, GLM_52, 753_329_940_480),
    "GLM-4.5-FP8": Published("GLM-4.7", 88_543, GLM_45_ROWS, 358_458_543_424),
    "GLM-4.7-Flash": Published("GLM-4.7-Flash", 9_703, GLM_47_FLASH),
    "Qwen3-Next-80B-A3B": Published("Qwen3-Next-80B-A3B", 75_944, QWEN3_NEXT, 81_324_862_720),
    "Qwen3.6-35B-A3B": Published(
        _beside_a_tower("qwen3_5_moe", "Qwen3.5-35B-A3B-text", mtp_num_hidden_layers=1), 1_045, QWEN36, 35_951_822_704
    ),
    "Qwen3-VL-30B-A3B": Published(
        _beside_a_tower("qwen3_vl_moe", "Qwen3-30B-A3B", model_type="qwen3_vl_moe_text"), 882, QWEN3_VL, 31_070_754_032
    ),
    "Kimi-K2.6": Published(_beside_a_tower("kimi_k25", "Kimi-K2-BF16"), 208_550, KIMI_K26, 170_738_182_128),
    "MiniMax-M3": Published(MINIMAX_M3_CONFIG, 23_416, MINIMAX_M3, 427_040_140_160),
    "gpt-oss-20b": Published("gpt-oss-20b", 459, GPT_OSS_20B, 11_956_805_184),
    "DeepSeek-R1": Published("DeepSeek-V3", 91_991, _deepseek(61, 3, 128, 256, 129280, more=_deepseek_mtp("b"))),
    "DeepSeek-V3.2": Published(
        "DeepSeek-V3.2", 92_425, _deepseek(61, 3, 128, 256, 129280, "f", _deepseek_mtp("f") + _INDEXER)
    ),
    "Kimi-K2": Published(
        "Kimi-K2-Instruct", 139_644, _deepseek(60, 1, 64, 384, 163840, more=_KIMI_BUFFERS, dense_from="0")
    ),
    "MiniMax-M2": Published("MiniMax-M2.5", 96_103, MINIMAX),
    "Qwen3-30B-A3B": Published("Qwen3-30B-A3B", 18_867, _qwen3("", "b")),
    "Qwen3-30B-A3B-FP8": Published("Qwen3-30B-A3B", 37_491, _qwen3("*", "8b")),
    "Mixtral-8x7B": Published("Mixtral-8x7B-v0.1", 995, MIXTRAL),
    "DeepSeek-V4-Flash": Published("DeepSeek-V4-Flash", 69_187, DEEPSEEK_V4),
    "GLM-4.5-Air": Published("GLM-4.5-Air", 18_329, GLM_45_AIR),
}
"""V3.2's total, GLM-4.5-Air's and Mixtral's are those of the lines themselves; the others are the reports'."""
