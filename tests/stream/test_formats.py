"""FP8 and NVFP4 sources: computed with exactly the decoded weights, activations rounded as `runtime` does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from runtime.models import decoded as decoded_checkpoint
from runtime.models import load
from small import small_tensors, write_checkpoint

import halfbyte.runtime
from halfbyte.api import quantize
from halfbyte.checkpoint.inventory import inventory
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.errors import UsageError
from halfbyte.formats.nvfp4 import torch as values
from halfbyte.models import roles_of
from halfbyte.stream.reader import read_now
from stream.models import CHANGES, checkpoint, sequences, streamed_logits, whole_logits


@pytest.fixture(scope="module", params=["GLM-5.2", "Qwen3-30B-A3B"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts (and, where there are any, shared experts and dense MLPs) in NVFP4."""
    folder = tmp_path_factory.mktemp("packed")
    recipe = "nvfp4-mlp" if request.param == "GLM-5.2" else "nvfp4-routed-experts"
    quantize(checkpoint(request.param), folder / "quantized", recipe=recipe, input_scale=0.002)
    return folder / "quantized"


def test_an_nvfp4_source_computes_with_its_decoded_weights(packed: Path, tmp_path: Path) -> None:
    ids = sequences()
    wanted = whole_logits(decoded_checkpoint(packed, tmp_path / "decoded"), ids)
    for got, want in zip(streamed_logits(packed, ids), wanted, strict=True):
        assert torch.equal(got, want)


def test_a4_sim_rounds_activations_as_the_runtime(packed: Path) -> None:
    ids = sequences()
    model = load(packed, quantization_config=_options("reference", "a4-sim"), experts_implementation="eager")
    plain = streamed_logits(packed, ids)
    for i, got in enumerate(streamed_logits(packed, ids, activations="a4-sim")):
        with torch.no_grad():
            want = model(ids[i][None], use_cache=False).logits[0]
        assert (got - want).norm() < 0.01 * (got - plain[i]).norm()


def _options(backend: str, activations: str) -> "halfbyte.runtime.ModelOptConfig":
    return halfbyte.runtime.ModelOptConfig(backend=backend, activations=activations)


def test_a4_sim_needs_input_scales(tmp_path: Path) -> None:
    quantize(checkpoint(), tmp_path / "weight-only", recipe="nvfp4-weight-only")
    with pytest.raises(Exception, match="input_scale"):
        streamed_logits(tmp_path / "weight-only", sequences(), activations="a4-sim")
    with pytest.raises(UsageError, match="a16 or a4-sim"):
        streamed_logits(checkpoint(), sequences(), activations="a8")


def test_nvfp4_decodes_alike_on_both_paths(packed: Path) -> None:
    """The CPU's compiled decoder, and the torch one that a GPU runs."""
    with Checkpoint.open(packed) as source:
        entries = [e for e in inventory(source.tensors, roles_of(source.config)) if e.format == "nvfp4"]
        assert len(entries) > 20
        for entry in entries[::5]:
            raw = read_now(source, entry, torch.device("cpu"))
            scale_2 = raw["weight_scale_2"].view(torch.float32).expand(entry.shape[0])
            codes = raw["weight"].view(entry.tensors["weight"].shape)
            scales = raw["weight_scale"].view(torch.float8_e4m3fn).view(entry.tensors["weight_scale"].shape)
            wanted = values.dequantized(codes, scales, scale_2)
            assert torch.equal(entry.form.decode_torch(entry.tensors, raw, torch.float32), wanted)


def fp8_block_checkpoint(folder: Path) -> tuple[Path, Path]:
    """A DeepSeek-V3 whose experts are FP8 with scales of 128 x 128 tiles, and one that holds the decoded numbers."""
    sizes = {"hidden_size": 192, "moe_intermediate_size": 160}  # tiles at the edges are smaller
    config, tensors = small_tensors("DeepSeek-V3-BF16", 3, **CHANGES["DeepSeek-V3-BF16"], **sizes)
    random = np.random.default_rng(0)
    stored: dict[str, torch.Tensor] = {}
    plain: dict[str, torch.Tensor] = {}
    for name, array in tensors.items():
        tensor = torch.from_numpy(array.astype(np.float32))
        if ".experts." not in name:
            stored[name] = plain[name] = tensor if array.dtype == np.float32 else tensor.bfloat16()
            continue
        rows, columns = tensor.shape
        tiles = torch.from_numpy(random.uniform(0.001, 0.004, (-(-rows // 128), -(-columns // 128)))).float()
        spread = tiles.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
        stored[name] = (tensor / spread).to(torch.float8_e4m3fn)
        stored[name.replace(".weight", ".weight_scale_inv")] = tiles
        plain[name] = stored[name].float() * spread
    from safetensors.torch import save_file

    for part, content in (("fp8", stored), ("plain", plain)):
        write_checkpoint(folder / part, config, {}, shards=0)
        (folder / part / "model.safetensors.index.json").unlink()
        save_file(content, folder / part / "model.safetensors")
    return folder / "fp8", folder / "plain"


def test_block_fp8_computes_with_its_decoded_weights(tmp_path: Path) -> None:
    fp8, plain = fp8_block_checkpoint(tmp_path)
    ids = sequences()
    for got, want in zip(streamed_logits(fp8, ids), whole_logits(plain, ids), strict=True):
        assert torch.equal(got, want)
