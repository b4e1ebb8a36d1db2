"""LongCat-Flash: two attentions and two MLPs a layer, experts whose output takes a shortcut, identities among them.

Every family's test has a small one in the published names. Here: the published sum, its MTP layer, what transformers
saves (which has weights for identities), the cache of two attentions a layer, and what is refused.
"""

import json
from functools import cache
from math import prod
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from export.checkpoints import family_checkpoint, write_tokenizer
from plan.models import paper, server
from stream.models import sequences, streamed_logits, whole_logits
from transformers import AutoConfig, AutoModelForCausalLM

from halfbyte.api import gate, quantize
from halfbyte.chat.hf import Transformers
from halfbyte.chat.options import Sampling
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import UnknownTensorError, UnsupportedError
from halfbyte.models import architecture_of, promised_tensors, roles_of
from halfbyte.plan.kv import kv_stage
from halfbyte.recipes.recipe import Recipe
from halfbyte.stream.observer import Observer

from .configs import CONFIGS
from .test_every_family import rows_beside, run

NAME = "LongCat-Flash-Chat"
PUBLISHED = CONFIGS[NAME]
IDLE = ("model.layers.0.mlp.experts.4.gate_proj.weight", "model.layers.2.mlp.experts.5.up_proj.weight")


@cache
def folder() -> Path:
    return Path(mkdtemp(prefix="halfbyte-longcat-"))


@cache
def with_mtp() -> Path:
    return family_checkpoint(folder() / "mtp", NAME, num_nextn_predict_layers=1)


@cache
def saved() -> Path:
    """As transformers saves it, the published keys that it has no use for stated too."""
    torch.manual_seed(0)
    text = json.loads((with_mtp() / "config.json").read_text())
    config = AutoConfig.for_model(**{key: value for key, value in text.items() if not key.startswith("num_nextn")})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):  # published so, and the gate wants it so
            buffer.data = torch.randn(buffer.shape) * 0.05
    model.save_pretrained(folder() / "saved")
    write_tokenizer(folder() / "saved", "longcat_flash")
    return folder() / "saved"


@cache
def quantized(source: Path) -> Path:
    out = source.with_name(source.name + "-nvfp4")
    run("quantize", source, out, "--calibrate", rows_beside(source))
    return out


def test_the_published_sum() -> None:
    """Of the model hub, quoted in a public list of models: 561,862,880,256, the MTP layer and its embedding too."""
    tensors = promised_tensors(architecture_of(PUBLISHED | {"num_nextn_predict_layers": 1}))
    assert sum(tensor.count * prod(tensor.shape) for tensor in tensors) == 561_862_880_256
    main = [tensor for tensor in tensors if not tensor.mtp]
    assert [tensor.name for tensor in main] == [tensor.name for tensor in promised_tensors(architecture_of(PUBLISHED))]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("source", [with_mtp, saved])
def test_what_is_quantized_passes_the_gate(source: Any, engine: str) -> None:
    out = quantized(source())
    assert run("verify", source(), out)["ok"]
    words = ("--engine", engine, "--depth", "full", "--source", source(), "--format", "json")
    assert run("gate", out, *words)["decision"] == "pass"


def test_the_mtp_layer_is_kept() -> None:
    with Checkpoint.open(with_mtp()) as before, Checkpoint.open(quantized(with_mtp())) as after:
        kept = [name for name in before.tensors if name.startswith("model.mtp.")]
        assert {"model.mtp.embed_tokens.weight", "model.mtp.layers.0.enorm.m.weight", "model.mtp.norm.weight"} < {*kept}
        assert len(kept) == 17
        for name in kept:
            assert after.tensors[name].shape == before.tensors[name].shape
        assert "model.mtp*" in after.config["quantization_config"]["ignore"]


def test_weights_of_experts_without_weights_are_left_out_by_name() -> None:
    with Checkpoint.open(saved()) as before, Checkpoint.open(quantized(saved())) as after:
        roles = roles_of(before.config)
        left_out = set(roles.buffers(before.tensors))
        assert {*IDLE} < left_out
        assert len(left_out) == 3 * 2 * 2
        assert not left_out & set(after.tensors)
    assert set(run("inspect", saved())["buffers"]) == left_out


@pytest.mark.parametrize("name", ["model.layers.0.mlp.experts.6.gate_proj.weight", "model.layers.0.mlp.experts.06.x"])
def test_an_expert_beyond_the_identities_is_unknown(name: str) -> None:
    roles = roles_of(json.loads((saved() / "config.json").read_text()))
    assert not roles.is_buffer(name)
    with pytest.raises(UnknownTensorError):
        roles.role(name)


class Chosen(Observer):
    def __init__(self) -> None:
        self.experts = torch.zeros(6, dtype=torch.int64)
        self.seen: set[int] = set()

    def router(self, layer: int, sequence: int, expert_index: torch.Tensor) -> None:
        self.experts += torch.bincount(expert_index.flatten(), minlength=6)

    def expert_input(self, layer: int, expert: int, x: torch.Tensor) -> None:
        self.seen.add(expert)


@pytest.mark.parametrize("source", [with_mtp, saved])
def test_streamed_logits_are_transformers_bits(source: Any, tmp_path: Path) -> None:
    """Of a checkpoint without weights of identities, and of one with; in files too."""
    ids, chosen = sequences(256), Chosen()
    wanted = whole_logits(source(), ids)
    for got, want in zip(streamed_logits(source(), ids, chosen), wanted, strict=True):
        assert torch.equal(got, want)
    assert chosen.experts.min() > 0
    assert chosen.seen == {0, 1, 2, 3}
    for got, want in zip(streamed_logits(source(), ids, work=tmp_path), wanted, strict=True):
        assert torch.equal(got, want)


def test_calibrated_scales_are_of_experts_with_weights(tmp_path: Path) -> None:
    run("calibrate", saved(), "--data", rows_beside(saved()), "-o", tmp_path / "scales.json")
    written = json.loads((tmp_path / "scales.json").read_text())
    assert len(written["halfbyte"]["experts"]["0"]["tokens"]) == 4
    assert {f"model.layers.{n}.mlp.experts.{part}" for n in range(3) for part in ("gate_up_proj", "down_proj")} == {
        name for name in written if ".experts." in name
    }


def test_compare() -> None:
    found = run("compare", saved(), quantized(saved()), "--data", rows_beside(saved()), "--a4-sim")
    assert 0 < found["kl"]["mean"] < 1e-4
    assert 0 < found["a4_sim"]["kl"]["mean"] < 1e-4


def test_a_plan_counts_two_attentions_and_no_work_for_identities() -> None:
    """Both engines give each attention of a layer a cache of its own (vLLM at 055e47c, SGLang at 01f67c3). Of 12
    experts that a token goes to, 8 of 512 have weights, where all 768 are alike."""
    model = paper(NAME)
    for engine, dtype, number in (("vllm", "bf16", 2), ("sglang", "bf16", 2), ("vllm", "fp8", 1)):
        d = server(model, engine=engine, kv_dtype=dtype)
        stage = kv_stage(model.arch, d, d.limits(model.arch), range(28), last=True)
        assert stage.latent == 56 * 576 * number
    assert (model.arch.visited, model.arch.depth) == (8.0, 56)
    words = ("--recipe", "nvfp4-routed-experts", "--gpu", "h100", "--gpus", "1")
    assert run("plan", with_mtp() / "config.json", *words)["fits"]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_mlps_are_quantized_where_experts_are_kept(engine: str, tmp_path: Path) -> None:
    """`mlp*` would name `mlps.0` too, and each of a layer's two MLPs has a second scale of its own. The policy denies
    such a recipe, and nothing else is denied."""
    roles = {"dense_mlp": "nvfp4", "routed_expert": "keep"}
    recipe = Recipe.named("nvfp4-mlp").model_dump() | {"layers": {"overrides": [{"layers": [1], "roles": roles}]}}
    quantize(with_mtp(), tmp_path / "out", recipe=Recipe.model_validate(recipe))
    listed = json.loads((tmp_path / "out/hf_quant_config.json").read_text())["quantization"]["exclude_modules"]
    assert {"model.layers.1.mlp.*", "model.layers.0.mlp.router*"} <= set(listed)
    found = gate(tmp_path / "out", engine=engine, depth="full").as_json()["findings"]
    assert {finding["rule"] for finding in found if finding["severity"] == "deny"} == {"selective.role-format"}


def test_chat_takes_what_transformers_loads() -> None:
    engine = Transformers(saved())
    assert [*engine.stream([{"role": "user", "content": "the thing"}], [], Sampling(max_tokens=2))]
    for source in (with_mtp(), quantized(saved())):
        with pytest.raises(UnsupportedError, match="transformers wants weights of the experts that have none"):
            Transformers(source)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_bias": True}, "attention_bias is true"),
        ({"router_bias": True}, "router_bias is true"),
        ({"mla_scale_q_lora": False}, "mla_scale_q_lora is false"),
        ({"zero_expert_type": "copy"}, "zero_expert_type is 'copy'"),
    ],
)
def test_what_is_not_described_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        architecture_of(PUBLISHED | changes)
