"""Installing changes behaviour only, can be undone, and refuses what would silently be wrong."""

from typing import Any

import pytest

from halfbyte.errors import UnsupportedError, UsageError
from halfbyte.modules import attention
from halfbyte.modules.attention import AttentionOptions, install, uninstall

from .models import eager_and_ours, in_chunks, small, tokens, torch, transformers


def test_exported_names() -> None:
    assert attention.__all__ == ["AttentionOptions", "LatentCache", "install", "sparse_attention", "uninstall"]


def test_weights_config_and_saved_files_stay_as_they_are(tmp_path: Any) -> None:
    model = small()
    before, config = dict(model.state_dict()), model.config.to_dict()
    install(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(after[name] is before[name] or torch.equal(after[name], before[name]) for name in before)
    assert model.config.to_dict() == config
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_uninstall_brings_the_library_back() -> None:
    model, ids = small(), tokens(1, 30)
    with torch.no_grad():
        before = model(ids).logits
        install(model)
        install(model, AttentionOptions(query_chunk=3))
        uninstall(model)
        uninstall(model)
        assert torch.equal(model(ids).logits, before)
    assert not model.model._forward_pre_hooks


def test_nothing_is_changed_for_other_models_of_the_process() -> None:
    one, other = small(), small()
    install(one)
    with torch.no_grad():
        assert type(other(tokens(1, 5), use_cache=True).past_key_values.layers[0]).__name__ == "DynamicIndexedLayer"


@pytest.mark.parametrize("sizes", [[50], [20, 30], [44] + [1] * 6])
def test_deepseek_v32_too(sizes: list[int]) -> None:
    """Same attention, other rotary embedding in the indexer, every layer selects."""
    model, ids = small("deepseek_v32"), tokens(2, 50)
    expected, ours = eager_and_ours(model, lambda m: in_chunks(m, ids, sizes), AttentionOptions(dense_factor=1))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_other_models_are_refused_by_name() -> None:
    config = transformers.AutoConfig.for_model(
        "llama", hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=8
    )
    with pytest.raises(UnsupportedError, match="'llama'"):
        install(transformers.AutoModelForCausalLM.from_config(config))


def test_attention_without_the_needed_parts_is_refused_by_layer() -> None:
    model = small()
    del model.model.layers[2].self_attn.q_a_proj
    with pytest.raises(UnsupportedError, match="layer 2 has no q_a_proj"):
        install(model)
    model = small()
    packed = torch.nn.Parameter(torch.zeros(88, 10, dtype=torch.uint8), requires_grad=False)
    model.model.layers[1].self_attn.kv_b_proj.weight = packed
    with pytest.raises(UnsupportedError, match=r"layer 1 has a packed kv_b_proj.*\[88, 20\]"):
        install(model)
    assert not model.model._forward_pre_hooks


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (UnsupportedError, "2-D attention_mask", {"attention_mask": torch.zeros(1, 1, 6, 6)}),
        (UnsupportedError, "no attention weights", {"output_attentions": True}),
        (UnsupportedError, "packed", {"position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]]), "use_cache": False}),
        (UsageError, "covers 9 tokens", {"attention_mask": torch.ones(1, 9), "use_cache": False}),
    ],
)
def test_refusals(error: type[Exception], message: str, arguments: dict[str, Any]) -> None:
    model = small()
    install(model)
    with torch.no_grad(), pytest.raises(error, match=message):
        model(tokens(1, 6), **arguments)


def test_training_is_refused() -> None:
    model = small()
    install(model)
    with pytest.raises(UsageError, match="no backward"):
        model(tokens(1, 6))


@pytest.mark.parametrize(
    "settings", [{"scratch_bytes": 0}, {"query_chunk": -1}, {"key_chunk": 0}, {"dense_factor": 0.5}]
)
def test_bad_options(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        AttentionOptions(**settings)
