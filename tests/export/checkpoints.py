"""The checkpoints whose export is compared with llama.cpp's converter: tiny-glm, and a small model of every family.

    python tests/export/checkpoints.py DIR     # writes them all, for record_llamacpp.py

Weights are seeded, tokenizers are byte-level BPE with the family's own splitting rule (SentencePiece for Mixtral), so
that every machine makes the same bytes.
"""

import base64
import json
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from families.headers import STACKED, Variant, headers_for  # noqa: E402
from small import drawn, small_config, write_checkpoint  # noqa: E402

from halfbyte.api import quantize  # noqa: E402
from halfbyte.models import BY_NAME as KNOWN  # noqa: E402

TINY = ROOT / "examples/tiny-glm"
VOCAB = 320
SIZES = {"hidden_size": 128, "intermediate_size": 192, "moe_intermediate_size": 64, "vocab_size": VOCAB}
SIZES["shared_expert_intermediate_size"] = 64
ROPE = {"rope_theta": 10000.0}
YARN: dict[str, Any] = {
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
}
MLA = {**ROPE, "num_key_value_heads": 4}
DEEPSEEK = {**MLA, **YARN, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "max_position_embeddings": 163840}
KIMI_YARN = {
    "rope_theta": 50000.0,
    "rope_scaling": {**YARN["rope_scaling"], "factor": 64.0, "beta_fast": 1.0},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "GLM-5.2": {**MLA, "max_position_embeddings": 8192},
    "DeepSeek-V3-BF16": DEEPSEEK,
    "DeepSeek-V3.2": DEEPSEEK,
    "Kimi-K2-BF16": {**MLA, **KIMI_YARN, "vocab_size": 640},
    "GLM-4.7": ROPE,
    "GLM-4.7-Flash": {**MLA, "max_position_embeddings": 8192},
    "Qwen3-30B-A3B": ROPE,
    "MiniMax-M2.5-BF16": {"intermediate_size": 64, "rotary_dim": 16},
    "Mixtral-8x7B-v0.1": {**ROPE, "head_dim": 16},
}
SETTINGS: dict[str, dict[str, Any]] = FAMILIES | {
    "Qwen3.5-35B-A3B-text": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.25,
            "mrope_section": [1, 1, 0],
        }
    },
    "MiMo-V2-Flash-BF16": {"partial_rotary_factor": 0.5, "sliding_window": 4, "sliding_window_size": 4},
    "Nemotron-3-Super-120B-A12B": {"moe_latent_size": 64, "moe_shared_expert_intermediate_size": 64},
    "Nemotron-3-Nano-30B-A3B": {"moe_shared_expert_intermediate_size": 64},
}
"""The same, and of families whose export is held against the running engine alone (test_engine.py)."""

RUNS_NVFP4 = ("GLM-5.2", "DeepSeek-V3.2", "Qwen3-30B-A3B")
"""Families whose NVFP4 llama.cpp's converter writes and llama.cpp runs. (It runs Mixtral's, but cannot write it.)"""

GLM_TOKENS = ("<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>", "<think>")
SPECIALS = {
    "deepseek_v3": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<think>"),
    "deepseek_v32": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<think>"),
    "qwen3_moe": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "minimax_m2": ("]!d~[", "]~b]", "[e~["),
}


def family_checkpoint(folder: Path, name: str, **changes: Any) -> Path:
    """A small unquantized model of the family `name`, tokenizer included. changes: of its config."""
    return checkpoint_with(folder, name, changes, {})


def checkpoint_with(folder: Path, name: str, changes: dict[str, Any], more: dict[str, np.ndarray]) -> Path:
    """more: tensors beside, or instead of, the family's own."""
    config = ROPE | small_config(name) | SIZES | SETTINGS.get(name, {}) | changes
    config = {key: value for key, value in config.items() if key in small_config(name) or key not in SIZES}
    config.pop("quantization_config", None)
    if config["model_type"] == "hunyuan_v1_moe":  # transformers reads one width for experts and shared MLP
        config["intermediate_size"] = config["moe_intermediate_size"]
    random = np.random.default_rng(7)
    headers = headers_for(config, Variant(fused=config["model_type"] in STACKED))
    tensors = {tensor: drawn(random, config, *header) for tensor, header in headers.items()}
    write_checkpoint(folder, config, tensors | more, tokenizer=False)
    known = KNOWN[config["model_type"]].llama_cpp
    vocabulary = None if known is None else known.vocabulary
    if vocabulary == "llama":
        write_sentencepiece(folder)
    elif vocabulary == "tiktoken":
        write_tiktoken(folder)
    else:
        write_tokenizer(folder, config["model_type"])
    return folder


def write_tokenizer(folder: Path, model_type: str) -> None:
    """tokenizer.json with the 256 bytes, a few merges, the family's splitting rule and its special tokens."""
    architecture = KNOWN[model_type].llama_cpp
    if architecture is not None and architecture.vocabulary == "characters":
        write_characters(folder)
        return
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    merges = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["i", "n"]]
    vocabulary = {letter: number for number, letter in enumerate(letters + ["".join(pair) for pair in merges])}
    known = (
        KNOWN[model_type].llama_cpp or KNOWN["qwen3_moe"].llama_cpp
    )  # what llama.cpp cannot run has some tokenizer too
    assert known is not None
    specials = SPECIALS.get(model_type, GLM_TOKENS)
    added = [
        {"id": len(vocabulary) + n, "content": token, "special": token != "<think>", "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for n, token in enumerate(specials)
    ]
    splits = [
        {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}
        for rule in next(iter(known.splitting))
    ]
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, bytes_]},
        "post_processor": bytes_ if model_type == "qwen3_moe" else None,
        "decoder": bytes_,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges, "fuse_unk": False, "byte_fallback": False},
    }
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": specials[0]}
    if "deepseek" in model_type:
        settings |= {"bos_token": specials[0], "eos_token": specials[1], "add_bos_token": True}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")


def write_characters(folder: Path) -> None:
    """tokenizer.json of a BPE of characters, as Gemma 4's: its special tokens, the 256 bytes, characters and merges."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool_call>", "<tool_call|>", "<|turn>"]
    merges = [["t", "h"], ["th", "e"], ["\u2581", "the"], ["\n", "\n"], ["i", "n"]]
    letters = ["\n", "\u2581", *"abcdefghijklmnoprstuvwyTé.,!"]
    texts = specials + [f"<0x{byte:02X}>" for byte in range(256)] + letters + ["".join(pair) for pair in merges]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": number, "content": text, "special": True} | flags for number, text in enumerate(specials)]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "vocab": {text: number for number, text in enumerate(texts)},
            "merges": merges,
            "fuse_unk": True,
            "byte_fallback": True,
            "unk_token": "<unk>",
        },
    }
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"unk_token": "<unk>"}))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")


def write_tiktoken(folder: Path) -> None:
    """tiktoken.model with the 256 bytes and a few longer tokens, one of them out of BPE's reach."""
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [b"th", b"the", b" the", b"in", "한".encode()[:2], "한".encode(), b"xyz"]
    lines = [base64.b64encode(token).decode() + f" {rank}" for rank, token in enumerate(tokens)]
    (folder / "tiktoken.model").write_text("\n".join(lines) + "\n")
    named = {len(tokens): "[BOS]", len(tokens) + 1: "[EOS]", len(tokens) + 2: "<|im_end|>"}
    settings = {
        "tokenizer_class": "TikTokenTokenizer",
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "added_tokens_decoder": {str(i): {"content": text, "special": True} for i, text in named.items()},
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False))
    config = json.loads((folder / "config.json").read_text())
    config |= {"bos_token_id": len(tokens), "eos_token_id": len(tokens) + 1}
    (folder / "config.json").write_text(json.dumps(config))


def write_sentencepiece(folder: Path) -> None:
    """tokenizer.model: a `ModelProto` with unk, bos, eos, the 256 bytes and three pieces."""
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    pieces += [("▁t", -0.0, 1), ("he", -1.0, 1), ("▁the", -2.0, 1)]

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    model = b"".join(
        field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind]))
        for text, score, kind in pieces
    )
    trainer = b"\x12\x03\x98\x02\x01"  # trainer_spec (field 2) { byte_fallback (field 35): true }
    (folder / "tokenizer.model").write_bytes(model + trainer)
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "add_prefix_space": True,
        "added_tokens_decoder": {
            str(n): {"content": text, "special": True} for n, (text, _, _) in enumerate(pieces[:3])
        },
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, ensure_ascii=False))
    config = json.loads((folder / "config.json").read_text()) | {"bos_token_id": 1, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))


def tiny_nvfp4(folder: Path, recipe: str = "nvfp4-routed-experts") -> Path:
    """tiny-glm in NVFP4 with the bytes of ModelOpt's own export, activation scales included (tests/golden)."""
    golden = json.loads((ROOT / "tests/golden/tiny_glm_modelopt.json").read_text())
    scales = {
        f"{module}.input_scale": float(np.array([int(entry["input_scale"], 16)], np.uint32).view(np.float32)[0])
        for module, entry in golden["modules"].items()
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    given = folder.parent / f"{folder.name}-scales.json"
    given.write_text(json.dumps(scales))
    quantize(TINY, folder, recipe=recipe, input_scale=given)
    return folder


def quantized(source: Path, folder: Path) -> Path:
    """Any checkpoint in NVFP4, with an `input_scale` that is not the 1 which GGUF leaves out."""
    quantize(source, folder, input_scale="0.0625")
    return folder


def _maker(name: str, nvfp4: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        if not nvfp4:
            return family_checkpoint(folder, name)
        return quantized(family_checkpoint(folder.with_name(folder.name + "-source"), name), folder)

    return make


CASES: dict[str, Callable[[Path], Path]] = {
    "tiny-glm": lambda folder: Path(shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("tasks", "prose"))),
    "tiny-glm-nvfp4": tiny_nvfp4,
    "tiny-glm-w4a16": lambda folder: tiny_nvfp4(folder, "nvfp4-weight-only"),
    **{name: _maker(name, nvfp4=False) for name in FAMILIES},
    **{f"{name}-nvfp4": _maker(name, nvfp4=True) for name in RUNS_NVFP4},
}
"""Every recorded case and how its checkpoint is made."""


if __name__ == "__main__":
    for case, make_case in CASES.items():
        print(make_case(Path(sys.argv[1]) / case))
