"""gpt-oss: experts in stacks with biases, attention sinks, a window in every other layer.

A stack holds gate and up interleaved, even outputs gate, odd ones up, and its inputs run down, [E, in, out]; published
in MXFP4 they run across (`formats.mxfp4`). An expert is down((up + 1) * gate * sigmoid(1.702 * gate)), gate and up
clamped to 7, which transformers' own module computes.

In NVFP4 a stack is one tensor with one second scale and one input scale for all its experts (`formats.nvfp4.stack`):
as ModelOpt writes it and SGLang loads it.

Sources: header report of gpt-oss-20b (gogongxt/python at cbff706, scripts/models/gpt_oss_20b.md), config.json of both;
transformers 5.23 `models/gpt_oss`; nvidia-modelopt 0.47, unified export of `GptOssExperts`; for llama.cpp its
conversion/gpt_oss.py at 2984e6e and src/models/openai-moe.cpp at 069be0a.
"""

from collections.abc import Iterator

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Described, Family, Known, Support
from halfbyte.models.llama_cpp import Key, LlamaCpp, Written
from halfbyte.models.roles import Role
from halfbyte.models.splitting import CAMEL

WINDOW = 128
"""transformers `GptOssConfig`, where the key is left out."""


def read(config: Config) -> Architecture:
    layers = reading.layer_count(config)
    width = positive(config, "intermediate_size")
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=0,
        dense=frozenset(),
        indexers=frozenset(),
        **reading.sizes(config, layers, ("sliding_attention", "full_attention"), WINDOW),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=0,
        dense_width=width,
        attention_bias=True,
        router_bias=True,
        expert_bias=True,
        sinks=frozenset(range(layers)),
    )


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch, sinks=True)
    yield from blocks.router(arch, name="router", bias=("router.bias",), bias_dtype="bf16")
    for stack in blocks.stacks(arch, "mlp"):
        yield stack
        yield Described(f"{stack.name}_bias", Role.ROUTED_EXPERT, (stack.shape[0], stack.shape[2]))


LIMIT = 7.0
"""At which llama.cpp clamps gate and up."""


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    if arch.sliding != frozenset(range(0, arch.layers, 2)):
        raise UnsupportedError("config.json: layer_types: llama.cpp's gpt-oss has a window in every other layer")
    if config.get("swiglu_limit", LIMIT) != LIMIT:
        raise UnsupportedError(f"config.json: swiglu_limit is {config['swiglu_limit']}, llama.cpp clamps at {LIMIT}")
    yield "sliding_window", arch.window
    yield "expert_feed_forward_length", arch.expert_width


def written(arch: Architecture, name: str, number: int | None) -> Iterator[Written]:
    part = name.rpartition(".")[2]
    if part == "sinks":
        yield Written(f"blk.{number}.attn_sinks")
    elif part == "down_proj_bias":
        yield Written(f"blk.{number}.ffn_down_exps", ".bias")
    elif part == "gate_up_proj_bias":
        for first, projection in enumerate(("gate", "up")):
            columns = (range(first, 2 * arch.expert_width, 2),)
            yield Written(f"blk.{number}.ffn_{projection}_exps", ".bias", columns=columns)


FAMILY = Family(
    "gpt_oss",
    read,
    tensors,
    "num_local_experts",
    engines={
        "vllm": Support(
            file="gpt_oss",
            asks_router=False,
            router_known=Known("read", "vLLM at 0025d69, gpt_oss.py: a plain torch linear"),
            stacks=False,
            stacks_known=Known(
                "read",
                "vLLM at a6b6cfa, gpt_oss.py, _load_weights_other: maps no scales; issue 46641, pull request 46645",
            ),
        ),
        "sglang": Support(
            file="gpt_oss",
            asks_router=False,
            router_known=Known("read", "SGLang at 009c680, gpt_oss.py: quant_config=None"),
            stacks=True,
            stacks_known=Known(
                "read",
                "SGLang's main, its test of fused NVFP4 experts, names taken from mmangkad/gpt-oss-120b-nvfp4; no "
                "release is known to, gpt_oss.py at 009c680 and e914904 does not",
            ),
        ),
        "transformers": Support(since=(5, 23), since_known=Known("read", "5.23.0, models/gpt_oss")),
    },
    llama_cpp=LlamaCpp(
        "gpt-oss",
        "GPT_OSS",
        keys,
        scaled=frozenset({Role.ATTENTION}),  # the graph gives its experts none
        splitting={CAMEL: "gpt-4o"},
        written=written,
        interleaved=True,
    ),
    stacked=True,
    scores_beside=True,
)
