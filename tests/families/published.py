"""The tensors of published checkpoints as listed in public reports of their headers: names, shapes, dtypes; no weights.

A line is `name shape dtype`; `A-B` in a name stands for each number from A to B, `A-B/2` for every second. b, f, 8, i,
q: BF16, F32, F8_E4M3, I8, I64. What is listed as `name*` also has the block scales of FP8 beside it
(`weight_scale_inv`, one for 128 x 128; float32, or bf16 where the line ends in `8b`); as `name+` DeepSeek-V4's
(`scale`, F8_E8M0; of I8 one for 32 numbers, which are 16 bytes).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

DTYPES = {"b": "BF16", "f": "F32", "8": "F8_E4M3", "i": "I8", "q": "I64"}
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
        yield Line(name.rstrip("*+"), sides, DTYPES[dtype[0]])
        if name.endswith("+"):
            scales = (sides[0], sides[1] // 16) if dtype == "i" else (ceil(sides[0] / 128), ceil(sides[1] / 128))
            yield Line(f"{name.removesuffix('weight+')}scale", scales, "F8_E8M0")
        if name.endswith("*"):
            blocks = (ceil(sides[0] / 128), ceil(sides[1] / 128))
            yield Line(name[:-1] + "_scale_inv", blocks, "BF16" if dtype == "8b" else "F32")


@dataclass(frozen=True)
class Published:
    """config: key of `configs.CONFIGS`. tensors: how many the report counts."""

    config: str
    tensors: int
    text: str


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

_KIMI_BUFFERS = "model.layers.0-60.self_attn.rotary_emb.inv_freq 56 b\n"

PUBLISHED = {
    "GLM-5": Published("GLM-5.1", 59_870, GLM_5),
    "GLM-4.7-Flash": Published("GLM-4.7-Flash", 9_703, GLM_47_FLASH),
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
