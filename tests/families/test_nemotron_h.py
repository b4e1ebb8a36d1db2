"""Nemotron-3: one block a layer, experts without a gate, in Super in a narrower space, and what NVIDIA publishes of it.

Small checkpoints of Nano and Super, in the published names, saved by transformers, and with experts in stacks, go
through every command. Of the published NVFP4 checkpoints names and sums are held: 24,147 tensors of 19,339,781,632
bytes and 165,860 of 80,297,329,824, as a public loader pins what their headers hold.
"""

import json
from collections.abc import Iterator
from functools import cache
from math import prod
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from export.checkpoints import checkpoint_with, family_checkpoint
from small import drawn, small_config, write_checkpoint
from stream.models import sequences, streamed_logits, whole_logits
from transformers import AutoModelForCausalLM
from transformers.models.nemotron_h import NemotronHConfig

from halfbyte.chat.hf import Transformers
from halfbyte.chat.options import Sampling
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.engines.exclusions import contradictions
from halfbyte.errors import CheckpointError, HalfbyteError, UnknownTensorError, UnsupportedError
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.models import architecture_of, promised_tensors, roles_of
from halfbyte.models.roles import Role
from halfbyte.recipes.recipe import Recipe

from .configs import CONFIGS, config
from .headers import Variant, headers_for
from .test_every_family import rows_beside, run

NANO, SUPER, ULTRA = "Nemotron-3-Nano-30B-A3B", "Nemotron-3-Super-120B-A12B", "Nemotron-3-Ultra-550B-A55B"


@cache
def source(name: str) -> Path:
    return family_checkpoint(Path(mkdtemp(prefix="halfbyte-nemotron-")) / "source", name)


@cache
def quantized(name: str) -> Path:
    out = source(name).parent / "quantized"
    run("quantize", source(name), out, "--calibrate", rows_beside(source(name)))
    return out


def content(checkpoint: Checkpoint, tensor: Tensor) -> bytearray:
    found = bytearray(tensor.bytes)
    checkpoint.read_into(tensor, memoryview(found))
    return found


def gate(folder: Path, *words: object, code: int = 0) -> Any:
    return run("gate", folder, *words, "--format", "json", code=code)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("name", [NANO, SUPER, ULTRA])
def test_what_is_quantized_passes_the_gate(name: str, engine: str) -> None:
    assert run("verify", source(name), quantized(name))["ok"]
    assert gate(quantized(name), "--engine", engine, "--depth", "full", "--source", source(name))["decision"] == "pass"


@pytest.mark.parametrize("name", [NANO, ULTRA])
def test_streamed_logits_are_those_of_transformers(name: str) -> None:
    """Of experts in the model's own space, and of layers listed by words without a number of them; every family's test
    has those of Super, whose experts are in a space of their own."""
    ids = sequences(256)
    for got, want in zip(streamed_logits(source(name), ids), whole_logits(source(name), ids), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("name", [NANO, SUPER])
def test_streamed_logits_in_files_are_the_same_bits(name: str, tmp_path: Path) -> None:
    """Activations that lie in files, those of the latent space too, and a run that goes on where it was stopped."""
    ids = sequences(256, (33, 20))
    want = streamed_logits(source(name), ids)
    for got, wanted in zip(streamed_logits(source(name), ids, work=tmp_path / "work"), want, strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("name", [NANO, SUPER])
def test_compare_with_rounded_activations(name: str) -> None:
    rows = rows_beside(source(name))
    found = run("compare", source(name), quantized(name), "--data", rows, "--a4-sim")
    assert 0 < found["kl"]["mean"] < found["a4_sim"]["kl"]["mean"] < 1e-6


def test_exclusions_are_a_layer_a_module_or_all_of_mtp() -> None:
    block = json.loads((quantized(SUPER) / "hf_quant_config.json").read_text())["quantization"]
    assert block["exclude_modules"] == [
        "backbone.embeddings",
        "backbone.layers.0.*",
        "backbone.layers.1.mixer.fc1_latent_proj",
        "backbone.layers.1.mixer.fc2_latent_proj",
        "backbone.layers.1.mixer.gate",
        "backbone.layers.1.mixer.shared_experts*",
        "backbone.layers.2.*",
        "backbone.layers.3.*",
        "backbone.layers.4.mixer.fc1_latent_proj",
        "backbone.layers.4.mixer.fc2_latent_proj",
        "backbone.layers.4.mixer.gate",
        "backbone.layers.4.mixer.shared_experts*",
        "lm_head",
        "mtp*",
    ]


def test_calibrated_scales_are_of_up_and_down(tmp_path: Path) -> None:
    run("calibrate", source(SUPER), "--data", rows_beside(source(SUPER)), "-o", tmp_path / "scales.json")
    written = json.loads((tmp_path / "scales.json").read_text())
    about = written.pop("halfbyte")
    experts = [name for name in written if ".experts." in name and ".shared_experts." not in name]
    assert experts == [
        f"backbone.layers.{layer}.mixer.experts.{part}" for layer in (1, 4) for part in ("up_proj", "down_proj")
    ]
    assert set(about["experts"]["1"]) == {"tokens", "up_proj", "down_proj", "inherited"}
    run("quantize", source(SUPER), tmp_path / "out", "--input-scale", tmp_path / "scales.json")
    with Checkpoint.open(tmp_path / "out") as checkpoint:
        scales = {
            name: np.frombuffer(content(checkpoint, tensor), np.float32)[0]
            for name, tensor in checkpoint.tensors.items()
            if name.endswith(".input_scale")
        }
    assert len(scales) == 2 * 2 * 4
    for name, scale in scales.items():
        layer, projection = name.split(".")[2], name.split(".")[-2]
        wanted = np.float32(written[f"backbone.layers.{layer}.mixer.experts.{projection}"]) / np.float32(2688)
        assert scale == wanted


@pytest.mark.parametrize("latent", [None, 32])
def test_as_transformers_saves_it(latent: int | None, tmp_path: Path) -> None:
    """Layers by words, experts one by one, no prediction layer although config.json could announce one."""
    parts = NemotronHConfig(
        vocab_size=320,
        hidden_size=64,
        hybrid_override_pattern="MEM*E",
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        intermediate_size=64,
        ssm_state_size=16,
        mamba_num_heads=4,
        mamba_head_dim=16,
        n_groups=2,
        chunk_size=8,
        n_routed_experts=4,
        moe_intermediate_size=48,
        moe_shared_expert_intermediate_size=96,
        moe_latent_size=latent,
        num_experts_per_tok=2,
        use_conv_bias=False,
    )
    torch.manual_seed(0)
    src, out = tmp_path / "src", tmp_path / "out"
    model = AutoModelForCausalLM.from_config(parts, dtype=torch.float32)
    for name, tensor in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            tensor.copy_(torch.randn(4) * 0.1)
    model.save_pretrained(src)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (src / name).write_text((source(NANO) / name).read_text())
    assert "hybrid_override_pattern" not in json.loads((src / "config.json").read_text())
    rows = rows_beside(src)
    run("quantize", src, out, "--calibrate", rows)
    assert run("verify", src, out)["ok"]
    assert gate(out, "--engine", "vllm", "--depth", "full", "--source", src)["decision"] == "pass"
    ids = sequences(256, (20, 9))
    for got, want in zip(streamed_logits(src, ids), whole_logits(src, ids), strict=True):
        assert torch.equal(got, want)


def stacked(folder: Path, name: str) -> Path:
    """The small checkpoint of `source` with each layer's experts in two stacks, as transformers holds them."""
    with Checkpoint.open(source(name)) as checkpoint:
        settings, roles = checkpoint.config, roles_of(checkpoint.config)
        tensors: dict[str, np.ndarray] = {}
        stacks: dict[str, list[np.ndarray]] = {}
        for entry in inventory(checkpoint.tensors, roles):
            (tensor,) = entry.tensors.values()
            dtype = np.uint16 if tensor.dtype == "BF16" else np.float32
            values = np.frombuffer(content(checkpoint, tensor), dtype).reshape(tensor.shape)
            if entry.role.expert is not None and not entry.role.mtp:
                path = entry.role.module.partition(".experts.")[0]
                stacks.setdefault(f"{path}.experts.{entry.role.projection}", []).append(values)
            else:
                tensors[tensor.name] = values
    tensors |= {name: np.stack(parts) for name, parts in stacks.items()}
    return write_checkpoint(
        folder,
        settings,
        {name: part.view(ml_dtypes.bfloat16) if part.dtype == np.uint16 else part for name, part in tensors.items()},
    )


@pytest.mark.parametrize("name", [NANO, SUPER])
def test_stacks_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    src = stacked(tmp_path / "src", name)
    assert {group["tensors"] for group in run("inspect", src)["groups"] if group["role"] == "routed_expert"} >= {4}
    for folder, given in (("a", src), ("b", source(name))):
        run("quantize", given, tmp_path / folder, "--input-scale", "1")
    found = []
    for folder in ("a", "b"):
        with Checkpoint.open(tmp_path / folder) as checkpoint:
            found.append({name: content(checkpoint, tensor) for name, tensor in checkpoint.tensors.items()})
    assert found[0] == found[1]
    ids = sequences(256, (17, 5))
    for got, want in zip(streamed_logits(src, ids), streamed_logits(source(name), ids), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("name", [NANO, SUPER])
def test_experts_rounded_on_data(name: str, tmp_path: Path) -> None:
    words = ("--rounding", "gptq", "--calibrate", rows_beside(source(name)))
    run("quantize", source(name), tmp_path / "out", *words)
    assert run("verify", source(name), tmp_path / "out")["ok"]
    assert gate(tmp_path / "out", "--engine", "vllm", "--depth", "full")["decision"] == "pass"
    about = json.loads((tmp_path / "out/halfbyte.json").read_text())["rounded_on_data"]
    assert set(about["experts"]) == {"1", "4"}
    assert {len(experts) for experts in about["experts"].values()} == {4}


def test_search_damages_experts_without_a_gate(tmp_path: Path) -> None:
    rows = rows_beside(source(SUPER))
    run("search", source(SUPER), "--data", rows, "--bits", "14", "-o", tmp_path / "recipe.yaml")
    run("quantize", source(SUPER), tmp_path / "out", "--recipe", tmp_path / "recipe.yaml", "--input-scale", "1")
    assert run("verify", source(SUPER), tmp_path / "out")["ok"]


def test_packed_experts_are_not_run_by_transformers() -> None:
    with pytest.raises(HalfbyteError, match="these have none"):
        list(Transformers(quantized(NANO)).stream([{"role": "user", "content": "a"}], [], Sampling(max_tokens=1)))


# What NVIDIA publishes


NANO_ATTENDS = (5, 12, 19, 26, 33, 42)
NANO_EXCLUDED = [
    "lm_head",
    *(f"backbone.layers.{layer - 1}.mixer.{part}" for layer in NANO_ATTENDS for part in ("in_proj", "out_proj")),
    *(f"backbone.layers.{layer}.mixer.{part}_proj" for layer in NANO_ATTENDS for part in "qkvo"),
    *(
        f"backbone.layers.{layer}.mixer.conv1d"
        for layer, kind in enumerate(CONFIGS[NANO]["hybrid_override_pattern"])
        if kind == "M"
    ),
]
"""`exclude_modules` of Nemotron-3-Nano-30B-A3B-NVFP4: the head, what attends, what is before it, all convolutions."""

SUPER_FP8 = {
    "in_proj": "0 2 4 6 9 11 13 15 18 20 27 29 31 40 49 51 53 55 57 60 62 66 68 71 73 82 84 86",
    "out_proj": "0 2 4 9 11 13 18 38 40 42 44 49 51 53 55 57 60 62 64 66 68 71 73 75 77 80 82 84 86",
    "shared_experts.up_proj": "1 3 5 8 10 12 14 17 19 21 23 26 28 30 32 34 37 39 43 45 48 50 52 54 56 59 61 63 65 67 "
    "70 72 74 76 79 81 83 85 87",
    "shared_experts.down_proj": "3 5 10 12 14 17 19 21 23 26 28 30 32 34 37 39 41 43 45 48 50 52 54 56 59 61 63 65 67 "
    "70 72 74 79 81 83 85 87",
    "fc1_latent_proj": "1 3 5",
    "fc2_latent_proj": "3",
    "o_proj": "69 78",
}
"""Layers of Nemotron-3-Super-120B-A12B-NVFP4 whose module of this name is FP8 with one scale."""


def nvfp4(module: str, shape: tuple[int, ...]) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    rows, columns = shape
    yield f"{module}.weight", "U8", (rows, columns // 2)
    yield f"{module}.weight_scale", "F8_E4M3", (rows, columns // 16)
    yield f"{module}.weight_scale_2", "F32", ()
    yield f"{module}.input_scale", "F32", ()


def published(name: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Names, dtypes and shapes of the published NVFP4 checkpoint, from the family's list and NVIDIA's recipes."""
    fp8 = {f"backbone.layers.{layer}.mixer.{part}" for part, layers in SUPER_FP8.items() for layer in layers.split()}
    packed = {Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.LINEAR_ATTENTION}
    for header, (dtype, shape) in headers_for(CONFIGS[name], Variant()).items():
        module, _, part = header.rpartition(".")
        role = ROLES[name].role(header)
        matrix = len(shape) == 2 and part == "weight"
        if name == NANO:
            is_packed = matrix and role.role in packed and module not in NANO_EXCLUDED
        else:
            routed = role.role is Role.ROUTED_EXPERT and not role.mtp
            is_packed = routed or module == "backbone.layers.1.mixer.shared_experts.down_proj"
        if is_packed:
            yield from nvfp4(module, shape)
        elif name == SUPER and module in fp8:
            yield header, "F8_E4M3", shape
            yield f"{module}.weight_scale", "F32", ()
            yield f"{module}.input_scale", "F32", ()
        elif name == NANO and part == "weight" and role.role is Role.ROUTER:
            yield header, "F32", shape
        else:
            yield header, dtype, shape
        if name == SUPER and module.endswith((".k_proj", ".v_proj")) and not role.mtp:
            yield f"{module}.{module[-6]}_scale", "F32", ()


ROLES = {name: roles_of(CONFIGS[name]) for name in (NANO, SUPER)}


PINNED = [(NANO, 24_147, 19_339_781_632), (SUPER, 165_860, 80_297_329_824)]


@pytest.mark.parametrize(("name", "tensors", "size"), PINNED)
def test_published_nvfp4_checkpoints(name: str, tensors: int, size: int) -> None:
    found = {}
    for header, dtype, shape in published(name):
        held = prod(shape) * DTYPE_BYTES[dtype]
        found[header] = Tensor(header, "model.safetensors", dtype, shape, 0, held)
    assert len(found) == tensors
    assert sum(tensor.bytes for tensor in found.values()) == size
    entries = inventory(found, ROLES[name])
    shapes: dict[tuple[Role, str | None], set[tuple[int, ...]]] = {}
    for tensor in promised_tensors(ROLES[name].arch):
        shapes.setdefault((tensor.role, tensor.projection), set()).add(tensor.shape)
    for entry in entries:
        if entry.role.part == "weight" and len(entry.shape) == 2:
            assert entry.shape in shapes[entry.role.role, entry.role.projection]


def test_engines_read_nvidias_list_as_it_is_stored() -> None:
    """Neither asks about the router or a convolution; the rest is excluded exactly where it is not packed."""
    entries = inventory(
        {name: Tensor(name, "a", dtype, shape, 0, 0) for name, dtype, shape in published(NANO)}, ROLES[NANO]
    )
    asked = [
        (entry.role, entry.format == "nvfp4")
        for entry in entries
        if entry.role.part == "weight"
        and len(entry.shape) == 2
        and entry.role.role not in (Role.ROUTER, Role.EMBEDDING)
    ]
    assert contradictions(NANO_EXCLUDED, asked, gated=False) == []
    assert contradictions(NANO_EXCLUDED, asked, gated=True) == []
    wrong = [entry for entry in NANO_EXCLUDED if entry != "backbone.layers.5.mixer.q_proj"]
    assert contradictions(wrong, asked, gated=False) != []


AS_NANO = {
    "version": 1,
    "name": "as-nano",
    "roles": {
        "routed_expert": "nvfp4",
        "shared_expert": "nvfp4",
        "linear_attention": {"in_proj": "nvfp4", "out_proj": "nvfp4"},
    },
}
POLICY = {
    "version": 1,
    "name": "mine",
    "formats": {"roles": {"shared_expert": ["nvfp4", "bf16"], "linear_attention": ["nvfp4", "bf16"]}},
}


@pytest.mark.parametrize("name", [NANO, SUPER])
def test_mamba_and_shared_experts_may_be_packed_as_nvidia_does(name: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(json.dumps(AS_NANO))
    (tmp_path / "policy.yaml").write_text(json.dumps(POLICY))
    out, rows = tmp_path / "out", rows_beside(source(name))
    run("quantize", source(name), out, "--recipe", tmp_path / "recipe.yaml", "--calibrate", rows)
    assert run("verify", source(name), out)["ok"]
    judged = gate(out, "--policy", tmp_path / "policy.yaml", "--depth", "full")
    assert judged["decision"] == "pass"
    denied = [found["rule"] for found in gate(out, code=1)["findings"] if found["severity"] == "deny"]
    assert set(denied) == {"selective.role-format"}
    assert run("compare", source(name), out, "--data", rows)["kl"]["mean"] > 0
    groups = {(group["role"], group["format"]): group["tensors"] for group in run("inspect", out)["groups"]}
    assert groups["linear_attention", "nvfp4"] == 2 * 2
    assert groups["shared_expert", "nvfp4"] == 2 * 2


def test_no_engine_is_known_to_take_other_mixers_packed() -> None:
    recipe = Recipe.parsed(json.dumps(AS_NANO), "a")
    assert recipe.engine_problems(ROLES[NANO]) == []
    whole = Recipe.parsed(json.dumps(AS_NANO | {"roles": {"linear_attention": "nvfp4"}}), "a")
    assert any("linear_attention" in problem for problem in whole.engine_problems(ROLES[NANO]))
    others = Recipe.parsed(json.dumps(AS_NANO | {"roles": {"linear_attention": {"out_proj": "nvfp4"}}}), "a")
    assert any(
        "linear_attention" in problem for problem in others.engine_problems(roles_of(config("Qwen3-Next-80B-A3B")))
    )


# Configs and names that are refused


REFUSED: list[tuple[dict[str, Any], type[HalfbyteError], str]] = [
    ({"hybrid_override_pattern": "M-M*-"}, UnsupportedError, "without a mixture of experts"),
    ({"hybrid_override_pattern": "MEX*E"}, CheckpointError, r"hybrid_override_pattern\[2\] is 'X'"),
    ({"hybrid_override_pattern": "MEM*"}, CheckpointError, "num_hidden_layers is 5, its pattern has 4 layers"),
    ({"hybrid_override_pattern": None}, CheckpointError, "no hybrid_override_pattern and no layers_block_type"),
    ({"hybrid_override_pattern": 7}, CheckpointError, "says what each layer is"),
    ({"n_shared_experts": 2}, UnsupportedError, "n_shared_experts is not 1"),
    ({"mlp_bias": True}, UnsupportedError, "mlp_bias is true"),
    ({"use_bias": True}, UnsupportedError, "use_bias is true"),
    ({"mtp_hybrid_override_pattern": "ME"}, UnsupportedError, "prediction layers of state, experts"),
    ({"mamba_ssm_cache_dtype": "float8"}, CheckpointError, "mamba_ssm_cache_dtype is 'float8'"),
    ({"mamba_num_heads": 0}, CheckpointError, "mamba_num_heads"),
]


@pytest.mark.parametrize(("changes", "kind", "words"), REFUSED)
def test_configs_that_are_refused(changes: dict[str, Any], kind: type[HalfbyteError], words: str) -> None:
    with pytest.raises(kind, match=words):
        architecture_of(small_config(SUPER) | changes)


@pytest.mark.parametrize(
    ("model_type", "words"), [("nemotron_h_omni", "pictures and sound"), ("nemotron_h_puzzle", "in each layer")]
)
def test_relatives_are_refused_with_their_reason(model_type: str, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        roles_of(small_config(NANO) | {"model_type": model_type})


def test_layers_by_words_are_those_by_letters() -> None:
    """As published (Ultra) and as transformers saves them."""
    words = {"M": "mamba", "E": "moe", "*": "attention"}
    spelled = config(SUPER)
    pattern = spelled.pop("hybrid_override_pattern")
    spelled["layers_block_type"] = [words[letter] for letter in pattern]
    spelled.pop("mtp_hybrid_override_pattern")
    spelled["mtp_layers_block_type"] = ["attention", "moe"]
    spelled.pop("num_hidden_layers")
    assert architecture_of(spelled) == architecture_of(config(SUPER))


UNKNOWN = [
    ("backbone.layers.0.mixer.q_proj.weight", "no such module in a Mamba layer"),
    ("backbone.layers.3.mixer.in_proj.weight", "no such module in an attention layer"),
    ("backbone.layers.3.mixer.experts.0.up_proj.weight", "layer 3 is an attention layer by the config"),
    ("backbone.layers.1.mixer.experts.0.gate_proj.weight", "no such expert tensor"),
    ("backbone.layers.1.mixer.experts.4.up_proj.weight", "the config has 4 experts"),
    ("backbone.layers.6.norm.weight", "the config has layers 0 to 4"),
    ("mtp.layers.2.norm.weight", "no such module in the 1 MTP layer"),
    ("model.layers.1.norm.weight", "this checkpoint's name of it is 'backbone.layers.1.norm.weight'"),
]


@pytest.mark.parametrize(("name", "words"), UNKNOWN)
def test_names_that_are_no_tensors_of_it(name: str, words: str) -> None:
    with pytest.raises(UnknownTensorError, match=words):
        roles_of(small_config(SUPER)).role(name)


def test_a_mlp_layer_beside_experts(tmp_path: Path) -> None:
    """transformers and vLLM know such layers; no published checkpoint with experts has one."""
    changes = {"hybrid_override_pattern": "ME-*E"}
    src = checkpoint_with(tmp_path / "src", NANO, changes, {})
    run("quantize", src, tmp_path / "out", "--calibrate", rows_beside(src))
    assert run("verify", src, tmp_path / "out")["ok"]
    assert gate(tmp_path / "out", "--engine", "vllm", "--depth", "full")["decision"] == "pass"
    ids = sequences(256, (17, 5))
    for got, want in zip(streamed_logits(src, ids), whole_logits(src, ids), strict=True):
        assert torch.equal(got, want)


def test_drawn_bias_decides_routing() -> None:
    """The small checkpoints' correction biases are random, so a router that left them out would be seen."""
    random = np.random.default_rng(0)
    assert np.ptp(drawn(random, {}, "F32", (4,))) > 0
