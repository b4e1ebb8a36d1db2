"""Gemma 4 with experts: two branches in each layer, two kinds of heads, scaled layers, capped logits.

A small text model, saved as transformers saves it, goes through what `test_every_family` and `test_towers` do not ask:
numbers that matter (scales near one, a cap that is reached), lists that engines read, names of other makers.
"""

import json
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
from runtime.models import load, read
from small import small_config
from stream.models import sequences, streamed_logits, whole_logits, whole_model
from torch import Tensor
from torch.func import jacrev
from transformers import AutoConfig, AutoModelForCausalLM

from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor as Stored
from halfbyte.engines.catalogue import ENGINES
from halfbyte.errors import CheckpointError, HalfbyteError, UnknownTensorError, UnsupportedError
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.models import architecture_of, promised_tensors, roles_of
from halfbyte.models.roles import Role
from halfbyte.process import rss_bytes
from halfbyte.runtime.packed import PackedExperts
from halfbyte.runtime.quantizer import packed_modules
from halfbyte.stream.branch import Branch
from halfbyte.stream.executor import Streamed
from halfbyte.stream.observer import Observer

from .configs import Config, config
from .headers import Variant, headers_for
from .test_every_family import rows_beside, run

NAME = "Gemma-4-26B-A4B-text"
CAP = 1.0
VISION = {
    "head_dim": 72,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "patch_size": 16,
    "position_embedding_size": 10240,
    "standardize": True,
}
"""As published beside the text model."""


def wrapped(text: Config) -> Config:
    return {"model_type": "gemma4", "text_config": text, "vision_config": VISION, "audio_config": None}


@cache
def source() -> Path:
    """Small, with norms and scales that differ and a cap that bends every logit."""
    folder, random = Path(mkdtemp(prefix="halfbyte-gemma4-")) / "source", np.random.default_rng(1)
    plain = family_checkpoint(folder.parent / "plain", NAME)
    with Checkpoint.open(plain) as checkpoint:
        scales = {
            name: (1 + 0.3 * random.standard_normal(tensor.shape)).astype(ml_dtypes.bfloat16)
            for name, tensor in checkpoint.tensors.items()
            if len(tensor.shape) == 1
        }
    return checkpoint_with(folder, NAME, {"final_logit_softcapping": CAP}, scales)


def quantized(folder: Path, *words: object) -> Path:
    run("quantize", source(), folder, "--input-scale", "1", *words)
    return folder


def gate(folder: Path, *words: object, code: int = 0) -> Any:
    return run("gate", folder, "--format", "json", *words, code=code)


# What is published


def test_the_tower_to_the_byte() -> None:
    """Report of the headers at revision 4d7ae49: 569,550,384 numbers of the tower, 3,244,032 of its projection."""
    assert architecture_of(wrapped(config(NAME))).vision_bytes == 2 * (569_550_384 + 3_244_032)


def test_the_groups_of_the_report() -> None:
    """The same report: 60 stacks of experts, 295 tensors of attention, MLPs and routers, 271 norms and 30 scalars."""
    numbers: dict[str, int] = {}
    for tensor in promised_tensors(architecture_of(config(NAME))):
        norm = tensor.role is Role.NORM or tensor.name.endswith("_norm.weight")
        group = "norms" if norm else "experts" if tensor.role is Role.ROUTED_EXPERT else "others"
        group = "embedding" if tensor.role is Role.EMBEDDING else group
        numbers[group] = numbers.get(group, 0) + tensor.count * prod(tensor.shape)
    assert numbers == {
        "experts": 22_837_985_280,
        "others": 1_656_346_880,
        "embedding": 738_197_504,
        "norms": 612_126,
    }


def weight_only(makers_name: str) -> dict[str, Stored]:
    """Attention, MLPs and experts in NVFP4 without input scales. makers_name: of what holds the experts."""
    found: dict[str, Stored] = {}
    roles = roles_of(wrapped(config(NAME)))
    for name, (dtype, shape) in headers_for(wrapped(config(NAME)), Variant()).items():
        spelled = name.replace(".experts.", f".{makers_name}.")
        packed = len(shape) == 2 and roles.role(name).role not in (Role.ROUTER, Role.EMBEDDING)
        parts = [(spelled, dtype, shape)]
        if packed:
            parts = [
                (spelled, "U8", (shape[0], shape[1] // 2)),
                (f"{spelled}_scale", "F8_E4M3", (shape[0], shape[1] // 16)),
                (f"{spelled}_scale_2", "F32", ()),
            ]
        for part, stored, size in parts:
            found[part] = Stored(part, "a", stored, size, 0, prod(size) * DTYPE_BYTES[stored])
    return found


def test_names_of_another_maker() -> None:
    """bg-digitalservices' NVFP4A16: a public loader's tests count 35,567 tensors of 15,271,399,280 bytes of text, the
    experts under `moe.experts`. ModelOpt 0.47 writes `experts`."""
    theirs, ours = weight_only("moe.experts"), weight_only("experts")
    assert "model.language_model.layers.0.moe.experts.0.gate_proj.weight_scale" in theirs
    for tensors in (theirs, ours):
        assert len(tensors) == 35_567
        assert sum(tensor.bytes for tensor in tensors.values()) == 15_271_399_280
    roles = roles_of(wrapped(config(NAME)))
    explained = [[entry.role._replace(module="") for entry in inventory(one, roles)] for one in (theirs, ours)]
    assert explained[0] == explained[1]
    module = "model.language_model.layers.29.{}.127.up_proj"
    assert roles.published(module.format("moe.experts")) == module.format("experts")


# How a config says it


def test_what_transformers_saves_says_the_same() -> None:
    """It writes what differs by layer instead of the two keys for layers without a window."""
    saved = config(NAME)
    far = {"head_dim": saved.pop("global_head_dim"), "num_key_value_heads": saved.pop("num_global_key_value_heads")}
    saved["per_layer_config"] = {str(layer): far for layer in range(5, 30, 6)}
    assert architecture_of(saved) == architecture_of(config(NAME))


def test_layers_that_are_not_stated() -> None:
    """Five with a window, one without; the last is without one, whatever is said."""
    stated = architecture_of(config(NAME))
    assert architecture_of({**config(NAME), "layer_types": None}) == stated
    assert architecture_of({**config(NAME), "layer_types": ["sliding_attention"] * 30}).sliding == frozenset(range(29))
    assert stated.keys_as_values == frozenset(range(5, 30, 6))


def test_values_of_their_own_without_the_key() -> None:
    """attention_k_eq_v also decides whether the fewer heads hold."""
    arch = architecture_of({**config(NAME), "attention_k_eq_v": False})
    assert (arch.kv_heads, arch.head_dim, arch.keys_as_values) == (8, 512, frozenset())
    assert any(tensor.name == "model.layers.5.self_attn.v_proj.weight" for tensor in promised_tensors(arch))


DENSE = {"enable_moe_block": False, "num_experts": None, "top_k_experts": None, "moe_intermediate_size": None}
REFUSED: list[tuple[dict[str, Any], type[HalfbyteError], str]] = [
    (DENSE, UnsupportedError, r"without experts \(E2B, E4B, 31B\) is not read"),
    ({"enable_moe_block": None}, UnsupportedError, "enable_moe_block is not true"),
    ({"hidden_size_per_layer_input": 256}, UnsupportedError, "hidden_size_per_layer_input is 256: embeddings of each"),
    ({"hidden_size_per_layer_input": None}, UnsupportedError, "hidden_size_per_layer_input is left out"),
    ({"num_kv_shared_layers": 18}, UnsupportedError, "num_kv_shared_layers is 18: layers that attend to another's"),
    ({"attention_bias": True}, UnsupportedError, "attention_bias is true"),
    ({"use_bidirectional_attention": "all"}, UnsupportedError, "writes no text"),
    ({"per_layer_config": 7}, CheckpointError, "per_layer_config is no table"),
    ({"per_layer_config": {"5": {"head_dim": 512}}}, UnsupportedError, "per_layer_config says more"),
    ({"per_layer_config": {"0": {"head_dim": 512}}}, UnsupportedError, "per_layer_config says more"),
    ({"top_k_experts": None}, CheckpointError, "top_k_experts"),
    ({"top_k_experts": 200}, CheckpointError, "200 experts a token, the model has 128"),
    ({"layer_types": ["linear_attention"] * 30}, UnsupportedError, "linear_attention"),
    ({"layer_types": ["full_attention"]}, CheckpointError, "not one entry for each of 30 layers"),
]


@pytest.mark.parametrize(("changes", "kind", "words"), REFUSED)
def test_configs_that_are_refused(changes: dict[str, Any], kind: type[HalfbyteError], words: str) -> None:
    with pytest.raises(kind, match=words):
        architecture_of(wrapped(config(NAME) | changes))


def test_a_dense_relative_is_refused_by_every_command_alike(tmp_path: Path) -> None:
    """Small, as transformers saves E2B: embeddings of each layer's own, shared keys, no experts."""
    text = small_config(NAME) | DENSE | {"hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 96}
    text |= {"num_kv_shared_layers": 2, "layer_types": text["layer_types"][1:3] * 2 + ["full_attention"]}
    settings = AutoConfig.for_model("gemma4_text", **{key: text[key] for key in text if key != "model_type"})
    src, out = tmp_path / "src", tmp_path / "out"
    AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16).save_pretrained(src)
    size = ("--gpu", "h100", "--gpus", 1)
    for words in (("inspect", src), ("quantize", src, out), ("plan", src, *size), ("plan", src / "config.json", *size)):
        assert "enable_moe_block is not true: Gemma 4 without" in run(*words, code=1)["error"]["message"]
    assert not out.exists()
    assert any("enable_moe_block is not true" in found["message"] for found in gate(src, code=1)["findings"])
    for model_type in ("gemma4_unified", "gemma4_unified_text"):
        with pytest.raises(UnsupportedError, match="Gemma 4 12B, which has no experts"):
            roles_of({**config(NAME), "model_type": model_type})


UNKNOWN = [
    ("model.layers.2.self_attn.v_proj.weight", "owns no 'weight'"),
    ("model.layers.0.experts.4.gate_proj.weight", "the config has 4 experts"),
    ("model.layers.0.moe.experts.4.gate_proj.weight", "the config has 4 experts"),
    ("model.layers.0.experts.0.w1.weight", "no such expert tensor"),
    ("model.layers.0.router.weight", "'router' owns no 'weight'"),
    ("model.layers.0.per_layer_input_gate.weight", "no such module in a MoE layer"),
    ("model.embed_tokens_per_layer.weight", "no such module in this family"),
    ("model.language_model.layers.0.layer_scalar", "no such module in this family"),
]


@pytest.mark.parametrize(("name", "words"), UNKNOWN)
def test_names_that_are_no_tensors_of_it(name: str, words: str) -> None:
    with pytest.raises(UnknownTensorError, match=words):
        roles_of(small_config(NAME)).role(name)


# Streamed


def test_streamed_logits_are_transformers_bits() -> None:
    """And without its cap, its scales or its last norm they would be others."""
    ids = sequences(256)
    wanted = whole_logits(source(), ids)
    for got, want in zip(streamed_logits(source(), ids), wanted, strict=True):
        assert torch.equal(got, want)
        assert 0.5 * CAP < want.abs().max() < CAP
    bounded = streamed_logits(source(), ids, memory_budget=rss_bytes() + 1_000_000_000)
    assert all(torch.equal(got, want) for got, want in zip(bounded, wanted, strict=True))
    model = whole_model(source())
    model.model.layers[0].layer_scalar += 1
    with torch.no_grad():
        assert not torch.equal(model(ids[0][None], use_cache=False).logits[0], wanted[0])


class Told(Observer):
    """How often each linear was asked, and what the experts were given."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.inputs: list[Tensor] = []
        self.chosen: list[Tensor] = []

    def linear_input(self, layer: int, module: str, x: Tensor) -> None:
        self.rows[module] = self.rows.get(module, 0) + x.shape[:-1].numel()

    def moe_input(self, layer: int, sequence: int, x: Tensor, energy: Tensor) -> None:
        self.inputs.append(x.clone())

    def router(self, layer: int, sequence: int, expert_index: Tensor) -> None:
        self.chosen.append(expert_index.clone())


def test_an_observer_sees_every_linear_once_and_what_experts_are_given() -> None:
    ids, told = sequences(256, (9,)), Told()
    streamed_logits(source(), ids, told)
    linears = ["q_proj", "k_proj", "v_proj", "o_proj"]
    modules = [f"self_attn.{name}" for name in linears] + ["router.proj"]
    modules += [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    wanted = {f"model.layers.{layer}.{name}" for layer in range(5) for name in modules}
    wanted -= {f"model.layers.{layer}.self_attn.v_proj" for layer in (2, 4)}
    assert told.rows == dict.fromkeys(wanted, 9)
    model, given, chosen = whole_model(source()), list[Tensor](), list[Tensor]()

    def keep(_: object, args: tuple[Tensor, ...]) -> None:
        given.append(args[0])
        chosen.append(args[1])

    for layer in model.model.layers:
        layer.experts.register_forward_pre_hook(keep)
    with torch.no_grad():
        model(ids[0][None], use_cache=False)
    for got, want in zip((*told.inputs, *told.chosen), (*given, *chosen), strict=True):
        assert torch.equal(got, want)


class Doubled(Branch):
    """The experts of its layer give twice as much."""

    def expert(self, layer: int, gate_up: Tensor, down: Tensor) -> tuple[Tensor, Tensor] | None:
        return (gate_up, 2 * down) if layer == self.layer else None


def test_a_branch_is_the_model_with_its_change() -> None:
    ids = sequences(256, (12, 5))
    with Streamed.open(source()) as model:
        model.start(ids, branches=[Doubled(3)])
        while model.next_layer < model.layers:
            model.step()
        got = [model.logits(len(ids) + i, 0, len(row)) for i, row in enumerate(ids)]
        own = [model.logits(i, 0, len(row)) for i, row in enumerate(ids)]
    changed = whole_model(source())
    changed.model.layers[3].experts.down_proj.data *= 2
    with torch.no_grad():
        for row, branched, plain in zip(ids, got, own, strict=True):
            assert torch.equal(branched, changed(row[None], use_cache=False).logits[0])
            assert not torch.equal(branched, plain)


def test_openness_is_the_fisher_trace_behind_the_cap() -> None:
    (ids,) = sequences(256, (7,))
    with Streamed.open(source()) as model:
        model.start([ids])
        while model.next_layer < model.layers:
            model.step()
        got, logits = model.openness(0, 0, 7), model.logits(0, 0, 7)
    whole = whole_model(source())
    head = whole.lm_head.weight
    for row, found in zip(logits, got, strict=True):
        hidden = torch.linalg.lstsq(head, torch.atanh(row / CAP)[:, None] * CAP).solution[:, 0]
        slopes = jacrev(lambda h: CAP * torch.tanh(head @ h / CAP))(hidden)  # [V, H]
        p = row.softmax(-1)
        wanted = p @ slopes.square().sum(-1) - (p @ slopes).square().sum()
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0.0)


# Quantized


def test_the_list_is_modelopts(tmp_path: Path) -> None:
    """As ModelOpt 0.47 writes it, but for the embedding, which it leaves out."""
    with Checkpoint.open(quantized(tmp_path / "out")) as checkpoint:
        named = set(checkpoint.config["quantization_config"]["ignore"])
        experts = {name for name in checkpoint.tensors if ".experts." in name}
    parts = ("mlp*", "router*", "self_attn*")
    assert named == {"lm_head", "model.embed_tokens"} | {f"model.layers.{i}.{part}" for i in range(5) for part in parts}
    linears = [f"{name}_proj.{part}" for name in ("gate", "up", "down") for part in PARTS]
    assert experts == {f"model.layers.{i}.experts.{e}.{one}" for i in range(5) for e in range(4) for one in linears}


PARTS = ("weight", "weight_scale", "weight_scale_2", "input_scale")


def recipe(folder: Path, **said: Any) -> Path:
    (folder / "recipe.yaml").write_text(json.dumps({"version": 1, "name": "mine", **said}))
    return folder / "recipe.yaml"


def test_a_v_proj_that_is_not_there_is_in_the_list(tmp_path: Path) -> None:
    """Engines fuse it with q_proj and k_proj and ask about all three."""
    mine = recipe(tmp_path, roles={"routed_expert": "nvfp4", "attention": {"o_proj": "nvfp4"}})
    out = quantized(tmp_path / "out", "--recipe", mine)
    with Checkpoint.open(out) as checkpoint:
        named = checkpoint.config["quantization_config"]["ignore"]
        assert "model.layers.2.self_attn.v_proj.weight" not in checkpoint.tensors
    assert "model.layers.2.self_attn.v_proj" in named
    for engine in ENGINES.values():
        assert engine.excluded(tuple(named), "model.layers.2.self_attn.qkv_proj")
        assert not engine.excluded(tuple(named), "model.layers.2.self_attn.o_proj")
    assert gate(out)["decision"] == "pass"


def test_experts_kept_beside_a_packed_mlp(tmp_path: Path) -> None:
    """Engines ask about them where they put them, in `moe.experts`."""
    keep = {"overrides": [{"layers": "1", "roles": {"routed_expert": "keep"}}]}
    mine = recipe(tmp_path, roles={"routed_expert": "nvfp4", "shared_expert": "nvfp4"}, layers=keep)
    out = quantized(tmp_path / "out", "--recipe", mine)
    with Checkpoint.open(out) as checkpoint:
        named = checkpoint.config["quantization_config"]["ignore"]
    assert "model.layers.1.moe*" in named
    for engine in ENGINES.values():
        for layer in (0, 1, 2):
            assert engine.excluded(tuple(named), f"model.layers.{layer}.moe.experts") is (layer == 1)
    assert gate(out, "--policy", "research")["decision"] == "pass"
    document = json.loads((out / "config.json").read_text())
    document["quantization_config"]["ignore"].remove("model.layers.1.moe*")
    (out / "config.json").write_text(json.dumps(document))
    found = [one["message"] for one in gate(out, "--policy", "research", code=1)["findings"]]
    assert any("model.layers.1.moe.experts is not excluded" in message for message in found)


def test_a_head_of_its_own_is_kept(tmp_path: Path) -> None:
    """Untied, as a fine-tuned copy may be."""
    random = np.random.default_rng(3)
    head = (random.standard_normal((320, 128)) * 0.05).astype(ml_dtypes.bfloat16)
    src = checkpoint_with(tmp_path / "src", NAME, {"tie_word_embeddings": False}, {"lm_head.weight": head})
    out = tmp_path / "out"
    run("quantize", src, out, "--calibrate", rows_beside(src))
    assert run("verify", src, out)["ok"]
    assert gate(out, "--engine", "vllm", "--depth", "full")["decision"] == "pass"
    ids = sequences(256, (11,))
    (got,), (want,) = streamed_logits(src, ids), whole_logits(src, ids)
    assert torch.equal(got, want)


def test_gate_tells_what_engines_do_with_cut_experts(tmp_path: Path) -> None:
    out, policy = quantized(tmp_path / "out"), tmp_path / "policy.yaml"
    policy.write_text(json.dumps({"version": 1, "name": "two", "hardware": {"tensor_parallel": 2}}))
    for engine, words in (("vllm", "its issue 55649"), ("sglang", "its issue 30887")):
        found = {one["rule"]: one for one in gate(out, "--policy", policy, "--engine", engine)["findings"]}
        told = found["loadability.tensor-parallel"]
        assert told["severity"] == "warn"
        assert "64 over 2 ranks leave 32 a rank, no multiple of 64" in told["message"]
        assert words in told["message"]


# In transformers


def test_transformers_computes_what_is_streamed_of_packed_experts(tmp_path: Path) -> None:
    """transformers knows stacks of its experts alone; the published names of packed ones are stacked here, and come
    back to disk as they were."""
    keep = {"overrides": [{"layers": "1", "roles": {"routed_expert": "keep"}}]}
    mine = recipe(tmp_path, roles={"routed_expert": "nvfp4", "shared_expert": "nvfp4"}, layers=keep)
    out, ids = quantized(tmp_path / "out", "--recipe", mine), sequences(256, (15,))
    model = load(out)
    packed = {path for path, module in packed_modules(model).items() if isinstance(module, PackedExperts)}
    assert packed == {f"model.layers.{layer}.experts" for layer in (0, 2, 3, 4)}
    with torch.no_grad():
        got = model(ids[0][None], use_cache=False).logits[0]
    torch.testing.assert_close(got, streamed_logits(out, ids)[0], atol=1e-5, rtol=1e-5)
    load(out, dtype=torch.bfloat16).save_pretrained(tmp_path / "again")
    with Checkpoint.open(out) as before, Checkpoint.open(tmp_path / "again") as after:
        assert set(before.tensors) == set(after.tensors)
        assert all(read(before, name) == read(after, name) for name in before.tensors)


@pytest.mark.parametrize("rounding", ["sweep", "weighted-sweep", "gptq"])
def test_roundings_pass_the_gate(rounding: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("quantize", source(), out, "--calibrate", rows_beside(source()), "--rounding", rounding)
    assert run("verify", source(), out)["ok"]
    assert gate(out, "--depth", "full")["decision"] == "pass"


def test_search_offers_what_quantize_takes(tmp_path: Path) -> None:
    found, out = tmp_path / "found.yaml", tmp_path / "out"
    run("search", source(), "--data", rows_beside(source()), "--gb", 0.0016, "-o", found)
    quantized(out, "--recipe", found)
    assert gate(out, "--policy", "research")["decision"] == "pass"
