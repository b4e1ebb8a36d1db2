"""The proof of losslessness notices every kind of loss."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from small import small_tensors, write_checkpoint

from export.checkpoints import family_checkpoint, quantized, write_tokenizer
from halfbyte.errors import CheckpointError
from halfbyte.export import export, verify_gguf


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small GLM-5.2 in NVFP4 (MLA, indexer, MTP, shared expert) and its export."""
    folder = tmp_path_factory.mktemp("pair")
    source = quantized(family_checkpoint(folder / "bf16", "GLM-5.2"), folder / "nvfp4")
    export(source, folder / "model.gguf")
    return source, folder / "model.gguf"


def test_a_faithful_export_passes(pair: tuple[Path, Path]) -> None:
    outcome = verify_gguf(*pair)
    assert outcome.ok
    assert outcome.tensors == 132
    assert outcome.unchecked == []


@pytest.mark.parametrize(
    ("tensor", "position"),
    [
        ("blk.3.ffn_down_exps.weight", 3),  # a block scale
        ("blk.3.ffn_down_exps.weight", 4),  # codes
        ("blk.4.ffn_gate_exps.scale", 0),
        ("blk.4.ffn_gate_exps.input_scale", 5),
        ("blk.0.attn_k_b.weight", 11),
        ("blk.2.attn_v_b.weight", 0),
        ("blk.1.attn_norm.weight", 3),  # upper half of a widened value
        ("blk.1.attn_norm.weight", 0),  # lower half, which must be zero
        ("blk.5.nextn.eh_proj.weight", 9),
        ("token_embd.weight", 77),
    ],
)
def test_one_flipped_bit_is_found_and_named(
    pair: tuple[Path, Path], tmp_path: Path, tensor: str, position: int
) -> None:
    damaged = Path(shutil.copy(pair[1], tmp_path / "model.gguf"))
    offset = next(int(t.data_offset) for t in gguf.GGUFReader(damaged).tensors if t.name == tensor)
    content = np.memmap(damaged, np.uint8, "r+")
    content[offset + position] ^= 1
    content.flush()
    outcome = verify_gguf(pair[0], damaged)
    assert not outcome.ok
    assert len(outcome.problems) == 1
    assert tensor in outcome.problems[0]


def test_changed_metadata_is_found(pair: tuple[Path, Path], tmp_path: Path) -> None:
    damaged = Path(shutil.copy(pair[1], tmp_path / "model.gguf"))
    reader = gguf.GGUFReader(damaged, "r+")
    reader.fields["glm-dsa.expert_used_count"].parts[-1][0] = 3
    del reader
    assert verify_gguf(pair[0], damaged).problems == ["key glm-dsa.expert_used_count: differs from the checkpoint"]


def test_an_export_of_another_checkpoint_fails(pair: tuple[Path, Path], tmp_path: Path) -> None:
    other = family_checkpoint(tmp_path / "other", "GLM-5.2")
    problems = verify_gguf(other, pair[1]).problems
    assert any("is NVFP4" in problem for problem in problems)
    assert any("not made from any tensor" in problem for problem in problems)


def test_a_series_is_verified_from_any_of_its_names(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = export(pair[0], tmp_path / "model.gguf", max_shard_size=400_000)
    assert len(result.files) > 2
    for name in ("model.gguf", Path(result.files[0]).name):
        outcome = verify_gguf(pair[0], tmp_path / name)
        assert outcome.ok
        assert outcome.files == result.files
    Path(result.files[1]).unlink()
    with pytest.raises(CheckpointError, match="files are there"):
        verify_gguf(pair[0], tmp_path / "model.gguf")


def test_shards_keep_to_their_size(pair: tuple[Path, Path], tmp_path: Path) -> None:
    result = export(pair[0], tmp_path / "model.gguf", max_shard_size=400_000)
    for file in result.files:
        tensors = gguf.GGUFReader(file).tensors
        assert len(tensors) == 1 or sum(int(tensor.n_bytes) for tensor in tensors) <= 400_000
    first = gguf.GGUFReader(result.files[0])
    assert first.fields["split.count"].contents() == len(result.files)


def no_file(folder: Path) -> None:
    pass


def not_gguf(folder: Path) -> None:
    (folder / "model.gguf").write_bytes(b"not a GGUF at all")


@pytest.mark.parametrize("make", [no_file, not_gguf])
def test_what_cannot_be_read_is_an_error(pair: tuple[Path, Path], tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.gguf"):
        verify_gguf(pair[0], tmp_path / "model.gguf")


@pytest.mark.parametrize("name", ["Qwen3-30B-A3B-fused", "GLM-5.2-fused-mtp"])
def test_fused_stacks_become_what_single_experts_become(name: str, tmp_path: Path) -> None:
    """3-D stacks as transformers 5 saves them: gate and up are halves of one tensor."""
    changes: dict[str, Any] = {"rope_theta": 1e4, "vocab_size": 320, "num_key_value_heads": 4}
    config, tensors = small_tensors(name, **changes)
    folder = write_checkpoint(tmp_path / "fused", config, tensors, tokenizer=False)
    write_tokenizer(folder, config["model_type"])
    export(folder, tmp_path / "fused.gguf")
    assert verify_gguf(folder, tmp_path / "fused.gguf").ok
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "fused.gguf").tensors}
    stack = next(t for n, t in tensors.items() if n.startswith("model.layers.4.") and "gate_up_proj" in n)
    half = stack.shape[1] // 2
    for projection, part in (("gate", stack[:, :half]), ("up", stack[:, half:])):
        got = stored[f"blk.4.ffn_{projection}_exps.weight"].data.tobytes()
        assert got == np.ascontiguousarray(part).tobytes()


def test_float32_matrices_stay_float32(tmp_path: Path) -> None:
    """llama.cpp's converter would round them to 16 bits."""
    config, tensors = small_tensors("Qwen3-30B-A3B", rope_theta=1e4, vocab_size=320)
    wide = {name: tensor.astype(np.float32) * np.float32(1.0000001) for name, tensor in tensors.items()}
    folder = write_checkpoint(tmp_path / "f32", config, wide, tokenizer=False)
    write_tokenizer(folder, "qwen3_moe")
    export(folder, tmp_path / "f32.gguf")
    assert verify_gguf(folder, tmp_path / "f32.gguf").ok
    assert {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "f32.gguf").tensors} == {"F32"}


def test_half_precision_matrices_stay_half_precision(tmp_path: Path) -> None:
    config, tensors = small_tensors("Qwen3-30B-A3B", rope_theta=1e4, vocab_size=320)
    half = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    folder = write_checkpoint(tmp_path / "f16", config, half, tokenizer=False)
    write_tokenizer(folder, "qwen3_moe")
    export(folder, tmp_path / "f16.gguf")
    assert verify_gguf(folder, tmp_path / "f16.gguf").ok
    assert gguf.GGUFReader(tmp_path / "f16.gguf").fields["general.file_type"].contents() == 1
