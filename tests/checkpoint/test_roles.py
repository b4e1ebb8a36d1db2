"""Roles of every published family at full size, and names and configs that must be refused."""

from typing import Any

import pytest
from families.configs import CONFIGS, config
from families.headers import header_set, role_set

from halfbyte.errors import CheckpointError, HalfbyteError, UnknownTensorError, UnsupportedError
from halfbyte.models import BY_NAME, FAMILIES, roles_of

from .files import SETS


def test_every_family_is_tested() -> None:
    named = {family.model_type for family in FAMILIES.values() if family.by_name}
    assert {BY_NAME[CONFIGS[name]["model_type"]].model_type for name in SETS} == named


@pytest.mark.parametrize("name", [*SETS, "GLM-5.2-fused-mtp"])
def test_every_tensor_of_a_published_checkpoint(name: str) -> None:
    roles, wanted = roles_of(CONFIGS[name]), role_set(name)
    for tensor, label in wanted.items():
        role = roles.role(tensor)
        assert (role.role, role.mtp) == label
        assert tensor == role.named(role.part).lstrip(".")
        assert (role.layer is not None) == tensor.startswith(
            (f"{roles.layers_path}.{role.layer}.", "mtp.", "model.mtp")
        )
        one = label[0] == "routed_expert" and role.projection is not None and not role.fused
        assert (role.expert is not None) == one
        if role.expert is not None:
            assert f".experts.{role.expert}." in tensor
            assert role.layer is not None
            assert role.expert is not None
            assert role.projection is not None
            assert roles.expert_module(role.layer, role.expert, role.projection) == role.module


GLM, DEEPSEEK, V32, GLM4, QWEN, MINIMAX, MIXTRAL = (
    "GLM-5.2",
    "DeepSeek-V3",
    "DeepSeek-V3.2",
    "GLM-4.7",
    "Qwen3-30B-A3B",
    "MiniMax-M2.5",
    "Mixtral-8x7B-v0.1",
)

LINEARS = [
    (GLM, "model.layers.40.mlp.experts.17.gate_proj.weight_scale", "gate_proj", 17),
    (GLM, "model.layers.40.mlp.experts.255.down_proj.input_scale", "down_proj", 255),
    (GLM, "model.layers.0.mlp.up_proj.weight", "up_proj", None),
    (GLM, "model.layers.3.mlp.shared_experts.up_proj.weight", "up_proj", None),
    (GLM, "model.layers.3.self_attn.kv_a_proj_with_mqa.weight", "kv_a_proj_with_mqa", None),
    (GLM, "model.layers.2.self_attn.indexer.wq_b.weight", "wq_b", None),
    (GLM, "model.layers.78.eh_proj.weight", "eh_proj", None),
    (MINIMAX, "model.layers.0.block_sparse_moe.experts.3.w1.weight", "gate_proj", 3),
    (MINIMAX, "model.layers.0.block_sparse_moe.experts.3.w2.weight", "down_proj", 3),
    (MIXTRAL, "model.layers.0.block_sparse_moe.experts.3.w3.weight", "up_proj", 3),
    ("GLM-5.2-fused", "model.layers.3.mlp.experts.gate_up_proj", "gate_up_proj", None),
    ("Mixtral-8x7B-v0.1-fused", "model.layers.3.mlp.experts.down_proj", "down_proj", None),
]


@pytest.mark.parametrize(("name", "tensor", "projection", "expert"), LINEARS)
def test_projection_and_expert(name: str, tensor: str, projection: str, expert: int | None) -> None:
    role = roles_of(CONFIGS[name]).role(tensor)
    assert (role.projection, role.expert) == (projection, expert)


UNKNOWN = {
    "expert out of range": [
        (GLM, "model.layers.3.mlp.experts.256.gate_proj.weight"),
        (DEEPSEEK, "model.layers.3.mlp.experts.256.up_proj.weight"),
        (V32, "model.layers.61.mlp.experts.256.up_proj.weight"),
        (GLM4, "model.layers.3.mlp.experts.160.up_proj.weight"),
        (QWEN, "model.layers.0.mlp.experts.128.up_proj.weight"),
        (MINIMAX, "model.layers.0.block_sparse_moe.experts.256.w1.weight"),
        (MIXTRAL, "model.layers.0.block_sparse_moe.experts.8.w1.weight"),
    ],
    "layer out of range": [
        (GLM, "model.layers.79.input_layernorm.weight"),
        (DEEPSEEK, "model.layers.62.eh_proj.weight"),
        (V32, "model.layers.62.input_layernorm.weight"),
        (GLM4, "model.layers.93.input_layernorm.weight"),
        (QWEN, "model.layers.48.input_layernorm.weight"),
        (MINIMAX, "model.layers.65.input_layernorm.weight"),
        (MIXTRAL, "model.layers.32.input_layernorm.weight"),
    ],
    "MTP names outside the MTP layer": [
        (GLM, "model.layers.77.eh_proj.weight"),
        (DEEPSEEK, "model.layers.60.shared_head.norm.weight"),
        (QWEN, "model.layers.47.enorm.weight"),
        (MIXTRAL, "model.layers.31.hnorm.weight"),
    ],
    "indexer on a layer that shares": [
        (GLM, "model.layers.3.self_attn.indexer.wk.weight"),
        (GLM, "model.layers.77.self_attn.indexer.k_norm.bias"),
    ],
    "indexer in a family without": [
        (DEEPSEEK, "model.layers.0.self_attn.indexer.wk.weight"),
        (GLM4, "model.layers.0.self_attn.indexer.wq_b.weight"),
        (QWEN, "model.layers.0.self_attn.indexer.weights_proj.weight"),
    ],
    "experts on a dense layer": [
        (GLM, "model.layers.2.mlp.experts.0.gate_proj.weight"),
        (GLM, "model.layers.0.mlp.experts.gate_up_proj"),
        (GLM, "model.layers.2.mlp.shared_experts.up_proj.weight"),
        (GLM, "model.layers.2.mlp.gate.weight"),
        (GLM, "model.layers.2.mlp.gate.e_score_correction_bias"),
        (DEEPSEEK, "model.layers.0.mlp.experts.0.gate_proj.weight"),
        (V32, "model.layers.2.mlp.gate.weight"),
        (GLM4, "model.layers.1.mlp.experts.0.gate_proj.weight"),
    ],
    "dense MLP on a MoE layer": [
        (GLM, "model.layers.3.mlp.gate_proj.weight"),
        (DEEPSEEK, "model.layers.3.mlp.up_proj.weight"),
        (V32, "model.layers.61.mlp.up_proj.weight"),
        (GLM4, "model.layers.92.mlp.down_proj.weight"),
        (QWEN, "model.layers.0.mlp.gate_proj.weight"),
        (MINIMAX, "model.layers.0.mlp.gate_proj.weight"),
        (MIXTRAL, "model.layers.0.mlp.down_proj.weight"),
    ],
    "shared expert in a family without": [
        (QWEN, "model.layers.0.mlp.shared_experts.up_proj.weight"),
        (MINIMAX, "model.layers.0.mlp.shared_experts.up_proj.weight"),
        (MIXTRAL, "model.layers.0.block_sparse_moe.shared_experts.up_proj.weight"),
    ],
    "unknown module": [
        (GLM, "model.layers.3.self_attn.q_proj2.weight"),
        (GLM, "model.layers.3.self_attn.k_proj.weight"),
        (GLM, "model.layers.3.mlp.experts.0.router.weight"),
        (GLM, "model.layers.3.mlp.experts.0.gate_proj.lora.weight"),
        (GLM, "model.layers.3.mlp.experts.0.weight"),
        (GLM, "model.layers.3.mlp.experts.bias"),
        (GLM, "model.layers.3.mlp.experts.up_proj"),
        (GLM, "model.layers.3.mlp.experts.down_proj.bias"),
        (GLM, "model.layers.3.mlp.gate_up_proj.weight"),
        (GLM, "model.layers.3.mlp.weight"),
        (GLM, "model.layers.3.mlp.gate.expert_bias"),
        (GLM, "model.layers.3.self_attn.o_proj.e_score_correction_bias"),
        (GLM, "model.layers.3.weight"),
        (GLM, "model.layers.3"),
        (GLM, "model.layers"),
        (GLM, "model.visual.patch_embed.weight"),
        (GLM, "model.embed_tokens"),
        (GLM, "model.embed_tokens.weights"),
        (GLM, "lm_head"),
        (GLM, "weight"),
        (GLM, ""),
        (GLM, "..."),
        (DEEPSEEK, "model.layers.0.self_attn.k_norm.weight"),
        (V32, "model.layers.0.self_attn.indexer.wv.weight"),
        (GLM4, "model.layers.0.self_attn.q_a_proj.weight"),
        (QWEN, "model.layers.0.self_attn.kv_b_proj.weight"),
        (MINIMAX, "model.layers.0.block_sparse_moe.experts.0.w4.weight"),
        (MIXTRAL, "model.layers.0.block_sparse_moe.norm.weight"),
        (MIXTRAL, "transformer.h.0.attn.weight"),
    ],
    "a number not in its one spelling": [
        (GLM, "model.layers.01.input_layernorm.weight"),
        (GLM, "model.layers.+1.input_layernorm.weight"),
        (GLM, "model.layers.-1.input_layernorm.weight"),
        (GLM, "model.layers.1_0.input_layernorm.weight"),
        (GLM, "model.layers.².input_layernorm.weight"),
        (GLM, "model.layers.١.input_layernorm.weight"),
        (GLM, "model.layers..input_layernorm.weight"),
        (GLM, f"model.layers.{'9' * 5000}.input_layernorm.weight"),
        (GLM, "model.layers.3.mlp.experts.00.gate_proj.weight"),
        (GLM, "model.layers.3.mlp.experts.-1.gate_proj.weight"),
        (GLM, f"model.layers.3.mlp.experts.{'9' * 5000}.gate_proj.weight"),
        (MIXTRAL, "model.layers.0.block_sparse_moe.experts.01.w1.weight"),
    ],
}


@pytest.mark.parametrize(
    ("name", "tensor"),
    [pytest.param(*row, id=f"{why}: {row[0]} {row[1][:60]}") for why, rows in UNKNOWN.items() for row in rows],
)
def test_a_name_that_the_family_does_not_explain(name: str, tensor: str) -> None:
    with pytest.raises(UnknownTensorError) as caught:
        roles_of(CONFIGS[name]).role(tensor)
    assert repr(tensor[:200])[1:-1] in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.hint


def test_the_reason_is_given() -> None:
    roles = roles_of(CONFIGS[GLM])
    for tensor, reason in {
        "model.layers.3.mlp.experts.256.gate_proj.weight": "the config has 256 experts",
        "model.layers.79.input_layernorm.weight": r"layers 0 to 77 and 1 MTP layer\(s\)",
        "model.layers.3.self_attn.indexer.wk.weight": "shares an earlier layer's selection",
        "model.layers.0.mlp.experts.0.up_proj.weight": "layer 0 is dense by the config",
    }.items():
        with pytest.raises(UnknownTensorError, match=reason):
            roles.role(tensor)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_twisted_name_is_explained_or_refused(name: str) -> None:
    """Any one path component of a real name dropped, doubled or replaced: a role that fits, or UnknownTensorError."""
    roles, real = roles_of(CONFIGS[name]), header_set(name)
    sample = list(real)[:: max(1, len(real) // 60)]
    for tensor in sample:
        pieces = tensor.split(".")
        for i, piece in enumerate(pieces):
            for changed in ([], [piece, piece], ["x"], ["0" + piece], ["weight"], ["999999999"]):
                twisted = ".".join(pieces[:i] + changed + pieces[i + 1 :])
                try:
                    role = roles.role(twisted)
                except UnknownTensorError:
                    continue
                assert twisted in (f"{role.module}.{role.part}", role.module)
                assert role.layer is None or role.layer < roles.layers + roles.mtp_layers
                assert role.expert is None or role.expert < roles.num_experts


def test_index_share_schedule() -> None:
    """21 of 78 layers select for themselves, however the config says it."""
    full = frozenset({0, 1, 2, *range(6, 75, 4)})
    by_types, by_frequency, by_pattern = config(GLM), config(GLM), config(GLM)
    assert by_types["indexer_types"].count("full") == 21
    del by_frequency["indexer_types"], by_pattern["indexer_types"]
    by_pattern["index_topk_pattern"] = "".join("F" if layer in full else "S" for layer in range(78))
    del by_pattern["index_topk_freq"]
    for each in (by_types, by_frequency, by_pattern):
        assert roles_of(each).indexers == full
    assert roles_of(config("GLM-5.1")).indexers == frozenset(range(78))
    assert roles_of(config(DEEPSEEK)).indexers == frozenset()
    del by_frequency["index_skip_topk_offset"]  # transformers' default is 2: one layer earlier
    assert roles_of(by_frequency).indexers == frozenset({0, 1, *range(5, 78, 4)})


@pytest.mark.parametrize(
    ("changes", "dense"),
    [
        ({}, {0, 1, 2}),
        ({"mlp_layer_types": None}, {0, 1, 2}),
        ({"mlp_layer_types": None, "first_k_dense_replace": None}, set()),
        ({"mlp_layer_types": ["sparse"] * 77 + ["dense"]}, {77}),
        ({"mlp_layer_types": None, "moe_layer_freq": 2}, {0, 1, 2, *range(3, 78, 2)}),
    ],
)
def test_dense_layers(changes: dict[str, Any], dense: set[int]) -> None:
    assert roles_of(config(GLM) | changes).dense == dense


def test_dense_layers_of_qwen() -> None:
    assert roles_of(config(QWEN)).dense == set()
    assert roles_of(config(QWEN) | {"mlp_only_layers": [0, 5]}).dense == {0, 5}
    assert roles_of(config(QWEN) | {"decoder_sparse_step": 2}).dense == set(range(0, 48, 2))


NUMBERS: list[Any] = [None, 0, -1, 1.0, "78", True, [], {}, 10**9, 10**30]
BAD_CONFIG = {
    "num_hidden_layers": NUMBERS,
    "n_routed_experts": NUMBERS,
    "first_k_dense_replace": [-1, 3.0, "3", True, [3]],
    "moe_layer_freq": [-1, 1.0, "1", True, {}],
    "num_nextn_predict_layers": [-1, 1.0, "0", True, [1], 10**9],
    "mlp_layer_types": [
        [], ["dense"] * 77, ["Dense"] * 78, [None] * 78, [[]] * 78, [{}] * 78, "sparse" * 78, 78, {"0": "dense"}, True,
    ],
    "indexer_types": [
        [], ["full"] * 77, ["Full"] * 78, [None] * 78, [["full"]] * 78, [0] * 78, "full" * 78, 78, {"0": "full"}, True,
    ],
}  # fmt: skip
WITHOUT_TYPES = {
    "index_topk_pattern": ["F" * 77, "F" * 77 + "X", "", 78, [0] * 78, {}],
    "index_topk_freq": [-1, 4.0, "4", True, [4]],
    "index_skip_topk_offset": [-1, 3.0, "3", True, [3]],
}


def _cases(table: dict[str, list[Any]]) -> list[Any]:
    return [pytest.param(key, bad, id=f"{key}={str(bad)[:30]}") for key, values in table.items() for bad in values]


def _assert_refused(changed: dict[str, Any], key: str) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: {key}") as caught:
        roles_of(changed)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(("key", "bad"), _cases(BAD_CONFIG))
def test_malformed_config(key: str, bad: Any) -> None:
    changes = {"mlp_layer_types": None} if key in ("first_k_dense_replace", "moe_layer_freq") else {}
    _assert_refused(config(GLM) | changes | {key: bad}, key)


@pytest.mark.parametrize(("key", "bad"), _cases(WITHOUT_TYPES))
def test_malformed_indexer_schedule(key: str, bad: Any) -> None:
    _assert_refused(config(GLM) | {"indexer_types": None, key: bad}, key)


@pytest.mark.parametrize(
    ("key", "bad"),
    _cases({"num_experts": NUMBERS, "mlp_only_layers": ["0", 3, {"0": 1}], "decoder_sparse_step": [-1, "1", 2.0]}),
)
def test_malformed_qwen_config(key: str, bad: Any) -> None:
    _assert_refused(config(QWEN) | {key: bad}, key)


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_routed_experts", "model_type"])
def test_incomplete_config(key: str) -> None:
    changed = config(GLM)
    del changed[key]
    with pytest.raises(CheckpointError, match=key):
        roles_of(changed)


@pytest.mark.parametrize("model_type", ["llama", "GLM_MOE_DSA", "", "x" * 5000])
def test_another_family(model_type: str) -> None:
    with pytest.raises(UnsupportedError, match="not a known mixture-of-experts family") as caught:
        roles_of({"model_type": model_type})
    assert "glm_moe_dsa" in str(caught.value.hint)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("model_type", [None, 1, ["glm_moe_dsa"], {}])
def test_model_type_of_a_wrong_type(model_type: Any) -> None:
    with pytest.raises(HalfbyteError, match="model_type"):
        roles_of({"model_type": model_type})
