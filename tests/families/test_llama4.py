"""Llama 4: experts in stacks that take their input times the score, beside a tower.

`test_towers` takes a small one through the commands. Here: Scout's and Maverick's sums, to the byte what ModelOpt
exports of a small one and what it calibrates, the same bits as transformers at shapes where fewer rows would round
otherwise, and what is refused.
"""

import json
from functools import cache
from math import prod
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from plan.models import server
from quantize import stacked
from stream.models import sequences, streamed_logits
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts

from halfbyte.api import calibrate, convert, gate, inspect, quantize, search, verify
from halfbyte.errors import UnsupportedError, UsageError
from halfbyte.models import architecture_of, promised_tensors, roles_of
from halfbyte.modules.experts import check_plain
from halfbyte.plan.kv import kv_stage
from halfbyte.plan.target import on_paper
from halfbyte.stream.observer import Observer

from .test_towers import LLAMA4, LLAMA4_VISION

GOLDEN: dict[str, Any] = json.loads((stacked.ROOT / "tests/golden/llama4_modelopt.json").read_text())
FIRST = "language_model.model.layers.1.feed_forward.experts.gate_up_proj"
SCOUT: dict[str, Any] = {
    "model_type": "llama4_text",
    "attention_bias": False,
    "attention_chunk_size": 8192,
    "head_dim": 128,
    "hidden_size": 5120,
    "interleave_moe_layer_step": 1,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "max_position_embeddings": 10485760,
    "no_rope_layers": [],
    "num_attention_heads": 40,
    "num_experts_per_tok": 1,
    "num_hidden_layers": 48,
    "num_key_value_heads": 8,
    "num_local_experts": 16,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "use_qk_norm": True,
    "vocab_size": 202048,
}
MAVERICK = SCOUT | {
    "interleave_moe_layer_step": 2,
    "max_position_embeddings": 1048576,
    "moe_layers": list(range(1, 48, 2)),
    "num_local_experts": 128,
    "use_qk_norm": False,
}
VISION = {
    "hidden_size": 1408,
    "intermediate_size": 5632,
    "num_hidden_layers": 34,
    "projector_input_dim": 4096,
    "projector_output_dim": 4096,
    "vision_output_dim": 4096,
}


def wrapped(text: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"model_type": "llama4", "text_config": text | changes, "vision_config": VISION}


@cache
def source() -> Path:
    return stacked.llama4(Path(mkdtemp(prefix="halfbyte-llama4-")) / "source")


@cache
def quantized() -> Path:
    quantize(source(), source().parent / "nvfp4")
    return source().parent / "nvfp4"


def float_of(bits: str) -> float:
    return float(np.array([int(bits, 16)], np.uint32).view(np.float32)[0])


@pytest.mark.parametrize(
    ("text", "numbers", "published"),
    [(SCOUT, 107_769_861_120, 108_641_793_536), (MAVERICK, 400_711_848_960, 401_583_781_376)],
)
def test_sums_of_the_published(text: dict[str, Any], numbers: int, published: int) -> None:
    """Element totals of the model hub, quoted in public model tables; the text model's own to the number."""
    arch = architecture_of(wrapped(text))
    total = sum(tensor.count * prod(tensor.shape) for tensor in promised_tensors(arch))
    assert total == numbers
    assert total + arch.vision_bytes // 2 == pytest.approx(published, rel=1e-3)


def test_chunked_layers_keep_all_tokens_in_the_plan() -> None:
    """As vLLM does unless told otherwise (its pull request 21761): 48 layers, 8 heads of 128, keys and values."""
    model = on_paper("Scout", wrapped(SCOUT), "nvfp4-routed-experts")
    d = server(model, gpus=1, engine="vllm", kv_dtype="bf16")
    assert kv_stage(model.arch, d, d.limits(model.arch), range(48), last=True).token_bytes == 48 * 2 * 8 * 128 * 2


def test_all_bytes_of_an_export_are_modelopts(tmp_path: Path) -> None:
    """Names, dtypes, shapes, bytes, towers too, and the list of what is not quantized."""
    scales = {name.replace("_input_scale", ".input_scale"): float_of(b) for name, b in GOLDEN["input_scales"].items()}
    (tmp_path / "scales.json").write_text(json.dumps(scales))
    quantize(source(), tmp_path / "out", input_scale=tmp_path / "scales.json")
    _, tensors = stacked.arrays(tmp_path / "out")
    assert {name: stacked.described(array) for name, array in tensors.items()} == GOLDEN["tensors"]
    ours = json.loads((tmp_path / "out/hf_quant_config.json").read_text())["quantization"]
    theirs = GOLDEN["hf_quant_config"]["quantization"]
    assert {entry.replace(".*", "*") for entry in ours.pop("exclude_modules")} == set(theirs["exclude_modules"])
    assert ours.items() <= theirs.items()


def test_calibrated_is_what_modelopt_calibrates(tmp_path: Path) -> None:
    """Input times score. ModelOpt computed in BF16, hence a few percent; inputs alone are twice as large."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, LLAMA4["vocab_size"], (64,), generator=generator).tolist() for _ in range(4)]
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps({"input_ids": row}) for row in rows))
    result = calibrate(source(), [str(tmp_path / "data.jsonl")], tmp_path / "scales.json", amax="max")
    for name, bits in GOLDEN["input_scales"].items():
        assert result.scales[name.removesuffix("_input_scale")] == pytest.approx(2688 * float_of(bits), rel=0.03)


class Given(Observer):
    """What experts were given, by expert of the first layer that has any."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.chosen: list[torch.Tensor] = []

    def router(self, layer: int, sequence: int, expert_index: torch.Tensor) -> None:
        if layer == 1:
            self.chosen.append(expert_index.flatten().clone())

    def expert_input(self, layer: int, expert: int, x: torch.Tensor) -> None:
        if layer == 1:
            self.rows[expert] = self.rows.get(expert, 0) + int(x.abs().amax(-1).count_nonzero())

    def expert_intermediate(self, layer: int, expert: int, x: torch.Tensor) -> None:
        if layer == 1:
            self.rows[expert] -= len(x)


def test_an_observer_sees_the_tokens_of_an_expert_and_no_zeros() -> None:
    given = Given()
    streamed_logits(source(), sequences(256), given)
    assert sum(map(len, given.chosen)) == sum(map(len, sequences(256)))
    assert given.rows == dict.fromkeys(torch.cat(given.chosen).unique().tolist(), 0)


@pytest.mark.parametrize(
    ("changes", "lengths"),
    [
        ({"hidden_size": 640, "intermediate_size": 256, "num_local_experts": 8}, (7, 1, 9)),
        ({"interleave_moe_layer_step": 1, "num_local_experts": 20, "num_experts_per_tok": 2}, (40, 17)),
        ({"use_qk_norm": False, "attn_temperature_tuning": False, "no_rope_layers": [1, 0, 1, 0]}, (40, 17)),
    ],
)
def test_streamed_logits_are_transformers_bits(
    changes: dict[str, Any], lengths: tuple[int, ...], tmp_path: Path
) -> None:
    """At shapes at which a product of an expert's own rows alone rounds otherwise, of more than 16 experts, of
    Maverick's attention; in files too."""
    torch.manual_seed(1)
    config = AutoConfig.for_model("llama4", text_config=LLAMA4 | changes, vision_config=LLAMA4_VISION)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    model.save_pretrained(tmp_path / "saved")
    ids = sequences(256, lengths)
    with torch.no_grad():
        wanted = [model(input_ids=row[None], use_cache=False).logits[0] for row in ids]
    for work in (None, tmp_path / "work"):
        for got, want in zip(streamed_logits(tmp_path / "saved", ids, work=work), wanted, strict=True):
            assert torch.equal(got, want)


def test_vllm_takes_it_and_sglang_stops() -> None:
    assert verify(source(), quantized()).ok
    for engine, decision in (("vllm", "pass"), ("sglang", "refused")):
        found = gate(quantized(), engine=engine, depth="full", source=source()).as_json()
        assert found["decision"] == decision
        denied = [finding["message"] for finding in found["findings"] if finding["severity"] == "deny"]
        assert all("takes the block scales of a stack of experts for those of one" in message for message in denied)


def test_a4_rounds_by_the_scale_of_the_stack(tmp_path: Path) -> None:
    ids = sequences(256)
    plain, rounded = (
        torch.cat(streamed_logits(quantized(), ids, activations=activations)) for activations in ("a16", "a4-sim")
    )
    assert rounded.isfinite().all()
    assert 0 < (plain - rounded).abs().max() < plain.abs().max()


def test_what_takes_experts_one_by_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"input_ids": [*range(30)]}))
    data = [str(tmp_path / "data.jsonl")]
    with pytest.raises(UnsupportedError, match="one stack with one weight_scale_2"):
        quantize(source(), tmp_path / "a", rounding="gptq", calibrate=data)
    with pytest.raises(UnsupportedError, match="search weighs experts one by one"):
        search(source(), data=data, bits=5.0)
    with pytest.raises(UnsupportedError, match="a stack of experts, which compressed-tensors has no layout for"):
        convert(quantized(), tmp_path / "b", layout="compressed-tensors")
    with pytest.raises(UsageError, match="stacks with one input_scale"):
        calibrate(source(), data, tmp_path / "c.json", per_expert=True)
    with torch.device("meta"):
        experts = Llama4TextExperts(AutoConfig.for_model(**LLAMA4))
    with pytest.raises(UnsupportedError, match="Llama4TextExperts computes experts in its own way"):
        check_plain(experts, "experts")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_bias": True}, "attention_bias is true"),
        ({"moe_layers": [0, 1]}, "moe_layers is not every layer by interleave_moe_layer_step 1"),
    ],
)
def test_what_engines_build_otherwise_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        architecture_of(wrapped(SCOUT, **changes))


def test_the_text_model_alone_is_planned_only() -> None:
    assert architecture_of(SCOUT) == architecture_of(wrapped(SCOUT) | {"vision_config": None})
    with pytest.raises(UnsupportedError, match="known beside other towers, not by themselves"):
        roles_of(SCOUT)


def test_inspect_finds_the_roles() -> None:
    found = {(group["role"], group["format"]) for group in inspect(quantized()).as_json()["groups"]}
    assert {("routed_expert", "nvfp4"), ("shared_expert", "bf16"), ("dense_mlp", "bf16"), ("tower", "bf16")} <= found
    assert {form for role, form in found if role != "routed_expert"} == {"bf16"}
