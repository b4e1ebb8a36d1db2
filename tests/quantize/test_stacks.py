"""Stacks of experts (gpt-oss): the bytes are ModelOpt's, published MXFP4 keeps its numbers, damage is found."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import torch
from small import write_checkpoint
from stream.models import sequences, streamed_logits, whole_logits
from transformers import AutoModelForCausalLM, Mxfp4Config

from halfbyte.api import calibrate, compare, convert, gate, inspect, plan, quantize, search, verify
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.errors import CheckpointError, HalfbyteError, UnknownTensorError, UnsupportedError, UsageError
from halfbyte.formats.catalogue import BF16, MXFP4, NVFP4
from halfbyte.formats.nvfp4.codec import decode
from halfbyte.formats.nvfp4.reference import Encoded
from halfbyte.models import roles_of
from halfbyte.recipes.recipe import Recipe
from halfbyte.runtime.registration import register

from . import stacked

GOLDEN: dict[str, Any] = json.loads((stacked.ROOT / "tests/golden/gpt_oss_modelopt.json").read_text())
FIRST = "model.layers.0.mlp.experts.gate_up_proj"


@cache
def folder() -> Path:
    return Path(mkdtemp(prefix="halfbyte-stacks-"))


@cache
def bf16() -> Path:
    return stacked.bf16(folder() / "bf16")


@cache
def mxfp4() -> Path:
    return stacked.mxfp4(folder() / "mxfp4")


@cache
def dequantized() -> Path:
    return stacked.dequantized(mxfp4(), folder() / "dequantized")


@cache
def quantized() -> Path:
    """The published one in NVFP4."""
    quantize(mxfp4(), folder() / "nvfp4")
    return folder() / "nvfp4"


def all_but_one() -> Recipe:
    """The experts of layer 1 are kept."""
    overrides = {"overrides": [{"layers": [1], "roles": {"routed_expert": "keep"}}]}
    return Recipe.model_validate(Recipe.named("nvfp4-routed-experts").model_dump() | {"layers": overrides})


def copy_with(tmp_path: Path, source: Path, changes: dict[str, npt.NDArray[Any] | None]) -> Path:
    """A checkpoint with other tensors (None: without) and its own side files."""
    config, tensors = stacked.arrays(source)
    tensors |= {name: array for name, array in changes.items() if array is not None}
    kept = {name: array for name, array in tensors.items() if name not in changes or changes[name] is not None}
    return write_checkpoint(tmp_path / "copy", config, kept)


def digest(array: npt.NDArray[Any]) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def float_of(bits: str) -> float:
    return float(np.array([int(bits, 16)], np.uint32).view(np.float32)[0])


def test_all_bytes_of_an_export_are_modelopts(tmp_path: Path) -> None:
    """Names, dtypes, shapes, bytes, and the list of what is not quantized."""
    scales = {name.replace("_input_scale", ".input_scale"): float_of(b) for name, b in GOLDEN["input_scales"].items()}
    (tmp_path / "scales.json").write_text(json.dumps(scales))
    quantize(bf16(), tmp_path / "out", input_scale=tmp_path / "scales.json")
    _, tensors = stacked.arrays(tmp_path / "out")
    assert {name: stacked.described(array) for name, array in tensors.items()} == GOLDEN["tensors"]
    ours, theirs = json.loads((tmp_path / "out/hf_quant_config.json").read_text()), GOLDEN["hf_quant_config"]
    assert set(ours["quantization"].pop("exclude_modules")) == set(theirs["quantization"]["exclude_modules"])
    assert ours["quantization"].items() <= theirs["quantization"].items()


def test_published_stacks_become_what_modelopts_cast_makes_of_them() -> None:
    _, tensors = stacked.arrays(quantized())
    assert len(GOLDEN["cast"]) == 10
    for stack, wanted in GOLDEN["cast"].items():
        assert digest(tensors[stack]) == wanted["weight_sha256"], stack
        assert digest(tensors[f"{stack}_weight_scale"]) == wanted["weight_scale_sha256"], stack
        assert tensors[f"{stack}_weight_scale_2"] == np.float32(float_of(wanted["weight_scale_2"]))


def numbers(tensors: dict[str, npt.NDArray[Any]], stack: str) -> npt.NDArray[np.float32]:
    """What a stack in NVFP4 stands for, [E, K, N], by the reference of a matrix, expert by expert."""
    codes, scales = tensors[stack], tensors[f"{stack}_weight_scale"].view(np.uint8)
    second = np.float32(tensors[f"{stack}_weight_scale_2"])
    each = zip(codes, scales, strict=True)
    return np.stack([decode(Encoded(turned(one), turned(own), second)).T for one, own in each])


def turned(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(array.T)


def test_nothing_is_lost_but_what_is_told_by_name() -> None:
    """One block of one expert is 2^20 smaller than the largest of its stack."""
    _, source = stacked.arrays(mxfp4())
    _, ours = stacked.arrays(quantized())
    evidence = json.loads((quantized() / "halfbyte.json").read_text())
    told = {module: row["clamped_blocks"] for module, row in evidence["tensors"].items() if row["clamped_blocks"]}
    stack, expert = stacked.FAR
    assert told == {stack: 2}
    for name in GOLDEN["cast"]:
        want = stacked.decoded(source[f"{name}_blocks"], source[f"{name}_scales"])
        differs = np.argwhere(numbers(ours, name) != want)
        if name != stack:
            assert not len(differs), name
        else:
            assert {(e, k // 32, n) for e, k, n in differs.tolist()} == {(expert, 1, 5)}


def test_zero_blocks_stay_zero_and_do_not_set_the_scale(tmp_path: Path) -> None:
    _, tensors = stacked.arrays(mxfp4())
    blocks, scales = tensors[f"{FIRST}_blocks"].copy(), tensors[f"{FIRST}_scales"].copy()
    blocks[1, 3], scales[1, 3] = 0, 200
    source = copy_with(tmp_path, mxfp4(), {f"{FIRST}_blocks": blocks, f"{FIRST}_scales": scales})
    quantize(source, tmp_path / "out")
    _, ours = stacked.arrays(tmp_path / "out")
    assert np.array_equal(numbers(ours, FIRST), stacked.decoded(blocks, scales))
    assert json.loads((tmp_path / "out/halfbyte.json").read_text())["tensors"][FIRST]["zero_blocks"] == 8
    assert verify(source, tmp_path / "out").ok


def test_the_published_one_is_read_by_every_command(tmp_path: Path) -> None:
    groups = {(group["role"], group["format"]) for group in inspect(mxfp4()).as_json()["groups"]}
    assert {("routed_expert", MXFP4), ("routed_expert", BF16), ("attention", BF16)} <= groups
    assert {form for role, form in groups if role != "routed_expert"} == {BF16}
    assert verify(mxfp4(), quantized()).ok
    decision = gate(quantized(), engine="sglang", depth="full", source=mxfp4())
    assert decision.as_json()["decision"] == "pass"
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps({"input_ids": [*range(i, i + 30)]}) for i in range(4)))
    found = compare(mxfp4(), quantized(), data=[str(tmp_path / "data.jsonl")]).as_json()
    assert 0 <= found["kl"]["mean"] < 1e-6
    result = calibrate(mxfp4(), [str(tmp_path / "data.jsonl")], tmp_path / "scales.json")
    assert set(GOLDEN["cast"]) <= set(result.scales)
    quantize(mxfp4(), tmp_path / "out", input_scale=tmp_path / "scales.json")
    _, tensors = stacked.arrays(tmp_path / "out")
    assert tensors[f"{FIRST}_input_scale"] == np.float32(result.scales[FIRST]) / np.float32(2688)


@pytest.mark.parametrize(("made", "recipe"), [(mxfp4, None), (quantized, "nvfp4-routed-experts")])
def test_a_plan_from_headers_is_that_from_the_config(made: Callable[[], Path], recipe: str | None) -> None:
    asked: dict[str, Any] = {"gpu": "h100", "gpus": 2, "context": 1024}
    read = plan(str(made()), **asked).as_json()
    told = plan(str(made() / "config.json"), recipe=recipe, **asked).as_json()
    for key in ("checkpoint_bytes", "per_gpu", "terms", "throughput", "max_context"):
        assert read[key] == told[key], key


def test_streamed_logits_of_the_published_one_are_transformers_bits() -> None:
    """It decodes the blocks itself."""
    ids = sequences(256)
    model = AutoModelForCausalLM.from_pretrained(
        mxfp4(),
        quantization_config=Mxfp4Config(dequantize=True),
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    with torch.no_grad():
        wanted = [model(row[None], use_cache=False).logits[0] for row in ids]
    for got, want, same in zip(streamed_logits(mxfp4(), ids), wanted, streamed_logits(dequantized(), ids), strict=True):
        assert torch.equal(got, want)
        assert torch.equal(got, same)


def test_streamed_logits_of_stacks_in_nvfp4_are_those_of_their_numbers(tmp_path: Path) -> None:
    config, tensors = stacked.arrays(quantized())
    plain = {name: array for name, array in tensors.items() if not name.endswith(("_scale", "_scale_2"))}
    plain |= {stack: numbers(tensors, stack) for stack in GOLDEN["cast"]}
    del config["quantization_config"]
    folder, ids = write_checkpoint(tmp_path / "plain", config, plain), sequences(256)
    for got, want in zip(streamed_logits(quantized(), ids), whole_logits(folder, ids), strict=True):
        assert torch.equal(got, want)


def test_a4_rounds_by_the_scale_of_the_stack(tmp_path: Path) -> None:
    ids = sequences(256)
    _, tensors = stacked.arrays(quantized())
    name = FIRST.replace("gate_up_proj", "down_proj_input_scale")
    coarse = copy_with(tmp_path, quantized(), {name: tensors[name] * np.float32(2**16)})
    plain, rounded, other = (
        torch.cat(streamed_logits(folder, ids, activations=activations))
        for folder, activations in ((quantized(), "a16"), (quantized(), "a4-sim"), (coarse, "a4-sim"))
    )
    assert rounded.isfinite().all()
    assert not torch.equal(plain, rounded)
    assert (plain - other).abs().mean() > (plain - rounded).abs().mean()
    assert torch.equal(torch.cat(streamed_logits(coarse, ids)), plain)


def test_what_transformers_saves_goes_all_the_way(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(bf16(), dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "saved")
    for name in stacked.SIDE_FILES:
        (tmp_path / "saved" / name).write_bytes((bf16() / name).read_bytes())
    quantize(tmp_path / "saved", tmp_path / "out")
    assert verify(tmp_path / "saved", tmp_path / "out").ok
    decision = gate(tmp_path / "out", engine="sglang", depth="full", source=tmp_path / "saved")
    assert decision.as_json()["decision"] == "pass"


def test_a_stack_that_is_kept_lies_as_in_16_bits(tmp_path: Path) -> None:
    quantize(mxfp4(), tmp_path / "out", recipe=all_but_one())
    _, ours = stacked.arrays(tmp_path / "out")
    _, plain = stacked.arrays(dequantized())
    for stack in (name for name in GOLDEN["cast"] if ".layers.1." in name):
        assert ours[stack].dtype == ml_dtypes.bfloat16
        assert np.array_equal(ours[stack], plain[stack])
        assert f"{stack}_weight_scale" not in ours
    assert verify(mxfp4(), tmp_path / "out").ok


@pytest.mark.parametrize("part", ["", "_weight_scale", "_weight_scale_2"])
def test_verify_finds_one_changed_number(part: str, tmp_path: Path) -> None:
    quantize(bf16(), tmp_path / "out")
    _, tensors = stacked.arrays(tmp_path / "out")
    changed = tensors[FIRST + part].copy()
    if part == "_weight_scale_2":
        changed *= np.float32(1.5)
    else:
        changed.view(np.uint8)[3, 5, 7] ^= 1
    damaged = copy_with(tmp_path, tmp_path / "out", {FIRST + part: changed})
    (damaged / "halfbyte.json").write_bytes((tmp_path / "out/halfbyte.json").read_bytes())
    reasons = [found.reason for found in verify(bf16(), damaged).mismatches if found.tensor == FIRST]
    wanted = "at or after row 3" if part != "_weight_scale_2" else "weight_scale_2 is"
    assert len(reasons) == 1
    assert wanted in reasons[0]


def test_gate_finds_a_scale_that_is_no_number(tmp_path: Path) -> None:
    _, tensors = stacked.arrays(quantized())
    scales = tensors[f"{FIRST}_weight_scale"].copy()
    scales.view(np.uint8)[2, 1, 9] = 0x7F
    damaged = copy_with(tmp_path, quantized(), {f"{FIRST}_weight_scale": scales})
    findings = gate(damaged, engine="sglang", depth="scales").as_json()["findings"]
    (found,) = [found for found in findings if found["rule"] == "numerics.scale-finite"]
    assert found["tensor"] == f"{FIRST}_weight_scale"
    with pytest.raises(CheckpointError, match="NaN or negative"):
        streamed_logits(damaged, sequences(256))


BAD: list[tuple[dict[str, npt.NDArray[Any] | None], type[HalfbyteError], str]] = [
    ({f"{FIRST}_blocks": None}, CheckpointError, "a scale without its weight"),
    ({f"{FIRST}_scales": None}, CheckpointError, "no known format"),
    ({f"{FIRST}_blocks": None, f"{FIRST}_scales": None}, CheckpointError, "gate_up_proj is missing"),
    ({f"{FIRST}_scales": np.zeros((4, 384, 3), np.uint8)}, CheckpointError, "with scales \\[4, 384, 3\\]"),
    ({f"{FIRST}_bits": np.zeros(3, np.uint8)}, UnknownTensorError, "gate_up_proj_bits"),
    ({FIRST: np.zeros((4, 128, 384), ml_dtypes.bfloat16)}, CheckpointError, "no known format"),
    (
        {f"{FIRST}_blocks": np.zeros((4, 192, 4, 16), np.uint8), f"{FIRST}_scales": np.zeros((4, 192, 4), np.uint8)},
        CheckpointError,
        "wanted \\[4, 128, 384\\]",
    ),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_what_does_not_fit_is_refused_by_name(
    changes: dict[str, npt.NDArray[Any] | None], error: type[HalfbyteError], message: str, tmp_path: Path
) -> None:
    damaged = copy_with(tmp_path, mxfp4(), changes)
    with pytest.raises(error, match=message):
        quantize(damaged, tmp_path / "out")
    with pytest.raises(error, match=message):
        streamed_logits(damaged, sequences(256))


def test_a_stack_of_another_shape_is_no_nvfp4() -> None:
    config, roles = {**stacked.arrays(bf16())[0]}, roles_of(stacked.arrays(bf16())[0])
    assert config["model_type"] == "gpt_oss"

    def stack(halves: int, blocks: int) -> list[Tensor]:
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {
            "": ("U8", (4, halves, 384)),
            "_weight_scale": ("F8_E4M3", (4, blocks, 384)),
            "_weight_scale_2": ("F32", ()),
        }
        return [Tensor(FIRST + part, "a", dtype, shape, 0, 0) for part, (dtype, shape) in shapes.items()]

    (entry,) = inventory({tensor.name: tensor for tensor in stack(64, 8)}, roles)
    assert (entry.format, entry.shape, entry.role.fused) == (NVFP4, (4, 128, 384), True)
    with pytest.raises(UnsupportedError, match="nvfp4 cannot be decoded"):
        entry.form.decode(entry.tensors, {})
    with pytest.raises(CheckpointError, match="one for 16 inputs of an expert's output"):
        inventory({tensor.name: tensor for tensor in stack(64, 4)}, roles)


def test_what_takes_experts_one_by_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"input_ids": [*range(30)]}))
    data = [str(tmp_path / "data.jsonl")]
    with pytest.raises(UnsupportedError, match="one stack with one weight_scale_2"):
        quantize(bf16(), tmp_path / "a", rounding="gptq", calibrate=data)
    with pytest.raises(UnsupportedError, match="search weighs experts one by one"):
        search(bf16(), data=data, bits=5.0)
    with pytest.raises(UnsupportedError, match="a stack of experts, which compressed-tensors has no layout for"):
        convert(quantized(), tmp_path / "b", layout="compressed-tensors")
    with pytest.raises(UsageError, match="stacks with one input_scale"):
        calibrate(bf16(), data, tmp_path / "c.json", per_expert=True)
    with pytest.raises(UnsupportedError, match="mxfp4 beside NVFP4: no engine is known"):
        quantize(mxfp4(), tmp_path / "d", recipe=all_but_one(), keep_format=True)
    register()
    with pytest.raises(UnsupportedError, match="GptOssExperts has has_bias=True"):
        AutoModelForCausalLM.from_pretrained(quantized())
