"""The ignore list: read as each engine reads it (docs/engines.md 2), and written so that both agree."""

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import hypothesis.strategies as st
import pytest
from families.configs import CONFIGS
from families.headers import header_set
from hypothesis import given, settings

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.engines.catalogue import ENGINES
from halfbyte.engines.engine import EngineName, SplitFusedError
from halfbyte.engines.exclusions import contradictions, exclusion_entries
from halfbyte.models import roles_of
from halfbyte.models.roles import Role, TensorRole

from .files import SETS

REPOSITORY = Path(__file__).parents[2]
Linears = tuple[TensorRole, ...]
Choice = Callable[[TensorRole], bool]

LAYER_0 = "model.layers.0.self_attn"
SHARED = "model.layers.3.mlp.shared_experts"
RAISES = "raises"

# entries, module asked (unfused parts of fused_qkv_a by their checkpoint name), vLLM, SGLang
TABLE: list[tuple[list[str], str, bool | str, bool | str]] = [
    ([f"{LAYER_0}.q_a_proj"], f"{LAYER_0}.q_a_proj", RAISES, RAISES),
    ([f"{LAYER_0}.kv_a_proj_with_mqa"], f"{LAYER_0}.q_a_proj", RAISES, RAISES),
    ([f"{LAYER_0}.q_a_proj", f"{LAYER_0}.kv_a_proj_with_mqa"], f"{LAYER_0}.q_a_proj", True, True),
    ([f"{LAYER_0}.q_a_proj", f"{LAYER_0}.kv_a_proj_with_mqa"], "model.layers.1.self_attn.q_a_proj", False, True),
    (["*.q_a_proj", "*.kv_a_proj_with_mqa"], f"{LAYER_0}.q_a_proj", False, True),
    ([f"{LAYER_0}*"], f"{LAYER_0}.kv_a_proj_with_mqa", True, True),
    (["*self_attn*"], f"{LAYER_0}.kv_a_proj_with_mqa", True, True),
    (["model.layers.7"], "model.layers.70.mlp.experts", True, False),
    (["model.layers.7*"], "model.layers.70.mlp.experts", True, True),
    (["model.layers.7.*"], "model.layers.70.mlp.experts", False, False),
    (["model.layers.7"], "model.layers.7.mlp.experts", True, False),
    (["model.layers.7.*"], "model.layers.7.mlp.experts", True, True),
    (["model.layers.7.mlp.experts.5.down_proj"], "model.layers.7.mlp.experts", True, False),
    ([f"{SHARED}.gate_proj"], f"{SHARED}.gate_up_proj", RAISES, RAISES),
    ([f"{SHARED}.up_proj"], f"{SHARED}.gate_up_proj", RAISES, RAISES),
    ([f"{SHARED}.gate_proj", f"{SHARED}.up_proj"], f"{SHARED}.gate_up_proj", True, True),
    (["model.layers.3.mlp.gate"], "model.layers.3.mlp.gate_up_proj", True, False),
    (["model.layers.3.mlp.gate"], "model.layers.3.mlp.gate", True, True),
    (["lm_head"], "lm_head", True, True),
    (["*lm_head"], "lm_head", True, True),
    ([], "lm_head", False, False),
    (["model.layers.78*"], "model.layers.78.eh_proj", True, True),
    (["model.layers.78*"], "model.layers.7.mlp.experts", False, False),
    (["gate"], "model.layers.9.mlp.gate", True, True),
    (["experts"], "model.layers.9.mlp.experts", True, True),
    (["mlp"], "model.layers.9.mlp.experts", True, True),
    (["exp"], "model.layers.9.mlp.experts", True, False),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("entries", "module", "vllm", "sglang"), TABLE)
def test_how_an_engine_reads(
    engine: EngineName, entries: list[str], module: str, vllm: bool | str, sglang: bool | str
) -> None:
    wanted = vllm if engine == "vllm" else sglang
    fused = {"vllm": "fused_qkv_a_proj", "sglang": "fused_qkv_a_proj_with_mqa"}[engine]
    asked = module.replace("kv_a_proj_with_mqa", fused).replace(".q_a_proj", f".{fused}")
    if wanted == RAISES:
        with pytest.raises(SplitFusedError):
            ENGINES[engine].excluded(tuple(entries), asked)
    else:
        assert ENGINES[engine].excluded(tuple(entries), asked) is wanted


GLM = roles_of(CONFIGS["GLM-5.2"])


@pytest.mark.parametrize(
    ("tensor", "vllm", "sglang"),
    [
        ("model.layers.3.self_attn.q_a_proj", "self_attn.fused_qkv_a_proj", "self_attn.fused_qkv_a_proj_with_mqa"),
        (
            "model.layers.3.self_attn.kv_a_proj_with_mqa",
            "self_attn.fused_qkv_a_proj",
            "self_attn.fused_qkv_a_proj_with_mqa",
        ),
        ("model.layers.3.self_attn.o_proj", "self_attn.o_proj", "self_attn.o_proj"),
        ("model.layers.3.mlp.experts.9.up_proj", "mlp.experts", "mlp.experts"),
        (
            "model.layers.3.mlp.shared_experts.up_proj",
            "mlp.shared_experts.gate_up_proj",
            "mlp.shared_experts.gate_up_proj",
        ),
        ("model.layers.3.mlp.shared_experts.down_proj", "mlp.shared_experts.down_proj", "mlp.shared_experts.down_proj"),
        ("model.layers.3.mlp.gate", "mlp.gate", "mlp.gate"),
    ],
)
def test_runtime_module(tensor: str, vllm: str, sglang: str) -> None:
    role = GLM.role(f"{tensor}.weight")
    assert ENGINES["vllm"].runtime_module(role) == f"model.layers.3.{vllm}"
    assert ENGINES["sglang"].runtime_module(role) == f"model.layers.3.{sglang}"


def test_runtime_module_of_separate_qkv() -> None:
    role = roles_of(CONFIGS["Qwen3-30B-A3B"]).role("model.layers.3.self_attn.k_proj.weight")
    assert {engine.runtime_module(role) for engine in ENGINES.values()} == {"model.layers.3.self_attn.qkv_proj"}


EXPERT = re.compile(r"\.experts\.(\d+)\.")


@cache
def linears(name: str, experts: int = 10**9) -> Linears:
    """Every module with a matrix: what a recipe decides about. experts: how many experts of each layer to take."""
    roles, found = roles_of(CONFIGS[name]), []
    for tensor, (_, shape) in header_set(name).items():
        number = EXPERT.search(tensor)
        if tensor.endswith(".weight") and len(shape) == 2 and (number is None or int(number[1]) < experts):
            found.append(roles.role(tensor))
    return tuple(found)


def written(name: str, modules: Sequence[TensorRole], quantized: Choice) -> list[str]:
    kept = [role.module for role in modules if not quantized(role)]
    return exclusion_entries(kept, [role.module for role in modules if quantized(role)], roles_of(CONFIGS[name]))


def problems(entries: Sequence[str], modules: Sequence[TensorRole], quantized: Choice) -> list[str]:
    asked = [(role, quantized(role)) for role in modules if role.role is not Role.EMBEDDING]
    return [str(problem) for problem in contradictions(entries, asked)]


def routed(role: TensorRole) -> bool:
    return role.role is Role.ROUTED_EXPERT and not role.mtp


def mlp(role: TensorRole) -> bool:
    return role.role in (Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP) and not role.mtp


def shared_too(role: TensorRole) -> bool:
    return role.role in (Role.ROUTED_EXPERT, Role.SHARED_EXPERT) and not role.mtp


def test_glm_52_experts_only_has_the_231_entries() -> None:
    moe = [
        f"model.layers.{n}.{part}" for n in range(3, 78) for part in ("mlp.gate", "mlp.shared_experts*", "self_attn*")
    ]
    dense = [f"model.layers.{n}.*" for n in range(3)]
    entries = written("GLM-5.2", linears("GLM-5.2"), routed)
    assert entries == ["lm_head", "model.embed_tokens", *dense, *moe, "model.layers.78*"]
    assert len(entries) == 231
    assert problems(entries, linears("GLM-5.2"), routed) == []


def test_the_published_list_of_156_agrees_with_the_published_tensors() -> None:
    """NVIDIA's list has no router entries, which is right only because its readers build the router unquantized."""
    published = CONFIGS["GLM-5.2-NVFP4"]["quantization_config"]["ignore"]
    found = problems(published, linears("GLM-5.2", 1), routed)
    assert len(found) == 2 * 75
    assert all(".mlp.gate is stored unquantized but" in problem for problem in found)


def test_tiny_glm_equals_modelopt_but_for_the_dot() -> None:
    golden = json.loads((REPOSITORY / "tests" / "golden" / "tiny_glm_modelopt.json").read_text())
    with Checkpoint.open(REPOSITORY / "examples" / "tiny-glm") as checkpoint:
        roles = roles_of(checkpoint.config)
        found = [roles.role(t.name) for t in checkpoint.tensors.values() if len(t.shape) == 2]
    quantized = [role.module for role in found if routed(role)]
    entries = exclusion_entries([role.module for role in found if not routed(role)], quantized, roles)
    modelopt = golden["quantization_config"]["ignore"]
    assert set(quantized) == set(golden["modules"])
    assert sorted(entry.replace("layers.0.*", "layers.0*") for entry in entries) == sorted(modelopt)
    assert problems(entries, found, routed) == []
    assert problems(modelopt, found, routed) == []


@pytest.mark.parametrize("name", SETS)
def test_no_contradiction_in_any_family(name: str) -> None:
    modules = linears(name, 2)
    for choice in (routed, shared_too, mlp):
        entries = written(name, modules, choice)
        assert problems(entries, modules, choice) == []
        assert len(entries) < 4 * len(CONFIGS[name]) + 400
        head = roles_of(CONFIGS[name]).wrapping.outer("lm_head.").removesuffix(".")
        assert (head in entries) == (not CONFIGS[name]["tie_word_embeddings"])


@settings(max_examples=15, deadline=None)
@given(
    kept=st.sets(st.tuples(st.integers(0, 77), st.sampled_from(["mlp.experts", "mlp", "self_attn", ""])), max_size=12)
)
def test_any_choice_of_layers_and_blocks_is_written_without_contradiction(kept: set[tuple[int, str]]) -> None:
    subtrees = tuple(f"model.layers.{layer}.{block}." if block else f"model.layers.{layer}." for layer, block in kept)

    def choice(role: TensorRole) -> bool:
        return mlp(role) and not f"{role.module}.".startswith(subtrees)

    modules = linears("GLM-5.2", 1)
    found = problems(written("GLM-5.2", modules, choice), modules, choice)
    assert [problem for problem in found if "'shared_expert'" not in problem] == []


def layer_7_kept(role: TensorRole) -> bool:
    return routed(role) and role.layer != 7


def without(*dropped: str) -> Callable[[list[str]], list[str]]:
    return lambda entries: [entry for entry in entries if entry not in dropped]


def swap(old: str, new: str) -> Callable[[list[str]], list[str]]:
    return lambda entries: [entry.replace(old, new) for entry in entries]


def add(*more: str) -> Callable[[list[str]], list[str]]:
    return lambda entries: [*entries, *more]


ATTENTION_3 = "model.layers.3.self_attn"
TRAPS = {
    "bare layer": (layer_7_kept, swap("model.layers.7.*", "model.layers.7"), "vllm: model.layers.7[0-7].mlp.experts"),
    "bare layer, SGLang": (
        layer_7_kept,
        swap("model.layers.7.*", "model.layers.7"),
        "sglang: model.layers.7.mlp.experts",
    ),
    "layer without a dot": (
        layer_7_kept,
        swap("model.layers.7.*", "model.layers.7*"),
        "sglang: model.layers.7[0-7].mlp",
    ),
    "no lm_head": (routed, without("lm_head"), "lm_head is stored unquantized"),
    "no MTP layer": (routed, without("model.layers.78*"), "model.layers.78.mlp.experts"),
    "no router": (routed, without("model.layers.9.mlp.gate"), "model.layers.9.mlp.gate is stored unquantized"),
    "shared expert by a shorter pattern": (
        routed,
        swap("mlp.shared_experts*", "mlp.shared*"),
        "contains 'shared_expert'",
    ),
    "one half of gate and up": (
        routed,
        swap("model.layers.9.mlp.shared_experts*", "model.layers.9.mlp.shared_experts.gate_proj"),
        "model.layers.9.mlp.shared_experts.gate_up_proj: some but not all",
    ),
    "one half of the fused A projections": (
        routed,
        swap(f"{ATTENTION_3}*", f"{ATTENTION_3}.q_a_proj"),
        f"{ATTENTION_3}.fused_qkv_a_proj: some but not all",
    ),
    "globs over the fused A projections": (
        routed,
        lambda entries: [*without(f"{ATTENTION_3}*")(entries), "*.q_a_proj", "*.kv_a_proj_with_mqa"],
        f"vllm: {ATTENTION_3}.q_a_proj is stored unquantized",
    ),
    "one expert": (routed, add("model.layers.9.mlp.experts.0.down_proj"), "vllm: model.layers.9.mlp.experts.0"),
    "router name inside a quantized dense MLP": (
        mlp,
        add("model.layers.0.mlp.gate"),
        "vllm: model.layers.0.mlp.gate_proj",
    ),
    "a quantized module listed": (routed, add("*.mlp.experts"), "is stored quantized but"),
    "everything": (routed, add("*"), "is stored quantized but"),
    "nothing": (routed, lambda entries: [], "is stored unquantized but"),
    "mixed experts of one layer": (
        lambda role: routed(role) and not (role.layer == 9 and role.projection == "down_proj"),
        lambda entries: entries,
        "model.layers.9.mlp.experts",
    ),
}


@pytest.mark.parametrize(("choice", "spoil", "message"), TRAPS.values(), ids=TRAPS)
def test_traps_are_found(choice: Choice, spoil: Callable[[list[str]], list[str]], message: str) -> None:
    modules = linears("GLM-5.2", 1)
    sound = written("GLM-5.2", modules, choice)
    found = problems(spoil(sound), modules, choice)
    pattern = re.compile(message.replace(".", r"\."))
    assert any(pattern.search(problem) for problem in found), found[:5]
