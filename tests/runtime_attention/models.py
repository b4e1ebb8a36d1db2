"""Models to compare on: tiny-glm with its learned indexer, and random ones of a few thousand weights for the rest."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from halfbyte.modules.attention import AttentionOptions, install, uninstall  # noqa: E402

TINY = Path(__file__).parents[2] / "examples/tiny-glm"
SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "head_dim": 8,
    "index_topk": 16,
    "index_n_heads": 4,
    "index_head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": None,
    "bos_token_id": None,
    "initializer_range": 0.3,
}


@cache
def tiny(dtype: Any = torch.float32) -> Any:
    """tiny-glm with transformers' eager attention."""
    return transformers.AutoModelForCausalLM.from_pretrained(TINY, dtype=dtype, attn_implementation="eager").eval()


@cache
def text(tokens: int) -> Any:
    """The first tokens of the held-out text, int64 [1, tokens]."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY)
    part = (TINY / "heldout.txt").read_text("utf-8")[: tokens * 8]
    ids = torch.tensor([tokenizer(part, add_special_tokens=False)["input_ids"][:tokens]])
    assert ids.shape[1] == tokens
    return ids


def small(model_type: str = "glm_moe_dsa", *, seed: int = 0, **changes: Any) -> Any:
    """A random model; glm_moe_dsa with layers full, full, shared, shared."""
    settings = SMALL | changes
    if model_type == "glm_moe_dsa":
        settings |= {
            "indexer_types": ["full", "full", "shared", "shared"],
            "mlp_layer_types": ["dense", "sparse", "sparse", "dense"],
        }
    config = transformers.AutoConfig.for_model(model_type, **settings)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for layer in model.model.layers:  # selection must matter: spread what the attention sees
        layer.self_attn.kv_a_layernorm.weight.data.normal_()
    return model


def tokens(batch: int, length: int, seed: int = 1) -> Any:
    """Random tokens of a small model, never its padding token."""
    return torch.randint(1, SMALL["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


def in_chunks(model: Any, ids: Any, sizes: list[int], mask: Any = None, position_ids: Any = None) -> Any:
    """Logits of prefill and decode in calls of the given sizes on one cache: [B, sum(sizes), vocabulary]."""
    parts, cache_, at = [], None, 0
    for size in sizes:
        part = slice(at, at + size)
        out = model(
            ids[:, part],
            attention_mask=None if mask is None else mask[:, : part.stop],
            position_ids=None if position_ids is None else position_ids[:, part],
            past_key_values=cache_,
            use_cache=True,
        )
        parts.append(out.logits)
        cache_, at = out.past_key_values, part.stop
    return torch.cat(parts, dim=1)


def eager_and_ours(model: Any, run: Any, options: AttentionOptions | None = None) -> tuple[Any, Any]:
    """What `run(model)` returns with transformers' eager attention and with ours."""
    with torch.no_grad():
        uninstall(model)
        expected = run(model)
        install(model, options)
        try:
            return expected, run(model)
        finally:
            uninstall(model)
