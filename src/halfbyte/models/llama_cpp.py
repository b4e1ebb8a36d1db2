"""What llama.cpp makes of a model family: the frame, and the hyperparameters that several families share.

Read in llama.cpp (the copy in llama-cpp-python 0.3.36; the prebuilt xllamacpp 2026.10 behaves alike, see
tests/export/test_llamacpp.py). What matters most is `scaled`: NVFP4 needs its per-tensor `.scale` multiplied in by the
model's graph, and a graph that does not know of it runs without a word and computes nonsense. So only those roles are
exported as NVFP4 whose scale the graph applies.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config
from halfbyte.models.reading import rope_parameters
from halfbyte.models.roles import Role

MLPS = frozenset({Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP})

Key = tuple[str, Any]
"""A hyperparameter and its value. Named as gguf's `GGUFWriter.add_...`, which knows llama.cpp's keys and types."""


Change = Literal["", "one more", "minus exp"]
"""What is done to each number, in float32: nothing, 1 added, or the negated exponential taken."""


@dataclass(frozen=True)
class Written:
    """One tensor of the GGUF, made of one of the checkpoint's, where that is not the plain case.

    key: the module by whose name gguf's table finds it; a name that begins with `blk.` is llama.cpp's own. ending:
    what follows. rows, columns: those of the checkpoint's tensor that it holds, in its order; all where there are
    none. shape: what it is seen as, where that differs. widened: float32 though its like is not.
    """

    key: str
    ending: str = ".weight"
    rows: tuple[range, ...] = ()
    columns: tuple[range, ...] = ()
    change: Change = ""
    shape: tuple[int, ...] = ()
    widened: bool = False


def as_it_is(_: Architecture, __: str, ___: int | None) -> Iterator[Written]:
    """No tensor is written otherwise than it is stored."""
    return iter(())


def nothing_more(_: Config, __: Architecture) -> Iterator[tuple[str, list[float]]]:
    """No tensor is made of config.json."""
    return iter(())


@dataclass(frozen=True)
class LlamaCpp:
    """One model family in llama.cpp.

    name: `general.architecture`. names: member of `gguf.MODEL_ARCH` whose tensor names it uses (gguf 0.19 lacks
    deepseek32, whose tensors are those of glm-dsa). keys: hyperparameters beside those of every family, in the order
    in which they are written; raises UnsupportedError for what the architecture cannot express. mtp: whether
    multi-token-prediction layers are loaded; where they are not, their tensors are left out. scaled: roles that may be
    NVFP4. rope_pairs: rows of q_proj and k_proj are stored with rotary pairs side by side. vocabulary: "gpt2"
    (byte-level BPE), "tiktoken" (the same from `tiktoken.model`), "llama" (SentencePiece) or "characters" (a
    BPE of those, which llama.cpp calls by the architecture's name). splitting: the regular
    expressions of its tokenizer -> llama.cpp's name of the rule (llama-vocab.cpp). specials: tokens whose use
    tokenizer_config.json does not state. written: what a tensor becomes, by its name in the text model alone and its
    layer; nothing for one that stays as it is under gguf's name. usual: its config.json in the keys that most have.
    beside_towers: the converter takes the text model out of a checkpoint with other towers. interleaved: outputs of a
    stack `gate_up_proj` are gate and up in turn. made: float32 vectors that the converter makes of config.json, by
    name. shown: special tokens that llama.cpp writes out all the same, for its parser of answers to read.
    """

    name: str
    names: str
    keys: Callable[[Config, Architecture], Iterator[Key]]
    mtp: bool = False
    scaled: frozenset[Role] = frozenset()
    rope_pairs: bool = False
    vocabulary: str = "gpt2"
    splitting: Mapping[tuple[str, ...], str] = field(default_factory=dict)
    specials: Mapping[str, str] = field(default_factory=dict)
    written: Callable[[Architecture, str, int | None], Iterator[Written]] = as_it_is
    usual: Callable[[Config], Config] = dict
    beside_towers: bool = False
    interleaved: bool = False
    made: Callable[[Config, Architecture], Iterator[tuple[str, list[float]]]] = nothing_more
    shown: frozenset[str] = frozenset()


def need(config: Config, key: str) -> Any:
    if config.get(key) is None:
        raise CheckpointError(f"config.json has no {key}, which llama.cpp needs")
    return config[key]


def routers_normalise(config: Config) -> None:
    """Raises UnsupportedError for a model that leaves its experts' weights as they are; some graphs never do."""
    if config.get("norm_topk_prob") is False:
        raise UnsupportedError("config.json: norm_topk_prob is false, but llama.cpp normalises the experts' weights")


def leading_dense(arch: Architecture) -> int:
    """Number of dense layers, which llama.cpp assumes to come first."""
    if arch.dense != frozenset(range(len(arch.dense))):
        raise UnsupportedError(f"dense layers {sorted(arch.dense)[:8]}: llama.cpp wants them before all others")
    return len(arch.dense)


def latent_keys(config: Config, arch: Architecture) -> Iterator[Key]:
    """Latent attention and DeepSeek's experts. llama.cpp runs MLA as one key-value head of the latent."""
    assert arch.mla is not None
    rank, rope = arch.mla.kv_rank, arch.mla.rope
    yield "leading_dense_block_count", leading_dense(arch)
    yield "vocab_size", arch.vocab
    if arch.mla.q_rank:
        yield "q_lora_rank", arch.mla.q_rank
    yield "kv_lora_rank", rank
    yield "key_length", rank + rope
    yield "value_length", rank
    yield "key_length_mla", arch.mla.nope + rope
    yield "value_length_mla", arch.mla.value
    yield "expert_feed_forward_length", arch.expert_width
    yield "expert_shared_count", config.get("n_shared_experts") or 0
    if config.get("routed_scaling_factor") is not None:
        yield "expert_weights_scale", config["routed_scaling_factor"]
    if config.get("norm_topk_prob"):
        yield "expert_weights_norm", True
    yield "rope_dimension_count", rope
    mscale = rope_parameters(config).get("mscale_all_dim")
    if mscale is not None:
        yield "rope_scaling_yarn_log_mul", 0.1 * mscale  # the loader divides by 0.1 again


def indexer_keys(config: Config, arch: Architecture) -> Iterator[Key]:
    """Latent attention with an indexer."""
    assert arch.indexer is not None
    yield from latent_keys(config, arch)
    yield from mtp_keys(config, arch)
    yield "indexer_head_count", arch.indexer.heads
    yield "indexer_key_length", arch.indexer.width
    yield "indexer_top_k", arch.indexer.top_k


def mtp_keys(config: Config, arch: Architecture) -> Iterator[Key]:
    if config.get("num_nextn_predict_layers") is not None:
        yield "nextn_predict_layers", arch.mtp_announced
