"""Jobs of full-size checkpoints, planned from headers alone: bytes, tensors, shards and the exclusion list."""

from pathlib import Path

import pytest
from families.configs import config
from families.headers import header_set

from halfbyte.checkpoint.source import Checkpoint
from halfbyte.checkpoint.tensor import Tensor
from halfbyte.formats.dtypes import DTYPE_BYTES
from halfbyte.quantize.job import plan_job
from halfbyte.recipes.recipe import Recipe


def on_paper(name: str) -> Checkpoint:
    """A checkpoint that has headers but no files."""
    tensors = {}
    for tensor, (dtype, shape) in header_set(name).items():
        size = DTYPE_BYTES[dtype]
        for side in shape:
            size *= side
        tensors[tensor] = Tensor(tensor, "model.safetensors", dtype, shape, 0, size)
    return Checkpoint(Path(name), config(name), {}, tensors)


@pytest.mark.parametrize(
    ("recipe", "total_bytes"),
    [
        ("nvfp4-routed-experts", 464_795_267_072),
        pytest.param("nvfp4-experts-and-shared", 460_725_483_272, marks=pytest.mark.slow),
        pytest.param("nvfp4-weight-only", 464_795_267_072 - 4 * 57_600, marks=pytest.mark.slow),
    ],
)
def test_glm_5_2_becomes_as_large_as_published(recipe: str, total_bytes: int) -> None:
    job = plan_job(on_paper("GLM-5.2"), Recipe.named(recipe), 5_000_000_000)
    assert job.source_bytes == 1_506_659_919_872
    assert job.output_bytes - sum(len(shard.header) for shard in job.shards) == total_bytes
    assert max(shard.bytes for shard in job.shards) < 5_100_000_000
    if recipe == "nvfp4-routed-experts":
        written = {name for shard in job.shards for name in shard.offsets}
        assert written == set(header_set("GLM-5.2-NVFP4"))
        assert len(job.exclusions) == 231
        assert job.warnings == []


def test_deepseek_v4_becomes_as_large_as_published() -> None:
    """Counts of V4-Flash-0731 with NVIDIA's experts and its own draft, by a public script that joins the two."""
    job = plan_job(on_paper("DeepSeek-V4-Flash-0731"), Recipe.named("nvfp4-routed-experts"), 5_000_000_000, False, True)
    assert sum(len(shard.offsets) for shard in job.shards) == 138_365
    assert job.output_bytes - sum(len(shard.header) for shard in job.shards) == 175_535_844_088


@pytest.mark.parametrize(
    "name",
    ["GLM-4.5-Air", "Mixtral-8x7B-v0.1"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("GLM-5.1", "Qwen3-30B-A3B", "DeepSeek-V3-BF16")],
)
def test_every_family_plans_with_every_shipped_recipe(name: str) -> None:
    source = on_paper(name)
    for recipe in ("nvfp4-routed-experts", "nvfp4-mlp"):
        job = plan_job(source, Recipe.named(recipe), 5_000_000_000)
        packed = sum(linear.source.bytes for linear in job.linears())
        assert 0.85 < packed / job.source_bytes < 0.99
        assert job.output_bytes < 0.4 * job.source_bytes


def test_a_fused_checkpoint_gives_the_same_files_as_a_per_expert_one() -> None:
    recipe = Recipe.named("nvfp4-routed-experts")
    fused = plan_job(on_paper("Qwen3-30B-A3B-fused"), recipe, 5_000_000_000)
    apart = plan_job(on_paper("Qwen3-30B-A3B"), recipe, 5_000_000_000)
    names = [{name for shard in job.shards for name in shard.offsets} for job in (fused, apart)]
    assert names[0] == names[1]
    assert set(fused.exclusions) == set(apart.exclusions)
