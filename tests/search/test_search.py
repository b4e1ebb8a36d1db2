"""The search on a small checkpoint: damages are those of real checkpoints, the recipe fits and quantizes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from compare.models import data, pair

from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.compare.comparison import compare
from halfbyte.errors import OutputError, UnsupportedError, UsageError
from halfbyte.formats import fp8_block
from halfbyte.formats.nvfp4 import stored as nvfp4
from halfbyte.formats.nvfp4.codec import decode, encode
from halfbyte.models.roles import Role
from halfbyte.recipes.recipe import Recipe
from halfbyte.search.best_recipe import search
from halfbyte.search.groups import groups_of, recipe_of
from halfbyte.search.options import SearchOptions
from halfbyte.search.rounded import rounded_copy


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pair(tmp_path_factory.mktemp("source"))[0]


@pytest.fixture(scope="module")
def found(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("search")
    file, recipe = data(folder, (60, 40)), folder / "mine.yaml"
    everything = smallest(source)
    with Checkpoint.open(source) as checkpoint:
        budget = (everything + checkpoint.bytes) / 2
    result = search(source, data=[str(file)], budget_gb=budget / 1e9, output=recipe, work=folder / "work")
    assert not list((folder / "work").iterdir())
    return result.as_json(), recipe


def smallest(source: Path) -> int:
    with Checkpoint.open(source) as checkpoint:
        return checkpoint.bytes - sum(g.bytes_before - g.bytes_after for g in groups_of(checkpoint, nvfp4.FORMAT))


def test_groups_are_what_engines_load(source: Path) -> None:
    with Checkpoint.open(source) as checkpoint:
        labels = [group.label for group in groups_of(checkpoint, nvfp4.FORMAT)]
    mlps = [f"{role} {layer}" for layer in (3, 4) for role in ("routed_expert", "shared_expert")]
    assert labels == [*(f"dense_mlp {layer}" for layer in range(3)), *mlps]


def test_attention_is_a_choice_where_engines_take_it(tmp_path: Path) -> None:
    with Checkpoint.open(pair(tmp_path, "Qwen3-30B-A3B")[0]) as checkpoint:
        assert {group.role for group in groups_of(checkpoint, nvfp4.FORMAT)} == {Role.ROUTED_EXPERT, Role.ATTENTION}


@pytest.mark.parametrize("role", ["routed_expert", "shared_expert", "dense_mlp"])
def test_damage_is_that_of_a_checkpoint(
    role: str, source: Path, found: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    """Rounded as it streams by or in a copy, a group gives the KL of the checkpoint that `quantize` writes."""
    group = next(row for row in found[0]["groups"] if row["role"] == role)
    others = [row["layer"] for row in found[0]["groups"] if row["role"] == role and row["layer"] != group["layer"]]
    document = {"version": 1, "name": "one", "roles": {role: "nvfp4"}}
    document["layers"] = {"overrides": [{"layers": others, "roles": {role: "keep"}}]}
    quantize(source, tmp_path / "one", recipe=Recipe.model_validate(document))
    real = compare(source, tmp_path / "one", data=[str(data(tmp_path, (60, 40)))]).as_json()
    assert group["kl"] == pytest.approx(real["kl"]["mean"], rel=1e-5)
    assert group["kl"] > 0


def test_recipe_fits_the_budget_and_quantizes_the_choice(
    source: Path, found: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    result, file = found
    recipe = Recipe.named(file)
    assert recipe.name == "mine"
    written = quantize(source, tmp_path / "out", recipe=recipe)
    assert written.bytes_out <= result["budget_bytes"]
    assert result["chosen"]["bytes"] <= written.bytes_out <= result["chosen"]["bytes"] + 100_000
    real = compare(source, tmp_path / "out", data=[str(data(tmp_path, (60, 40)))]).as_json()
    assert result["chosen"]["kl"] == pytest.approx(real["kl"]["mean"], rel=1e-5)
    assert yaml.safe_load(file.read_text()) == yaml.safe_load(result["recipe"])


def test_front_and_usual_recipes(found: tuple[dict[str, Any], Path]) -> None:
    result = found[0]
    kls = {f"{row['role']} {row['layer']}": row["kl"] for row in result["groups"]}
    for row in (*result["front"], result["chosen"]):
        if isinstance(row["groups"], list):
            assert row["predicted_kl"] == pytest.approx(sum(kls[label] for label in row["groups"]))
    sizes = [row["bytes"] for row in result["front"]]
    assert sizes == sorted(sizes, reverse=True)
    assert [row["name"] for row in result["usual"]] == ["all experts", "experts and shared", "everything"]
    best = max(row["predicted_kl"] for row in result["front"] if row["bytes"] <= result["chosen"]["bytes"])
    assert result["chosen"]["predicted_kl"] <= best
    json.dumps(result, allow_nan=False)


def test_recipe_of_any_choice_quantizes_exactly_it(source: Path) -> None:
    from halfbyte.quantize.job import plan_job

    with Checkpoint.open(source) as checkpoint:
        groups = groups_of(checkpoint, nvfp4.FORMAT)
        for bits in range(1, 2 ** len(groups), 11):
            picked = [group for i, group in enumerate(groups) if bits >> i & 1]
            job = plan_job(checkpoint, recipe_of(picked, groups, "x", ""), 10**9)
            quantized = {(linear.role.role, linear.role.layer) for linear in job.linears()}
            assert quantized == {(group.role, group.layer) for group in picked}


def test_bits_are_bytes() -> None:
    assert SearchOptions(bits=4.5).budget_bytes(1_000_000) == 562_500
    assert SearchOptions(budget_gb=1.5).budget_bytes(1_000_000) == 1_500_000_000


def test_refusals(source: Path, tmp_path: Path) -> None:
    file = [str(data(tmp_path))]
    (tmp_path / "there.yaml").write_text("mine")
    for options, error, wanted in (
        ({}, UsageError, "one of them"),
        ({"bits": 5, "budget_gb": 5}, UsageError, "one of them"),
        ({"bits": -1}, UsageError, "wanted a number above 0"),
        ({"budget_gb": float("nan")}, UsageError, "wanted a number above 0"),
        ({"bits": 2}, UsageError, "still take"),
        ({"bits": 17}, UsageError, "as it is"),
        ({"bits": 8, "output": tmp_path / "there.yaml"}, OutputError, "exists already"),
    ):
        with pytest.raises(error, match=wanted):
            search(source, data=file, **options)
    quantize(source, tmp_path / "nvfp4")
    with pytest.raises(UnsupportedError, match="already quantized"):
        search(tmp_path / "nvfp4", data=file, bits=8)


def test_rounded_copy_of_a_stack_of_experts(tmp_path: Path) -> None:
    """transformers' fused layout: one expert's part of the stack is rounded, with gate and up sharing their scale."""
    from small import small_checkpoint

    with Checkpoint.open(small_checkpoint(tmp_path / "fused", "Qwen3-30B-A3B-fused")) as checkpoint:
        rounded_copy(checkpoint, tmp_path / "copy", lambda role: role.layer == 1 and role.expert == 2, nvfp4.FORMAT)
        with Checkpoint.open(tmp_path / "copy") as copy:
            for name, tensor in checkpoint.tensors.items():
                before, after = (values(one, one.tensors[name]) for one in (checkpoint, copy))
                if not (".layers.1." in name and tensor.shape[0] == 4 and len(tensor.shape) == 3):
                    np.testing.assert_array_equal(before, after)
                    continue
                expected = before.copy()
                expected[2] = decode(encode(before[2])[0])
                np.testing.assert_array_equal(after, expected)


def values(checkpoint: Checkpoint, tensor: Any) -> np.ndarray:
    from halfbyte.formats.numpy_dtypes import NUMPY_DTYPES

    buffer = bytearray(tensor.bytes)
    checkpoint.read_into(tensor, memoryview(buffer))
    return np.frombuffer(buffer, NUMPY_DTYPES[tensor.dtype]).reshape(tensor.shape).astype(np.float32)


def test_fp8_keeps_what_it_can() -> None:
    """Within half a step of E4M3 (2^-4 of the value), or of its smallest step under the tile's scale."""
    weight = np.random.default_rng(0).standard_normal((130, 200)).astype(np.float32)
    [rounded] = fp8_block.FORMAT.rounded([weight])
    step = np.abs(weight).max() / 448 * 2**-9
    assert (np.abs(rounded - weight) <= np.maximum(np.abs(weight) * 2**-4, step)).all()
    assert (rounded != weight).any()
    assert fp8_block.FORMAT.bytes((130, 200)) == 130 * 200 + 4 * 4
