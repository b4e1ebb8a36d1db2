"""One door from config.json to a family: aliases, wrappers, families known on paper only."""

from pathlib import Path
from typing import Any

import pytest
from checkpoint.files import write_checkpoint

from halfbyte.checkpoint.inspect import inspect
from halfbyte.errors import CheckpointError, UnsupportedError
from halfbyte.models import BY_NAME, FAMILIES, architecture_of, family_of, find, promised_tensors, roles_of

from .configs import config

WRAPPED = {"model_type": "kimi_k25", "text_config": config("Kimi-K2-BF16")}


def test_an_alias_is_the_family_everywhere() -> None:
    published = config("DeepSeek-V3.2")
    renamed = published | {"model_type": "deepseek_v3_2"}
    assert architecture_of(renamed) == architecture_of(published)
    assert roles_of(renamed).family is FAMILIES["deepseek_v32"]
    assert family_of(renamed)[1]["model_type"] == "deepseek_v32"


def test_names_and_aliases_are_each_one_familys() -> None:
    names = [name for family in FAMILIES.values() for name in (family.model_type, *family.aliases)]
    assert len(names) == len(set(names)) == len(BY_NAME)
    assert find(None) is find(["glm_moe_dsa"]) is find("llama") is None


def test_a_wrapper_is_read_through() -> None:
    family, text = family_of(WRAPPED)
    assert (family.model_type, text["num_hidden_layers"]) == ("kimi_k2", 61)
    assert architecture_of(WRAPPED) == architecture_of(config("Kimi-K2-BF16"))


@pytest.mark.parametrize(
    "document",
    [
        WRAPPED | {"model_type": "qwen3_moe"},
        config("Kimi-K2-BF16") | {"model_type": "kimi_k25"},
    ],
)
def test_tensors_that_are_not_known_by_name_are_refused(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="not known by name") as caught:
        inspect(write_checkpoint(tmp_path, {"model.safetensors": ["lm_head.weight"]}, config=document))
    assert "paper" in str(caught.value.hint)


def test_more_experts_a_token_than_there_are() -> None:
    with pytest.raises(CheckpointError, match="400 experts a token, the model has 384"):
        roles_of(config("Kimi-K2-BF16") | {"num_experts_per_tok": 400})


def test_queries_that_are_not_compressed() -> None:
    """Moonlight: deepseek_v3 with q_lora_rank null has a q_proj instead of three tensors."""
    plain, direct = config("DeepSeek-V3-BF16"), config("DeepSeek-V3-BF16") | {"q_lora_rank": None}
    names = {tensor.name for tensor in promised_tensors(architecture_of(direct))}
    assert "model.layers.0.self_attn.q_proj.weight" in names
    assert not any(".q_a_" in name or ".q_b_" in name for name in names)
    assert len(promised_tensors(architecture_of(plain))) - len(names) == 2 * 62
    with pytest.raises(CheckpointError, match="q_lora_rank"):
        architecture_of({key: value for key, value in plain.items() if key != "q_lora_rank"})


def test_an_engines_fact_says_how_it_is_known() -> None:
    for family in FAMILIES.values():
        for name, support in family.engines.items():
            known = support.router_known
            assert (support.asks_router is None) == (known.how == "not known"), (family.model_type, name)
            assert bool(known.where) == (known.how != "not known")
            assert bool(support.since) == (support.since_known.how != "not known")
            assert (support.stacks is None) == (support.stacks_known.how == "not known")
            assert support.stacks is None or family.stacked
    assert {name for name, family in FAMILIES.items() if family.support("vllm").asks_router} == {
        "qwen3_moe",
        "qwen3_vl_moe",
    }
    assert not any(family.support("sglang").asks_router for family in FAMILIES.values())
