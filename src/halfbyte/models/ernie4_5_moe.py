"""ERNIE 4.5 (21B-A3B, 300B-A47B): grouped queries, experts in an unbroken range of layers, shared experts in one MLP,
a softmax router with a correction bias that stands beside it.

The MTP layer is a dense decoder layer under names of its own. Sources: transformers 5.23 `models/ernie4_5_moe` (whose
defaults are ERNIE-4.5-21B-A3B's) and its conversion mapping; vLLM at 0028a75, ernie45_moe.py, and at 028aedf,
ernie_mtp.py; for llama.cpp its conversion/ernie.py at 051139f and src/models/ernie4-5-moe.cpp at 75dc8f6.
"""

from collections.abc import Iterator
from dataclasses import replace

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, natural, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.llama_cpp import Key, LlamaCpp, Written
from halfbyte.models.roles import Role


def read(config: Config) -> Architecture:
    if config.get("use_bias"):
        raise UnsupportedError("config.json: use_bias is true: linears with biases are not described for ernie4_5_moe")
    layers = reading.layer_count(config)
    width = positive(config, "moe_intermediate_size")
    announced = min(reading.announced_mtp(config, "num_nextn_predict_layers"), 1)
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=announced,
        mtp_announced=announced,
        dense=dense_layers(config, layers),
        indexers=frozenset(),
        **reading.sizes(config | {"num_experts_per_tok": positive(config, "moe_k")}, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=natural(config, "moe_num_shared_experts", 0) * width,
        dense_width=positive(config, "intermediate_size"),
        router_bias=True,
        mtp_dense=True,
    )


def dense_layers(config: Config, layers: int) -> frozenset[int]:
    """Outside `moe_layer_start_index` to `moe_layer_end_index` (-1: the last), or in no `moe_layer_interval`-th one."""
    first, every = natural(config, "moe_layer_start_index", 0), positive(config, "moe_layer_interval", 1)
    last = config.get("moe_layer_end_index")
    last = layers - 1 if last in (None, -1) else natural(config, "moe_layer_end_index", 0)
    return frozenset(i for i in range(layers) if not first <= i <= last or (i + 1) % every)


def tensors(arch: Architecture) -> Iterator[Described]:
    yield from blocks.model(replace(arch, mtp_layers=0, mtp_announced=0), layer)
    if arch.mtp_announced:
        yield from mtp(arch)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch)
    if arch.is_moe(number):
        yield from blocks.router(arch, dtype="f32")
        bias = "moe_statics.e_score_correction_bias"
        yield Described(f"mlp.{bias}", Role.ROUTER, (1, arch.experts), dtype="f32", also=(f"mlp.gate.{bias}",))
        yield from blocks.experts(arch)
        yield from blocks.shared_expert(arch)
    else:
        yield from blocks.dense_mlp(arch)


def mtp(arch: Architecture) -> Iterator[Described]:
    hidden, number = arch.hidden, arch.layers
    yield Described(
        "model.mtp_linear_proj.0.weight", Role.MTP, (hidden, 2 * hidden), "mtp_linear_proj", layer=number, mtp=True
    )
    for name in ("mtp_emb_norm", "mtp_hidden_norm"):
        yield Described(f"model.{name}.0.weight", Role.NORM, (hidden,), layer=number, mtp=True)
    for tensor in (*blocks.norms(arch), *blocks.gqa(arch), *blocks.dense_mlp(arch)):
        yield replace(tensor, name=f"model.mtp_block.0.{tensor.name}", layer=number, mtp=True)


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    first, every = natural(config, "moe_layer_start_index", 0), positive(config, "moe_layer_interval", 1)
    if arch.dense != frozenset(i for i in range(arch.layers) if i < first or (i + 1) % every):
        raise UnsupportedError(
            "config.json: moe_layer_end_index: llama.cpp's ernie4_5-moe has experts to the last layer"
        )
    yield "interleave_moe_layer_step", every
    yield "leading_dense_block_count", first
    yield "expert_feed_forward_length", arch.expert_width
    yield "expert_shared_count", arch.shared_width // arch.expert_width
    if arch.shared_width:
        yield "expert_shared_feed_forward_length", arch.shared_width


def written(arch: Architecture, name: str, number: int | None) -> Iterator[Written]:
    if name.endswith(".e_score_correction_bias"):
        yield Written(f"blk.{number}.exp_probs_b", ".bias", shape=(arch.experts,))


FAMILY = Family(
    model_type="ernie4_5_moe",
    read=read,
    tensors=tensors,
    top_k_key="moe_k",
    experts_key="moe_num_experts",
    engines={
        "vllm": Support(
            file="ernie45_moe",
            asks_router=False,
            router_known=Known(
                "run", "vLLM 0.26.0 on one H100; ernie45_moe.py: the router is built with quant_config=None"
            ),
        ),
        "sglang": Support(
            file="ernie4",
            asks_router=False,
            router_known=Known("read", "SGLang at 008b79d, ernie4.py: the router is a plain parameter"),
        ),
        "transformers": Support(since=(5, 0), since_known=Known("read", "5.23.0, models/ernie4_5_moe")),
    },
    llama_cpp=LlamaCpp(
        "ernie4_5-moe",
        "ERNIE4_5_MOE",
        keys,
        scaled=frozenset({Role.ATTENTION}),
        vocabulary="llama",
        written=written,
    ),
)
