"""LongCat-Flash (Chat, Thinking): each layer has two latent attentions, each with a dense MLP behind it, and experts
that take what the first MLP takes and whose output joins behind the second (a shortcut). Some experts are identities
without weights: a token that goes to one adds itself, times its score. The router knows them by the last numbers.

The MTP layer has one attention and one dense MLP under `model.mtp.`, an embedding of its own, and is kept;
config.json does not count it, so it is missed where config.json says it is there. Its norms are named `enorm.m` and
`hnorm.m`.

Sources: transformers 5.23 `models/longcat_flash` (whose defaults are LongCat-Flash's); vLLM at 055e47c,
longcat_flash.py, and at 0bb55d6, longcat_flash_mtp.py, which has the names of the MTP layer; the element total of
LongCat-Flash-Chat on the model hub, which these tensors come to. The router is float32 as engines keep it
(`router_dtype` there); how it is published was not read. transformers 5.23 makes gate_proj and up_proj for the
identities too, writes them, uses them for nothing and stops where a checkpoint has none, as the published one; they are
left out (`RoleMap.is_buffer`), for engines know none.
"""

from collections.abc import Iterator
from dataclasses import replace

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, natural, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.roles import Role

BLOCKS = 2
"""Attentions, and dense MLPs, of a layer."""


def read(config: Config) -> Architecture:
    for key in ("attention_bias", "router_bias"):
        if config.get(key):
            raise UnsupportedError(f"config.json: {key} is true, which is not described for longcat_flash")
    for key in ("mla_scale_q_lora", "mla_scale_kv_lora"):
        if config.get(key) is False:
            raise UnsupportedError(f"config.json: {key} is false, and transformers scales all the same")
    if config.get("zero_expert_type", "identity") != "identity":
        stated = str(config["zero_expert_type"])[:40]
        raise UnsupportedError(f"config.json: zero_expert_type is {stated!r}, wanted 'identity'")
    layers = reading.layer_count({"num_hidden_layers": positive(config, "num_layers")})
    sizes = {
        "num_key_value_heads": positive(config, "num_attention_heads"),
        "num_experts_per_tok": positive(config, FAMILY.top_k_key),
    }
    drafts = reading.announced_mtp(config, "num_nextn_predict_layers")
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=min(drafts, 1),
        mtp_announced=1,
        dense=frozenset(),
        indexers=frozenset(),
        **reading.sizes(config | sizes, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=positive(config, "expert_ffn_hidden_size"),
        shared_width=0,
        dense_width=positive(config, "ffn_hidden_size"),
        mla=reading.mla(config),
        router_bias=True,
        mtp_dense=True,
        zero_experts=natural(config, "zero_expert_num", 0),
        attentions=BLOCKS,
    )


def tensors(arch: Architecture) -> Iterator[Described]:
    yield from blocks.model(replace(arch, mtp_layers=0, mtp_announced=0), layer)
    for tensor in mtp(arch):
        yield replace(tensor, layer=arch.layers, mtp=True, promised=tensor.promised and arch.mtp_layers > 0)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    for part in range(BLOCKS):
        for tensor in (*blocks.norms(arch), *blocks.mla(arch)):
            head, _, last = tensor.name.partition(".")
            yield replace(tensor, name=f"{head}.{part}.{last}")
        yield from blocks.swiglu(Role.DENSE_MLP, f"mlps.{part}", arch.hidden, arch.dense_width)
    choices = replace(arch, experts=arch.experts + arch.zero_experts)
    bias = ("router.e_score_correction_bias",)
    yield from blocks.router(choices, name="router.classifier", dtype="f32", bias=bias)
    yield from blocks.experts(arch)


def mtp(arch: Architecture) -> Iterator[Described]:
    hidden, first = arch.hidden, "model.mtp.layers.0"
    yield Described("model.mtp.embed_tokens.weight", Role.EMBEDDING, (arch.vocab, hidden))
    yield Described(f"{first}.eh_proj.weight", Role.MTP, (hidden, 2 * hidden), "eh_proj")
    for name in (f"{first}.enorm.m", f"{first}.hnorm.m", "model.mtp.norm"):
        yield Described(f"{name}.weight", Role.NORM, (hidden,))
    for tensor in (*blocks.norms(arch), *blocks.mla(arch)):
        yield replace(tensor, name=f"{first}.{tensor.name}")
    yield from blocks.swiglu(Role.DENSE_MLP, f"{first}.transformer_layer.mlp", hidden, arch.dense_width)


FAMILY = Family(
    model_type="longcat_flash",
    read=read,
    tensors=tensors,
    experts_key="n_routed_experts",
    top_k_key="moe_topk",
    needs=("routed_scaling_factor", "zero_expert_type", "mla_scale_q_lora", "mla_scale_kv_lora"),
    engines={
        "vllm": Support(
            file="longcat_flash",
            asks_router=False,
            router_known=Known(
                "run", "vLLM 0.26.0 on one H200; 055e47c read, longcat_flash.py: the classifier has quant_config=None"
            ),
        ),
        "sglang": Support(
            file="longcat_flash",
            asks_router=False,
            router_known=Known("read", "SGLang at 01f67c3, longcat_flash.py: the classifier has quant_config=None"),
        ),
        "transformers": Support(since=(5, 23), since_known=Known("read", "5.23.0, models/longcat_flash")),
    },
    idle_weights=True,
    unwritten="the llama.cpp that exports are held against (xllamacpp 2026.10.11549) has no architecture of it",
)
