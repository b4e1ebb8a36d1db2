"""Llama 4 (Scout, Maverick): experts in stacks, every layer's or every second's, beside a shared one; a vision tower.

A stack holds gate rows, then up rows, and its inputs run down, [E, in, out]. Scores multiply what an expert is given,
not what it gives, and are not normalised; transformers multiplies every token by every expert, those without a score by
zeros. Three of four layers attend to a chunk of tokens, with rotary embeddings and norms without weights, every fourth
to all, with neither.

In NVFP4 a stack is one tensor with one second scale and one input scale for all its experts (`formats.nvfp4.stack`).
ModelOpt calibrates a stack's input with what transformers' module is given: inputs times scores, and zeros, which raise
no amax. So what is calibrated here is input times score, of the tokens that go to an expert.

Sources: config.json of both (aiconfigurator at 095f58a, model_configs); transformers 5.23 `models/llama4`, which saves
the published names; nvidia-modelopt 0.47, `_QuantLlama4TextExperts` and its unified export (read and run). Totals of
the published safetensors are held in the tests. No engine is known to load NVFP4 stacks of the text model by itself:
vLLM maps the names of their scales in mllama4.py alone. For llama.cpp its conversion/llama4.py at 2bbcf7f,
conversion/llama.py at 0274f0f and src/models/llama4.cpp at 8a5c4e0; the splitting rule in transformers' conversion of
Llama 4 (0749750).
"""

from collections.abc import Iterator
from math import pi

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, positive
from halfbyte.models.family import Described, Family, Known, Support, Wrapping
from halfbyte.models.llama_cpp import Key, LlamaCpp, need
from halfbyte.models.roles import Role
from halfbyte.models.splitting import CAMEL


def read(config: Config) -> Architecture:
    if config.get("attention_bias"):
        raise UnsupportedError("config.json: attention_bias is true, which engines do not build for llama4")
    layers = reading.layer_count(config)
    width = positive(config, "intermediate_size")
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=0,
        mtp_announced=0,
        dense=frozenset(range(layers)) - sparse_layers(config, layers),
        indexers=frozenset(),
        **reading.sizes(config, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=width,
        dense_width=positive(config, "intermediate_size_mlp"),
    )


def sparse_layers(config: Config, layers: int) -> frozenset[int]:
    """By `interleave_moe_layer_step`, as engines go. transformers prefers the list `moe_layers`, so the two must
    agree."""
    step = positive(config, "interleave_moe_layer_step", 1)
    sparse = list(range(step - 1, layers, step))
    if config.get("moe_layers") not in (None, sparse):
        raise UnsupportedError(f"config.json: moe_layers is not every layer by interleave_moe_layer_step {step}")
    return frozenset(sparse)


def vision_bytes(config: Config, text_hidden: int) -> int:
    """BF16 bytes of tower and projector, by their matrices."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or "vision_output_dim" not in vision:
        return 0
    hidden, wide = positive(vision, "hidden_size"), positive(vision, "intermediate_size")
    layers, out = positive(vision, "num_hidden_layers"), positive(vision, "projector_output_dim")
    projector = wide * positive(vision, "projector_input_dim") + positive(vision, "projector_input_dim") * out
    projector += positive(vision, "vision_output_dim") * text_hidden
    return 2 * (layers * (4 * hidden * hidden + 2 * hidden * wide) + projector)


def tensors(arch: Architecture) -> Iterator[Described]:
    return blocks.model(arch, layer)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    yield from blocks.norms(arch)
    yield from blocks.gqa(arch)
    if arch.is_moe(number):
        yield from blocks.router(arch, ("feed_forward",), "router")
        yield from blocks.stacks(arch, "feed_forward")
        yield from blocks.swiglu(Role.SHARED_EXPERT, "feed_forward.shared_expert", arch.hidden, arch.shared_width)
    else:
        yield from blocks.swiglu(Role.DENSE_MLP, "feed_forward", arch.hidden, arch.dense_width)


FIXED = {"attention_chunk_size": 8192, "floor_scale": 8192, "attn_scale": 0.1}
"""What llama.cpp takes, whatever the file says; transformers too, where config.json is silent."""
INTERVAL = 4
"""Layers of which the last has no positions and attends to all."""
NOT_NORMED = 128
"""Experts of the one model, Maverick, whose queries and keys llama.cpp does not normalise."""


def usual(config: Config) -> Config:
    """The dense layers' width where others have theirs; what Scout's rotary embedding differs in is in `made`."""
    rope = reading.rope_parameters(config)
    if rope.get("rope_type") == "llama3":
        rope = {"rope_theta": rope.get("rope_theta")}
    dense = positive(config, "intermediate_size_mlp")
    return {**config, "intermediate_size": dense, "rope_parameters": rope, "rope_scaling": None}


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    for key, wanted in FIXED.items():
        if config.get(key, wanted) != wanted:
            raise UnsupportedError(f"config.json: {key} is {str(config[key])[:40]}, llama.cpp takes {wanted}")
    if not config.get("attn_temperature_tuning", True):
        raise UnsupportedError("config.json: attn_temperature_tuning is off, llama.cpp always scales late queries")
    turned = [int((number + 1) % INTERVAL != 0) for number in range(arch.layers)]
    interval = config.get("no_rope_layer_interval", INTERVAL)
    if (config.get("no_rope_layers") or turned) != turned or interval != INTERVAL:
        raise UnsupportedError(
            f"config.json: no_rope_layers: llama.cpp leaves positions out of every {INTERVAL}th layer"
        )
    kinds = ["chunked_attention" if one else "full_attention" for one in turned]
    if (config.get("layer_types") or kinds) != kinds:
        raise UnsupportedError(f"config.json: layer_types: in llama.cpp every {INTERVAL}th layer attends to all")
    if bool(config.get("use_qk_norm", True)) != (arch.experts != NOT_NORMED):
        raise UnsupportedError(
            f"config.json: use_qk_norm: llama.cpp normalises queries and keys of all but {NOT_NORMED} experts"
        )
    yield "interleave_moe_layer_step", positive(config, "interleave_moe_layer_step", 1)
    yield "expert_feed_forward_length", arch.expert_width
    yield "vocab_size", arch.vocab
    yield "rope_dimension_count", arch.head_dim


def made(config: Config, arch: Architecture) -> Iterator[tuple[str, list[float]]]:
    """By what the angle of each pair is divided, as transformers' rope type `llama3` has it: long waves by `factor`."""
    rope = reading.rope_parameters(config)
    if rope.get("rope_type") != "llama3":
        return
    factor, late, early = (float(need(rope, key)) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    length = float(need(rope, "original_max_position_embeddings"))
    divisors = []
    for pair in range(arch.head_dim // 2):
        wave = 2 * pi * float(need(rope, "rope_theta")) ** (2 * pair / arch.head_dim)
        if wave < length / early:
            divisors.append(1.0)
        elif wave > length / late:
            divisors.append(factor)
        else:
            smooth = (length / wave - late) / (early - late)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    yield "rope_freqs.weight", divisors


FAMILY = Family(
    "llama4",
    read,
    tensors,
    "num_local_experts",
    aliases=("llama4_text",),
    computed_as="llama4_text",
    engines={
        "vllm": Support(
            file="llama4",
            asks_router=False,
            router_known=Known("run", "vLLM 0.26.0 on one H200; 0121c95 read, llama4.py: quant_config=None"),
            stacks=True,
            stacks_known=Known(
                "run", "vLLM 0.26.0 on one H200, where Marlin then applies scores twice; from its pull request 21499 on"
            ),
        ),
        "sglang": Support(
            file="llama4",
            asks_router=False,
            router_known=Known("read", "SGLang at 003cb21, llama4.py: quant_config=None"),
            stacks=False,
            stacks_known=Known(
                "read",
                "SGLang at 0076e71, mllama4.py, _handle_expert_scale_params; its pull request 35032, open",
            ),
        ),
        "transformers": Support(since=(5, 23), since_known=Known("read", "5.23.0, models/llama4")),
    },
    vision_bytes=vision_bytes,
    only_wrapped=True,
    wrapping=Wrapping(
        {"model.": "language_model.model.", "lm_head.": "language_model.lm_head."},
        ("vision_model.", "multi_modal_projector."),
    ),
    llama_cpp=LlamaCpp(
        "llama4",
        "LLAMA4",
        keys,
        scaled=frozenset({Role.ATTENTION}),  # the graph gives its MLPs none
        splitting={CAMEL: "llama4"},
        usual=usual,
        beside_towers=True,
        made=made,
    ),
    stacked=True,
    scores_beside=True,
    scores_first=True,
)
