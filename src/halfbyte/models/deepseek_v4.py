"""DeepSeek-V4: attention to a window and to compressed keys, by turns with an indexer and without; four residual
streams; experts in every layer, those of the first layers chosen by a token's number. Names, and storage, of its own.

Published with FP8 tiles, experts in MXFP4 (of the base models in FP8), and one MTP layer at ratio 0, or with three that
draft together (DSpark). Sources: transformers 5.23 `models/deepseek_v4` (whose defaults are V4-Flash's) and its
conversion mapping; vLLM at 0101ca2, models/deepseek_v4; the tensor list and config.json of DeepSeek-V4-Flash and the
counts and bytes of V4-Flash-0731, whose 69,187 and 72,317 tensors are all those below.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.formats.catalogue import FP8_BLOCK_POWERS, MXFP4_WEIGHT, NVFP4
from halfbyte.models import blocks, reading
from halfbyte.models.architecture import Architecture, CompressedAttention, Indexer
from halfbyte.models.config_values import Config, natural, per_layer, positive
from halfbyte.models.family import Described, Family, Known, Mixture, Support, Wrapping
from halfbyte.models.roles import GLU, Role

SPARSE, HEAVY = "compressed_sparse_attention", "heavily_compressed_attention"
_WINDOW = "sliding_attention"
_RATES = {_WINDOW: 0, SPARSE: 4, HEAVY: 128}
HASH_LAYERS = 3
"""transformers `DeepseekV4Config`, where the config does not say."""


def read(config: Config) -> Architecture:
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise UnsupportedError(f"config.json: {key} is true, which is not described for deepseek_v4")
    layers, width = reading.layer_count(config), positive(config, "moe_intermediate_size")
    tapped = tapped_layers(config, layers)
    announced = tapped or reading.announced_mtp(config, "num_nextn_predict_layers")
    ratios, sparse = compression(config, layers, announced)
    sized = config | {"layer_types": [_WINDOW] * layers}
    return Architecture(
        model_type=config["model_type"],
        layers=layers,
        mtp_layers=announced,
        mtp_announced=announced,
        dense=frozenset(),
        indexers=frozenset(i for i in range(layers) if ratios[i] == sparse),
        **reading.sizes(sized, layers),
        experts=reading.expert_count(config, FAMILY.experts_key),
        expert_width=width,
        shared_width=reading.shared_width(config, width),
        dense_width=width,
        indexer=Indexer(*(positive(config, key) for key in ("index_n_heads", "index_head_dim", "index_topk"))),
        compressed=CompressedAttention(
            q_rank=positive(config, "q_lora_rank"),
            groups=positive(config, "o_groups"),
            rank=positive(config, "o_lora_rank"),
            ratios=ratios,
            sparse=sparse,
        ),
        router_bias=True,
        sinks=frozenset(range(layers + announced)),
        streams=positive(config, "hc_mult"),
        hash_routed=hash_routed(config, layers),
        tapped=tapped,
        draft_rank=positive(config, "dspark_markov_rank") if tapped else 0,
    )


def tapped_layers(config: Config, layers: int) -> int:
    """How many layers a DSpark draft reads, which has as many of its own; 0 without one."""
    stated = config.get("dspark_target_layer_ids")
    if stated is None:
        return 0
    if not isinstance(stated, list) or not stated or any(type(i) is not int or not 0 <= i < layers for i in stated):
        raise CheckpointError(f"config.json: dspark_target_layer_ids is no list of some of {layers} layers")
    return len(stated)


def compression(config: Config, layers: int, drafts: int) -> tuple[tuple[int, ...], int]:
    """Ratio of each layer, and the one of the layers with an indexer: the published `compress_ratios`, or `layer_types`
    and `compress_rates` of transformers, which does not know of MTP layers: they have none but a window."""
    stated = config.get("compress_ratios")
    if isinstance(stated, list) and config.get("layer_types") is None:
        if len(stated) < layers or any(entry not in _RATES.values() for entry in stated):
            raise CheckpointError(
                f"config.json: compress_ratios is no list of {', '.join(map(str, _RATES.values()))} for each of "
                f"{layers} layers"
            )
        return tuple([*stated, *[0] * drafts][: layers + drafts]), _RATES[SPARSE]
    rates = _RATES | {key: positive(nested, key, _RATES[key]) for nested in [_rates(config)] for key in (SPARSE, HEAVY)}
    kinds: Sequence[str] = [HEAVY if i < 2 or not i % 2 else SPARSE for i in range(layers)]
    if config.get("layer_types") is not None:
        kinds = per_layer(config, "layer_types", tuple(_RATES), layers)
    return (*(rates[kind] for kind in kinds[:layers]), *[0] * drafts), rates[SPARSE]


def _rates(config: Config) -> Config:
    stated = config.get("compress_rates")
    return stated if isinstance(stated, dict) else {}


def hash_routed(config: Config, layers: int) -> frozenset[int]:
    """By `mlp_layer_types`, or the first `num_hash_layers`."""
    if config.get("mlp_layer_types") is not None:
        kinds = per_layer(config, "mlp_layer_types", ("hash_moe", "moe"), layers)
        return frozenset(i for i in range(layers) if kinds[i] == "hash_moe")
    return frozenset(range(min(natural(config, "num_hash_layers", HASH_LAYERS), layers)))


def tensors(arch: Architecture) -> Iterator[Described]:
    yield from blocks.model(replace(arch, mtp_layers=0, mtp_announced=0), layer)
    yield from head_mixer("model.", arch)
    for number in range(arch.layers, arch.layers + arch.mtp_announced):
        beside = joint_draft(arch, number) if arch.tapped else draft(arch)
        for tensor in (*layer(arch, number), *beside):
            name = f"mtp.{number - arch.layers}.{tensor.name}"
            yield replace(tensor, name=name, also=(), layer=number, mtp=True)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    for block in ("attn", "ffn"):
        yield Described(f"{block}_norm.weight", Role.NORM, (arch.hidden,))
    for tensor in blocks.hyper_connections(arch):
        yield replace(tensor, dtype="f32")
    yield from attention(arch)
    assert arch.compressed is not None
    assert arch.indexer is not None
    if arch.compressed.ratios[number]:
        yield from compressor("attn.compressor", Role.ATTENTION, arch, number, arch.head_dim)
    if arch.compressed.ratios[number] == arch.compressed.sparse:
        heads, width = arch.indexer.heads, arch.indexer.width
        yield from compressor("attn.indexer.compressor", Role.INDEXER, arch, number, width)
        for name, shape in (("wq_b", (heads * width, arch.compressed.q_rank)), ("weights_proj", (heads, arch.hidden))):
            yield Described(f"attn.indexer.{name}.weight", Role.INDEXER, shape, name)
    yield from router(arch, number)
    yield from blocks.experts(arch, ("ffn",), ("w1", "w3", "w2"))
    for tensor in blocks.swiglu(Role.SHARED_EXPERT, "ffn.shared_experts", arch.hidden, arch.shared_width):
        yield replace(tensor, name=f"ffn.shared_experts.{_SHARED[tensor.projection]}.weight")


_SHARED: dict[str | None, str] = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def attention(arch: Architecture) -> Iterator[Described]:
    """wo_a: of each group of heads by itself, [groups x rank, width of a group]."""
    parts = arch.compressed
    assert parts is not None
    queries = arch.heads * arch.head_dim
    for name, projection, shape in (
        ("wq_a", "q_a_proj", (parts.q_rank, arch.hidden)),
        ("wq_b", "q_b_proj", (queries, parts.q_rank)),
        ("wkv", "kv_proj", (arch.head_dim, arch.hidden)),
        ("wo_a", "o_a_proj", (parts.groups * parts.rank, queries // parts.groups)),
        ("wo_b", "o_b_proj", (arch.hidden, parts.groups * parts.rank)),
        ("q_norm", "q_norm", (parts.q_rank,)),
        ("kv_norm", "kv_norm", (arch.head_dim,)),
    ):
        yield Described(f"attn.{name}.weight", Role.ATTENTION, shape, projection)
    yield Described("attn.attn_sink", Role.ATTENTION, (arch.heads,), "sinks", dtype="f32")


def compressor(path: str, role: Role, arch: Architecture, number: int, own: int) -> Iterator[Described]:
    """What makes one key `own` wide of several: values, gates, and a gate for each place among them."""
    assert arch.compressed is not None
    width = arch.compressed.width(number, own)
    for name in ("wkv", "wgate"):
        yield Described(f"{path}.{name}.weight", role, (width, arch.hidden), f"compressor_{name}")
    yield Described(f"{path}.norm.weight", role, (own,))
    yield Described(f"{path}.ape", role, (arch.compressed.ratios[number], width), dtype="f32")


def router(arch: Architecture, number: int) -> Iterator[Described]:
    yield Described("ffn.gate.weight", Role.ROUTER, (arch.experts, arch.hidden), "gate")
    if number in arch.hash_routed:
        yield Described("ffn.gate.tid2eid", Role.ROUTER, (arch.vocab, arch.top_k), dtype="i64")
    else:
        yield Described("ffn.gate.bias", Role.ROUTER, (arch.experts,), dtype="f32")


def head_mixer(path: str, arch: Architecture) -> Iterator[Described]:
    """Which makes one stream of several before the last norm."""
    streams = arch.streams
    for part, shape in (("fn", (streams, streams * arch.hidden)), ("base", (streams,)), ("scale", (1,))):
        yield Described(f"{path}hc_head_{part}", Role.HYPER_CONNECTION, shape, dtype="f32")


def draft(arch: Architecture) -> Iterator[Described]:
    """What an MTP layer has beside a decoder layer: embedding and head are the model's."""
    for name in ("e_proj", "h_proj"):
        yield Described(f"{name}.weight", Role.MTP, (arch.hidden, arch.hidden), name)
    for name in ("enorm", "hnorm", "norm"):
        yield Described(f"{name}.weight", Role.NORM, (arch.hidden,))
    yield from head_mixer("", arch)


def joint_draft(arch: Architecture, number: int) -> Iterator[Described]:
    """What the first and the last of several MTP layers that draft together have beside a decoder layer."""
    if number == arch.layers:
        shape = (arch.hidden, arch.tapped * arch.hidden)
        yield Described("main_proj.weight", Role.MTP, shape, "main_proj")
        yield Described("main_norm.weight", Role.NORM, (arch.hidden,))
    if number == arch.layers + arch.mtp_announced - 1:
        yield Described("norm.weight", Role.NORM, (arch.hidden,))
        yield from head_mixer("", arch)
        for name in ("markov_w1", "markov_w2"):
            yield Described(f"markov_head.{name}.weight", Role.MTP, (arch.vocab, arch.draft_rank), name)
        shape = (1, arch.hidden + arch.draft_rank)
        yield Described("confidence_head.proj.weight", Role.MTP, shape, "confidence_head")


MIXTURE = Mixture(
    tiles=FP8_BLOCK_POWERS,
    linears={
        Role.ATTENTION: ("q_a_proj", "q_b_proj", "kv_proj", "o_a_proj", "o_b_proj"),
        Role.INDEXER: ("wq_b",),
        Role.SHARED_EXPERT: GLU,
        Role.MTP: ("e_proj", "h_proj", "main_proj"),
    },
    drafts=(NVFP4, MXFP4_WEIGHT),
    exclusions=("*.attn.*", "*.ffn.shared_experts.*", "head", "mtp.*"),
    says={"expert_dtype": "fp4"},
    known=Known("read", "ModelOpt examples/deepseek, V4's quantize_to_nvfp4.py; vLLM deepseek_v4/quant_config.py"),
)
"""As NVIDIA publishes it: `quant_method` stays fp8, `moe_quant_algo` says how the experts are stored. SGLang reads the
experts of MTP layers as the source has them (PR 25820, `HybridFp8NvFp4Config`), vLLM as NVFP4: only its draft asks."""

FAMILY = Family(
    model_type="deepseek_v4",
    read=read,
    tensors=tensors,
    experts_key="n_routed_experts",
    needs=("routed_scaling_factor", "norm_topk_prob", "swiglu_limit", "scoring_func"),
    unwritten="its architecture there is deepseek4; "
    "how residual streams, compressors and hashed experts are written is not read",
    engines={
        "vllm": Support(
            file="deepseek_v4",
            asks_router=False,
            router_known=Known("read", "vLLM at 0101ca2, deepseek_v4/nvidia/model.py: built without quant_config"),
        ),
        "transformers": Support(since=(5, 23), since_known=Known("read", "5.23.0, models/deepseek_v4")),
    },
    named_so_alone=True,
    mxfp4_beside_fp8=True,
    mixture=MIXTURE,
    wrapping=Wrapping(
        {
            "model.layers.": "layers.",
            "model.embed_tokens.": "embed.",
            "model.norm.": "norm.",
            "model.hc_head_": "hc_head_",
            "lm_head.": "head.",
        },
        (),
    ),
)
