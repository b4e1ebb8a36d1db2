"""The synthetic header sets agree with closed-form totals, published figures and hand-written samples."""

import hashlib
import json
from math import prod
from pathlib import Path

import pytest

from .configs import CONFIGS
from .expected import DTYPE_BYTES, PUBLISHED, expected
from .headers import ROLES, header_set, role_set

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text())
SCALES = (".scale", "_scales", ".weight_scale_inv", ".weight_scale", ".weight_scale_2", ".input_scale")


def _parameters(name: str, dtype: str, shape: tuple[int, ...]) -> int:
    """Logical weights of one stored tensor. Gemma 4's `router.scale` is one."""
    if name.endswith(SCALES) and dtype != "BF16":
        return 0
    return prod(shape) * (2 if dtype in ("U8", "I8") else 1)


@pytest.mark.parametrize("name", CONFIGS)
def test_totals_equal_closed_form(name: str) -> None:
    headers, labels, want = header_set(name), role_set(name), expected(name)
    roles = dict.fromkeys(want.roles, 0)
    for tensor, (dtype, shape) in headers.items():
        roles[labels[tensor]] = roles.get(labels[tensor], 0) + _parameters(tensor, dtype, shape)
    assert headers.keys() == labels.keys()
    assert len(headers) == want.tensors
    assert roles == want.roles
    assert sum(roles.values()) == want.parameters
    assert sum(prod(shape) * DTYPE_BYTES[dtype] for dtype, shape in headers.values()) == want.bytes
    assert {role for role, _ in labels.values()} <= set(ROLES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_equal_published_figures(name: str) -> None:
    published, headers = PUBLISHED[name], header_set(name)
    if published.tensors is not None:
        assert len(headers) == published.tensors
    if published.bytes is not None:
        assert sum(prod(shape) * DTYPE_BYTES[dtype] for dtype, shape in headers.values()) == published.bytes
    if published.elements is not None:
        assert sum(prod(shape) for _, shape in headers.values()) == published.elements


def test_glm_52_roles_equal_the_reference_table() -> None:
    roles = expected("GLM-5.2").roles
    main = {role: count for (role, mtp), count in roles.items() if not mtp}
    assert main == {
        "routed_expert": 724_775_731_200,
        "attention": 12_871_732_224,
        "shared_expert": 2_831_155_200,
        "embedding": 951_582_720,
        "lm_head": 951_582_720,
        "dense_mlp": 679_477_248,
        "indexer": 196_809_984,
        "router": 117_984_000,
        "norm": 964_608,
    }
    assert roles["routed_expert", True] == 9_663_676_416
    assert sum(count for (_, mtp), count in roles.items() if mtp) == 9_952_920_576


def test_glm_52_mtp_layer() -> None:
    mtp = [header for name, header in header_set("GLM-5.2").items() if name.startswith("model.layers.78.")]
    assert len(mtp) == sum(label[1] for label in role_set("GLM-5.2").values()) == 791
    assert sum(prod(shape) * DTYPE_BYTES[dtype] for dtype, shape in mtp) == 19_905_841_664


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("DeepSeek-V3", 671.03),
        ("DeepSeek-V3.2", 671.88),
        ("GLM-4.7", 352.80),
        ("GLM-4.5-Air", 106.85),
        ("gpt-oss-20b", 20.91),
        ("gpt-oss-120b", 116.83),
    ],
)
def test_main_model_without_mtp(name: str, billions: float) -> None:
    main = sum(count for (_, mtp), count in expected(name).roles.items() if not mtp)
    assert round(main / 1e9, 2) == billions


SAMPLES = [
    ("GLM-5.2", "model.layers.3.mlp.gate.e_score_correction_bias", "F32", (256,), "router", False),
    ("GLM-5.2", "model.layers.77.self_attn.kv_b_proj.weight", "BF16", (28672, 512), "attention", False),
    ("GLM-5.2", "model.layers.78.self_attn.indexer.k_norm.bias", "BF16", (128,), "indexer", True),
    ("GLM-5.2", "model.layers.78.eh_proj.weight", "BF16", (6144, 12288), "mtp", True),
    ("GLM-5.2-FP8", "model.layers.0.self_attn.kv_a_proj_with_mqa.weight_scale_inv", "F32", (5, 48), "attention", False),
    ("GLM-5.2-FP8", "model.layers.6.self_attn.indexer.wk.weight_scale_inv", "F32", (1, 48), "indexer", False),
    ("GLM-5.2-NVFP4", "model.layers.9.mlp.experts.7.up_proj.weight", "U8", (2048, 3072), "routed_expert", False),
    (
        "GLM-5.2-NVFP4",
        "model.layers.9.mlp.experts.7.up_proj.weight_scale",
        "F8_E4M3",
        (2048, 384),
        "routed_expert",
        False,
    ),
    ("GLM-5.2-NVFP4", "model.layers.78.mlp.experts.0.down_proj.weight", "BF16", (6144, 2048), "routed_expert", True),
    ("GLM-5.2-fused", "model.layers.3.mlp.experts.gate_up_proj", "BF16", (256, 4096, 6144), "routed_expert", False),
    ("DeepSeek-V3", "model.layers.61.shared_head.head.weight", "BF16", (129280, 7168), "lm_head", True),
    ("DeepSeek-V3", "model.layers.61.embed_tokens.weight", "BF16", (129280, 7168), "embedding", True),
    ("DeepSeek-V3.2", "model.layers.61.self_attn.indexer.weights_proj.weight", "BF16", (64, 7168), "indexer", True),
    ("GLM-4.5-Air", "model.layers.46.self_attn.q_proj.bias", "BF16", (12288,), "attention", True),
    ("GLM-4.7", "model.layers.0.self_attn.k_norm.weight", "BF16", (128,), "attention", False),
    ("Qwen3-30B-A3B", "model.layers.0.mlp.gate.weight", "BF16", (128, 2048), "router", False),
    ("MiniMax-M2.5", "model.layers.0.block_sparse_moe.gate.weight", "F32", (256, 3072), "router", False),
    ("MiniMax-M2.5", "model.layers.0.self_attn.q_norm.weight", "BF16", (6144,), "attention", False),
    ("Gemma-4-26B-A4B-text", "model.layers.5.self_attn.q_proj.weight", "BF16", (8192, 2816), "attention", False),
    ("Gemma-4-26B-A4B-text", "model.layers.5.self_attn.k_proj.weight", "BF16", (1024, 2816), "attention", False),
    ("Gemma-4-26B-A4B-text", "model.layers.4.self_attn.v_proj.weight", "BF16", (2048, 2816), "attention", False),
    ("Gemma-4-26B-A4B-text", "model.layers.29.layer_scalar", "BF16", (1,), "norm", False),
    ("Gemma-4-26B-A4B-text", "model.layers.0.router.per_expert_scale", "BF16", (128,), "router", False),
    (
        "Gemma-4-26B-A4B-text-fused",
        "model.layers.0.experts.gate_up_proj",
        "BF16",
        (128, 1408, 2816),
        "routed_expert",
        False,
    ),
    (
        "Gemma-4-26B-A4B-text-fused",
        "model.layers.0.experts.down_proj",
        "BF16",
        (128, 2816, 704),
        "routed_expert",
        False,
    ),
    (
        "MiniMax-M2.5",
        "model.layers.61.block_sparse_moe.experts.255.w2.weight",
        "F8_E4M3",
        (3072, 1536),
        "routed_expert",
        False,
    ),
    (
        "Mixtral-8x7B-v0.1",
        "model.layers.0.block_sparse_moe.experts.0.w3.weight",
        "BF16",
        (14336, 4096),
        "routed_expert",
        False,
    ),
    (
        "Mixtral-8x22B-v0.1-fused",
        "model.layers.0.mlp.experts.down_proj",
        "BF16",
        (8, 6144, 16384),
        "routed_expert",
        False,
    ),
]


@pytest.mark.parametrize(("name", "tensor", "dtype", "shape", "role", "mtp"), SAMPLES)
def test_samples(name: str, tensor: str, dtype: str, shape: tuple[int, ...], role: str, mtp: bool) -> None:
    assert header_set(name)[tensor] == (dtype, shape)
    assert role_set(name)[tensor] == (role, mtp)


ABSENT = [
    ("GLM-5.2", "model.layers.3.self_attn.indexer.wk.weight"),
    ("GLM-5.2", "model.layers.78.embed_tokens.weight"),
    ("GLM-5.2-fused", "model.layers.78.eh_proj.weight"),
    ("GLM-4.5-Air", "model.layers.0.self_attn.q_norm.weight"),
    ("GLM-4.7", "model.layers.0.self_attn.o_proj.bias"),
    ("MiniMax-M2.5", "model.layers.62.input_layernorm.weight"),
    ("Mixtral-8x7B-v0.1-fused", "model.layers.0.block_sparse_moe.gate.weight"),
    ("Gemma-4-26B-A4B-text", "model.layers.5.self_attn.v_proj.weight"),
    ("Gemma-4-26B-A4B-text", "lm_head.weight"),
]


@pytest.mark.parametrize(("name", "tensor"), ABSENT)
def test_absent_tensors(name: str, tensor: str) -> None:
    assert tensor not in header_set(name)


def test_callers_get_their_own_dictionary() -> None:
    header_set("Qwen3-30B-A3B").clear()
    assert header_set("Qwen3-30B-A3B")


def test_published_skip_lists_have_their_published_length() -> None:
    assert len(CONFIGS["GLM-5.2-FP8"]["quantization_config"]["modules_to_not_convert"]) == 541
    assert len(CONFIGS["GLM-5.2-NVFP4"]["quantization_config"]["ignore"]) == 156


@pytest.mark.parametrize("name", RECORDED)
def test_sets_are_what_they_were_before_the_families_listed_their_tensors(name: str) -> None:
    """Names, dtypes, shapes and roles, written then by a second description that shared no code with the families'."""
    labels, digest = role_set(name), hashlib.sha256()
    for tensor, (dtype, shape) in sorted(header_set(name).items()):
        digest.update(json.dumps([tensor, dtype, list(shape), *labels[tensor]]).encode())
    assert digest.hexdigest() == RECORDED[name]
