"""Qwen3.5 and 3.6 MoE: Qwen3-Next's layers with the delta net's input projections stored one by one, experts in every
layer, a vision tower beside the text model.

The published checkpoints keep the text model under `model.language_model.` beside `model.visual.`, lm_head and mtp at
the top; transformers saves it alone, too (`qwen3_5_moe_text`).
Sources: transformers 5.23 `models/qwen3_5_moe` (whose defaults are Qwen3.5-35B-A3B's); vLLM 0.26.0, qwen3_5.py, and for
the MTP layer's names qwen3_5_mtp.py; for llama.cpp its conversion/qwen.py at 03173d5 and src/models/qwen35moe.cpp at
02ebd8f.
"""

from collections.abc import Iterator
from dataclasses import replace

from halfbyte.errors import UnsupportedError
from halfbyte.models import blocks, qwen3_next
from halfbyte.models.architecture import Architecture
from halfbyte.models.config_values import Config, natural, positive
from halfbyte.models.family import Described, Known, Support, Wrapping
from halfbyte.models.llama_cpp import MLPS, Change, Key, LlamaCpp, Written
from halfbyte.models.reading import rope_parameters
from halfbyte.models.roles import Role
from halfbyte.models.splitting import MARKS


def read(config: Config) -> Architecture:
    """As Qwen3-Next. Every layer has experts, so no width of a dense one is stated; MTP layers are stated or absent."""
    stated = {key: value for key, value in config.items() if key not in ("mlp_only_layers", "decoder_sparse_step")}
    arch = qwen3_next.read({"intermediate_size": positive(config, "moe_intermediate_size")} | stated)
    announced = min(natural(config, "mtp_num_hidden_layers", 0), 1)
    return replace(arch, mtp_layers=announced, mtp_announced=announced)


def tensors(arch: Architecture) -> Iterator[Described]:
    yield from blocks.model(replace(arch, mtp_layers=0, mtp_announced=0), layer)
    yield from qwen3_next.mtp(arch)


def layer(arch: Architecture, number: int) -> Iterator[Described]:
    return qwen3_next.layer(arch, number, joined=False)


def vision_bytes(config: Config, text_hidden: int) -> int:
    """BF16 bytes of tower and merger, by their matrices, from the keys of `vision_config`."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict) or "depth" not in vision:
        return 0
    hidden, wide = positive(vision, "hidden_size"), positive(vision, "intermediate_size")
    merged = hidden * positive(vision, "spatial_merge_size", 2) ** 2
    merger = merged * (merged + positive(vision, "out_hidden_size", text_hidden))
    return 2 * (positive(vision, "depth") * (4 * hidden * hidden + 2 * hidden * wide) + merger)


SECTIONS = [11, 11, 10, 0]
"""Of the rotary embedding's three positions, where config.json states none. With text alone they are one position."""


def keys(config: Config, arch: Architecture) -> Iterator[Key]:
    yield from qwen3_next.keys(config, arch)
    stated = rope_parameters(config).get("mrope_section")
    check_sections(SECTIONS if stated is None else stated, arch)
    if stated is None:
        yield "rope_dimension_sections", SECTIONS
    if arch.mtp_announced:
        yield "nextn_predict_layers", arch.mtp_announced


def check_sections(sections: list[int], arch: Architecture) -> None:
    """Raises UnsupportedError for more than a head has, at which llama.cpp ends the process."""
    if sum(sections) > arch.head_dim:
        raise UnsupportedError(
            f"config.json: mrope_section {sections} is {sum(sections)} wide, a head {arch.head_dim}: llama.cpp stops"
        )


def written(arch: Architecture, name: str, number: int | None) -> Iterator[Written]:
    """As Qwen3-Next's, but heads of values go through all key heads in turn, where they are stored by key head."""
    assert arch.linear_attention is not None
    parts = arch.linear_attention
    module, _, part = name.rpartition(".")
    if module in MTP:
        change: Change = "one more" if module.endswith("norm") or "_norm_" in module else ""
        yield Written(f"blk.{number}.nextn.{MTP[module]}", change=change)
        return
    if module.startswith("mtp.layers.0."):
        module = f"model.layers.{number}.{module.removeprefix('mtp.layers.0.')}"
        yield from list(qwen3_next.written(arch, f"{module}.{part}", number)) or [Written(module, f".{part}")]
        return
    projection = module.rpartition(".")[2]
    wide = parts.value_width
    if projection in ("in_proj_qkv", "conv1d"):
        rows = (range(2 * parts.keys), *in_turn(arch, wide, 2 * parts.keys))
        shape = (parts.convolved, parts.kernel) if projection == "conv1d" else ()
        yield Written(module, rows=rows, shape=shape, widened=projection == "conv1d")
    elif projection in ("in_proj_z", "in_proj_a", "in_proj_b"):
        yield Written(module, rows=in_turn(arch, wide if projection == "in_proj_z" else 1))
    elif projection == "out_proj":
        yield Written(module, columns=in_turn(arch, wide))
    elif part in ("A_log", "dt_bias"):
        for plain in qwen3_next.written(arch, name, number):
            yield replace(plain, rows=in_turn(arch, 1))
    else:
        yield from qwen3_next.written(arch, name, number)


def in_turn(arch: Architecture, width: int, first: int = 0) -> tuple[range, ...]:
    """Rows or columns of the value heads, each `width` wide, from `first` on: the first of each key head, then the
    second of each."""
    assert arch.linear_attention is not None
    parts = arch.linear_attention
    each = parts.value_heads // parts.key_heads
    heads = [key * each + value for value in range(each) for key in range(parts.key_heads)]
    return tuple(range(first + head * width, first + (head + 1) * width) for head in heads)


MTP = {
    "mtp.fc": "eh_proj",
    "mtp.pre_fc_norm_embedding": "enorm",
    "mtp.pre_fc_norm_hidden": "hnorm",
    "mtp.norm": "shared_head_norm",
}
"""What an MTP layer has beside a decoder layer: llama.cpp's names below `nextn.`."""


_ROUTER = "qwen3_5.py: its MoE block is qwen3_next.py's, router and gate with quant_config=None"

FAMILY = qwen3_next.FAMILY.but(
    model_type="qwen3_5_moe",
    aliases=("qwen3_5_moe_text",),
    read=read,
    tensors=tensors,
    engines={
        "vllm": Support(
            file="qwen3_5",
            asks_router=False,
            router_known=Known("run", f"vLLM 0.26.0 on one H100, beside its tower (alone it has no class); {_ROUTER}"),
        ),
        "sglang": Support(
            file="qwen3_5",
            asks_router=False,
            router_known=Known(
                "read", "SGLang at 0201bc8: its MoE block is qwen2_moe.py's, router with quant_config=None"
            ),
        ),
        "transformers": Support(since=(5, 0), since_known=Known("read", "5.23.0, models/qwen3_5_moe")),
    },
    llama_cpp=LlamaCpp(
        "qwen35moe",
        "QWEN35MOE",
        keys,
        mtp=True,
        scaled=MLPS | {Role.ATTENTION},
        splitting={MARKS: "qwen35"},
        written=written,
        beside_towers=True,
    ),
    vision_bytes=vision_bytes,
    wrapping=Wrapping({"model.": "model.language_model."}, ("model.visual.",)),
)
