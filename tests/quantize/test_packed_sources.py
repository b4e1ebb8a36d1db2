"""Sources of fewer bits: the same bytes as from their float32 decoding, whatever they are stored in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from families.headers import headers_for, variant
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_tensors, write_checkpoint

from halfbyte.api import gate, inspect, quantize, verify
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import UnsupportedError
from halfbyte.formats.decoding import blocks_of_mxfp4
from halfbyte.formats.nvfp4.codec import decode
from halfbyte.formats.nvfp4.reference import Encoded
from halfbyte.models import roles_of
from halfbyte.quantize.translated import LARGEST, largest_exponent, second_scale, translate

Arrays = dict[str, npt.NDArray[Any]]
E4M3, BF16 = ml_dtypes.float8_e4m3fn, ml_dtypes.bfloat16


def fp8_block(weight: npt.NDArray[np.float32]) -> Arrays:
    tiles = tuple(-(-side // 128) for side in weight.shape)
    scales = np.random.default_rng(1).uniform(1e-4, 3e-4, tiles).astype(np.float32)
    spread = scales.repeat(128, 0).repeat(128, 1)[: weight.shape[0], : weight.shape[1]]
    return {"weight": np.clip(weight / spread, -448, 448).astype(E4M3), "weight_scale_inv": scales}


def fp8_rows(weight: npt.NDArray[np.float32]) -> Arrays:
    scale = (np.abs(weight).max(1, keepdims=True) / 448 + 1e-6).astype(BF16)
    return {"weight": np.clip(weight / scale.astype(np.float32), -448, 448).astype(E4M3), "weight_scale": scale}


def int4(weight: npt.NDArray[np.float32]) -> Arrays:
    groups = weight.reshape(len(weight), -1, 32)
    scale = (np.abs(groups).max(-1) / 7.5 + 1e-6).astype(BF16)
    numbers = (
        np.clip(np.rint(groups / scale.astype(np.float32)[..., None]), -8, 7).astype(np.int8).reshape(weight.shape)
    )
    codes = (numbers + 8).astype(np.uint8)
    packed = np.ascontiguousarray(codes[:, ::2] | codes[:, 1::2] << 4).view(np.int32)
    return {"weight_packed": packed, "weight_scale": scale, "weight_shape": np.array(weight.shape)}


def mxfp4(weight: npt.NDArray[np.float32]) -> Arrays:
    codes = np.random.default_rng(2).integers(0, 256, (len(weight), weight.shape[1] // 2), np.uint8)
    return {"weight_packed": codes, "weight_scale": np.full((len(weight), weight.shape[1] // 32), 120, np.uint8)}


def named(parts: Arrays, numbers: type) -> Arrays:
    """As DeepSeek-V4 calls and types them: `weight` and `scale`, the scales powers of two."""
    weight, scale = parts.values()
    powers = scale.astype(np.float32) if scale.dtype == np.float32 else np.exp2(scale.astype(np.float32) - 127)
    return {"weight": weight.view(numbers), "scale": powers.astype(ml_dtypes.float8_e8m0fnu)}


def powers_of_two(weight: npt.NDArray[np.float32]) -> Arrays:
    return named(fp8_block(weight), E4M3)


def mxfp4_as_weight(weight: npt.NDArray[np.float32]) -> Arrays:
    return named(mxfp4(weight), np.int8)


V4_BLOCK = {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}
PACKINGS: dict[str, tuple[Callable[[npt.NDArray[np.float32]], Arrays], dict[str, Any], str]] = {
    "fp8-block": (fp8_block, {"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block"),
    "fp8-rows": (fp8_rows, {"quant_method": "compressed-tensors", "format": "float-quantized"}, "fp8"),
    "int4": (int4, {"quant_method": "compressed-tensors", "format": "pack-quantized"}, "int4-group"),
    "fp8-block-e8m0": (powers_of_two, V4_BLOCK, "fp8-block"),
    "mxfp4-weight": (mxfp4_as_weight, V4_BLOCK, "mxfp4"),
    "mxfp4": (mxfp4, {"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"}, "mxfp4"),
}


def source(folder: Path, packing: str, family: str = "GLM-4.5-Air") -> Path:
    """A small checkpoint whose experts and attention are packed."""
    pack, block, _ = PACKINGS[packing]
    config, tensors = small_tensors(family, 5)
    packed: Arrays = {}
    for name, array in tensors.items():
        if array.ndim == 2 and name.endswith("_proj.weight"):
            owner = name.removesuffix(".weight")
            packed |= {f"{owner}.{part}": value for part, value in pack(array.astype(np.float32)).items()}
        else:
            packed[name] = array
    return write_checkpoint(folder, config | {"quantization_config": block}, packed, shards=2)


def decoded(packed: Path, folder: Path) -> Path:
    """The same in float32 where it was packed."""
    with Checkpoint.open(packed) as checkpoint:
        config, tensors = dict(checkpoint.config), {}
        del config["quantization_config"]
        for entry in inventory(checkpoint.tensors, roles_of(config)):
            raw = {}
            for part, tensor in entry.tensors.items():
                buffer = np.empty(tensor.bytes, np.uint8)
                checkpoint.read_into(tensor, buffer.data)
                raw[part] = buffer
            name = f"{entry.role.module}.weight" if entry.form.quantized else entry.name
            if entry.form.quantized:
                tensors[name] = entry.form.decode(entry.tensors, raw)
            else:
                dtype = {"BF16": BF16, "F32": np.float32}[next(iter(entry.tensors.values())).dtype]
                tensors[name] = next(iter(raw.values())).view(dtype).reshape(entry.shape)
    return write_checkpoint(folder, config, tensors)


def tensors_of(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with Checkpoint.open(folder) as checkpoint:
        found = {}
        for name, tensor in checkpoint.tensors.items():
            buffer = bytearray(tensor.bytes)
            checkpoint.read_into(tensor, memoryview(buffer))
            found[name] = (tensor.dtype, tensor.shape, bytes(buffer))
    return found


@pytest.mark.parametrize("rounding", ["max", "sweep"])
@pytest.mark.parametrize("packing", ["fp8-block", "fp8-block-e8m0", "fp8-rows", "int4"])
def test_the_same_bytes_as_from_its_decoding(packing: str, rounding: Any, tmp_path: Path) -> None:
    packed = source(tmp_path / "packed", packing)
    plain = decoded(packed, tmp_path / "plain")
    quantize(packed, tmp_path / "ours", rounding=rounding)
    quantize(plain, tmp_path / "wanted", rounding=rounding)
    ours, wanted = tensors_of(tmp_path / "ours"), tensors_of(tmp_path / "wanted")
    assert ours.keys() == wanted.keys()
    for name, (dtype, shape, content) in wanted.items():
        if dtype == "F32" and ours[name][0] == "BF16":  # kept: rounded once
            content = np.frombuffer(content, np.float32).astype(BF16).tobytes()
            dtype = "BF16"
        assert ours[name] == (dtype, shape, content), name


@pytest.mark.parametrize("packing", ["mxfp4", "mxfp4-weight"])
def test_mxfp4_keeps_its_codes(packing: str, tmp_path: Path) -> None:
    packed = source(tmp_path / "packed", packing)
    quantize(packed, tmp_path / "out", recipe="nvfp4-mlp")
    theirs, ours = tensors_of(packed), tensors_of(tmp_path / "out")
    packings = ("U8", "I8")
    kept = [name for name in theirs if theirs[name][0] in packings and ours.get(bare(name), ("",))[0] == "U8"]
    kept = [name for name in kept if name.endswith(("weight_packed", "weight"))]
    assert len(kept) > 20
    for name in kept:
        assert ours[bare(name)][2] == theirs[name][2]
    rows = json.loads((tmp_path / "out/halfbyte.json").read_text())["tensors"]
    assert {(row["relative_error"], row["clamped_blocks"]) for row in rows.values()} == {(0.0, 0)}
    assert verify(packed, tmp_path / "out").ok


def bare(name: str) -> str:
    return name.replace("_packed", "")


def published_v4(folder: Path) -> Path:
    """FP8 tiles with scales that are powers of two beside MXFP4 experts, a table of experts by token, its own names."""
    config, tensors = small_tensors("DeepSeek-V4-Flash-BF16", 5, hidden_size=128, moe_intermediate_size=64)
    stored: Arrays = {}
    for name, (dtype, _) in headers_for(config, variant("DeepSeek-V4-Flash")).items():
        owner = name.rpartition(".")[0]
        if name in tensors and dtype in ("I8", "F8_E4M3"):
            pack = mxfp4_as_weight if dtype == "I8" else powers_of_two
            stored |= {f"{owner}.{part}": value for part, value in pack(tensors[name].astype(np.float32)).items()}
        elif name in tensors:
            stored[name] = tensors[name]
    return write_checkpoint(folder, config | {"quantization_config": V4_BLOCK}, stored)


def test_deepseek_v4_as_it_is_published(tmp_path: Path) -> None:
    packed = published_v4(tmp_path / "packed")
    assert {group["format"] for group in inspect(packed).groups} == {
        "bf16",
        "f32",
        "i64",
        "fp8-block-e8m0",
        "mxfp4-weight",
    }
    quantize(packed, tmp_path / "out")
    theirs, ours = tensors_of(packed), tensors_of(tmp_path / "out")
    assert ours["layers.0.ffn.gate.tid2eid"] == theirs["layers.0.ffn.gate.tid2eid"]
    experts = [
        name for name in theirs if ".experts." in name and name.endswith("weight") and not name.startswith("mtp")
    ]
    assert len(experts) == 5 * 4 * 3
    for name in experts:
        assert ours[name][2] == theirs[name][2]
    assert ours["layers.1.attn.wo_a.weight"][0] == ours["mtp.0.ffn.experts.3.w2.weight"][0] == "BF16"
    assert verify(packed, tmp_path / "out").ok


def test_deepseek_v4_in_the_mixture_that_engines_load(tmp_path: Path) -> None:
    """Metadata by ModelOpt's own script for it; what is kept, experts of MTP layers too, byte for byte."""
    packed, out = published_v4(tmp_path / "packed"), tmp_path / "out"
    result = quantize(packed, out, keep_format=True)
    theirs, ours = tensors_of(packed), tensors_of(out)
    changed = {name.rpartition(".")[0] for name in theirs if ours.get(name) != theirs[name]}
    assert changed == {f"layers.{i}.ffn.experts.{e}.w{n}" for i in range(5) for e in range(4) for n in (1, 2, 3)}
    block = json.loads((out / "config.json").read_text())["quantization_config"]
    table = {f"layers.{i}.ffn.experts": {"quant_algo": "NVFP4", "group_size": 16} for i in range(5)}
    left = ["*.attn.*", "*.ffn.shared_experts.*", "head", "mtp.*"]
    added = {"moe_quant_algo": "NVFP4", "quant_algo": "MIXED_PRECISION", "group_size": 16, "quantized_layers": table}
    assert block == block | V4_BLOCK | added | {"ignore": left, "kv_cache_quant_algo": None}
    nested = json.loads((out / "hf_quant_config.json").read_text())["quantization"]
    assert nested["exclude_modules"] == left
    assert nested["quantized_layers"] == table
    assert verify(packed, out).ok
    assert sum(row["bytes_after"] for row in result.roles) == sum(len(tensor[2]) for tensor in ours.values())
    decision = gate(out)
    assert [found.rule for found in decision.findings if found.severity == "deny"] == ["supply.tokenizer"]
    assert any("no speculative decoding helps" in found.found.message for found in decision.findings)


@pytest.mark.parametrize("damage", ["expert_dtype", "table", "attention"])
def test_gate_sees_a_mixture_that_engines_misread(damage: str, tmp_path: Path) -> None:
    packed, out = published_v4(tmp_path / "packed"), tmp_path / "out"
    quantize(packed, out, keep_format=True)
    document = json.loads((out / "config.json").read_text())
    if damage == "expert_dtype":
        document["expert_dtype"] = "fp8"
    elif damage == "table":
        del document["quantization_config"]["quantized_layers"]["layers.3.ffn.experts"]
    else:
        quantize(packed, tmp_path / "plain")
        (tmp_path / "plain/config.json").write_bytes((out / "config.json").read_bytes())
        out = tmp_path / "plain"
    (out / "config.json").write_text(json.dumps(document))
    assert "loadability.mixed-precision" in {found.rule for found in gate(out).findings if found.severity == "deny"}


def test_a_mixture_that_would_be_misread_is_not_written(tmp_path: Path) -> None:
    packed, recipe = published_v4(tmp_path / "packed"), tmp_path / "recipe.yaml"
    recipe.write_text("version: 1\nname: some\nroles: {routed_expert: nvfp4}\nlayers: {keep_first: 1}\n")
    with pytest.raises(UnsupportedError, match=r"layers\.0\.ffn\.experts\.0\.w1 is mxfp4-weight, engines read nvfp4"):
        quantize(packed, tmp_path / "out", keep_format=True, recipe=recipe)
    assert not (tmp_path / "out").exists()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 254), st.integers(0, 40))
def test_any_mxfp4_block_within_reach_is_kept_exactly(seed: int, low: int, span: int) -> None:
    chance = np.random.default_rng(seed)
    codes = chance.integers(0, 256, (4, 32), np.uint8) * chance.integers(0, 2, (4, 1), np.uint8)
    scales = np.minimum(chance.integers(low, low + span + 1, (4, 2)), 254).astype(np.uint8)
    largest = largest_exponent(codes, scales)
    scale_2 = second_scale([largest])
    out_codes, out_scales = np.full((4, 32), 0xAA, np.uint8), np.full((4, 4), 0xAA, np.uint8)
    found = translate(codes, scales, scale_2, out_codes, out_scales)
    assert np.isfinite(scale_2)
    wanted = blocks_of_mxfp4(codes, scales).reshape(4, 2, 32)
    with np.errstate(over="ignore", invalid="ignore"):
        ours = decode(Encoded(out_codes, out_scales, scale_2)).reshape(4, 2, 32)
    exact = found.exact & np.isfinite(wanted).all(-1)
    assert np.array_equal(ours[exact], wanted[exact])
    if span <= 17 and largest is not None and largest - LARGEST >= -126:
        assert found.exact.all()


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_road(packing: str, tmp_path: Path) -> None:
    packed = source(tmp_path / "packed", packing)
    assert inspect(packed).model_type == "glm4_moe"
    result = quantize(packed, tmp_path / "out")
    assert any("already lossy" in warning for warning in result.warnings)
    document = json.loads((tmp_path / "out/halfbyte.json").read_text())
    assert document["source"]["format"] == PACKINGS[packing][2]
    assert "already lossy" in (tmp_path / "out/README.md").read_text()
    assert json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]["quant_method"] == "modelopt"
    assert verify(packed, tmp_path / "out").ok
    refused = [found.rule for found in gate(tmp_path / "out").findings if found.severity == "deny"]
    assert refused == ["supply.tokenizer"]  # a small checkpoint's is none


def test_verify_finds_a_kept_weight_that_is_another(tmp_path: Path) -> None:
    packed = source(tmp_path / "packed", "fp8-block")
    quantize(packed, tmp_path / "out")
    with Checkpoint.open(tmp_path / "out") as checkpoint:
        tensor = checkpoint.tensors["model.layers.1.self_attn.o_proj.weight"]
    path = tmp_path / "out" / tensor.shard
    content = bytearray(path.read_bytes())
    content[tensor.start + 7] ^= 1
    path.write_bytes(content)
    reasons = {found.tensor: found.reason for found in verify(packed, tmp_path / "out").mismatches}
    assert "differs from the source, first at byte 7" in reasons[tensor.name]


def test_a_mixture_that_no_engine_loads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="fp8-block beside NVFP4: no engine"):
        quantize(source(tmp_path / "packed", "fp8-block"), tmp_path / "out", keep_format=True)
    assert not (tmp_path / "out").exists()
    config, tensors = small_tensors("GLM-4.5-Air", 5)
    quantize(write_checkpoint(tmp_path / "plain", config, tensors), tmp_path / "out", keep_format=True)
