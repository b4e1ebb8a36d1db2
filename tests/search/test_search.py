"""The search on a small checkpoint: damages are those of real checkpoints, the recipe fits and quantizes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from compare.models import data, pair
from families.configs import CONFIGS

from halfbyte.api import quantize
from halfbyte.checkpoint.source import Checkpoint
from halfbyte.compare.comparison import compare
from halfbyte.errors import OutputError, UnsupportedError, UsageError
from halfbyte.formats import fp8_block, mxfp4
from halfbyte.formats.nvfp4 import stored as nvfp4
from halfbyte.formats.nvfp4.torch import max_rounded
from halfbyte.models import roles_of
from halfbyte.plan.hardware import find_gpu
from halfbyte.plan.options import PlanOptions
from halfbyte.plan.planner import plan_for
from halfbyte.plan.target import on_paper
from halfbyte.recipes.recipe import Recipe
from halfbyte.search.best_recipe import search
from halfbyte.search.groups import groups_of, recipe_of
from halfbyte.search.knapsack import Choice
from halfbyte.search.machine import fitting
from halfbyte.search.options import SearchOptions


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
    result = search(source, data=[str(file)], gb=budget / 1e9, output=recipe, work=folder / "work")
    assert not list((folder / "work").iterdir())
    return result.as_json(), recipe


def smallest(source: Path) -> int:
    with Checkpoint.open(source) as checkpoint:
        return checkpoint.bytes - sum(g.bytes_before - g.bytes_after for g in groups_of(checkpoint, nvfp4.FORMAT))


def test_groups_are_what_engines_load(source: Path) -> None:
    with Checkpoint.open(source) as checkpoint:
        labels = [group.label for group in groups_of(checkpoint, nvfp4.FORMAT)]
    halves = ("gate_proj up_proj", "down_proj")
    dense = [f"dense_mlp {layer} {half}" for layer in range(3) for half in halves]
    mlps = [[f"routed_expert {layer}", *(f"shared_expert {layer} {half}" for half in halves)] for layer in (3, 4)]
    assert labels == [*dense, *mlps[0], *mlps[1]]


def test_attention_is_a_choice_where_engines_take_it(tmp_path: Path) -> None:
    with Checkpoint.open(pair(tmp_path, "Qwen3-30B-A3B")[0]) as checkpoint:
        labels = [group.label for group in groups_of(checkpoint, nvfp4.FORMAT) if group.layer == 0]
    assert labels == ["routed_expert 0", "attention 0 q_proj k_proj v_proj", "attention 0 o_proj"]


@pytest.mark.parametrize("role", ["routed_expert", "shared_expert", "dense_mlp"])
def test_damage_is_that_of_a_checkpoint(
    role: str, source: Path, found: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    """Rounded as it streams by or in a copy, a group gives the KL of the checkpoint that `quantize` writes."""
    group = next(row for row in found[0]["groups"] if row["role"] == role)
    others = sorted({row["layer"] for row in found[0]["groups"] if row["role"] == role} - {group["layer"]})
    chosen = dict.fromkeys(group["only"], "nvfp4") or "nvfp4"
    document = {"version": 1, "name": "one", "roles": {role: chosen}}
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
    kls = {" ".join([row["role"], str(row["layer"]), *row["only"]]): row["kl"] for row in result["groups"]}
    for row in (*result["front"], result["chosen"]):
        if isinstance(row["groups"], list):
            assert row["predicted_kl"] == pytest.approx(sum(kls[label] for label in row["groups"]))
    sizes = [row["bytes"] for row in result["front"]]
    assert sizes == sorted(sizes, reverse=True)
    assert [row["name"] for row in result["usual"]] == ["all experts", "experts and shared", "everything"]
    best = max(row["predicted_kl"] for row in result["front"] if row["bytes"] <= result["chosen"]["bytes"])
    assert result["chosen"]["predicted_kl"] <= best
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("name", ["GLM-5.2", "Qwen3-30B-A3B"])
def test_recipe_of_any_choice_quantizes_exactly_it(name: str, tmp_path: Path) -> None:
    from halfbyte.quantize.job import plan_job

    with Checkpoint.open(pair(tmp_path, name)[0]) as checkpoint:
        groups = groups_of(checkpoint, nvfp4.FORMAT)
        for bits in range(1, 2 ** len(groups), 2 ** len(groups) // 100 | 1):
            picked = [group for i, group in enumerate(groups) if bits >> i & 1]
            recipe = recipe_of(picked, groups, "x", "")
            assert not recipe.engine_problems(roles_of(checkpoint.config))
            quantized = [linear.role for linear in plan_job(checkpoint, recipe, 10**9).linears()]
            assert all(any(group.holds(role) for group in picked) for role in quantized)
            assert all(any(group.holds(role) for role in quantized) for group in picked)


def test_bits_are_bytes() -> None:
    assert SearchOptions(bits=4.5).budget_bytes(1_000_000) == 562_500
    assert SearchOptions(gb=1.5).budget_bytes(1_000_000) == 1_500_000_000


def test_refusals(source: Path, tmp_path: Path) -> None:
    file = [str(data(tmp_path))]
    (tmp_path / "there.yaml").write_text("mine")
    for options, error, wanted in (
        ({}, UsageError, "one of them"),
        ({"bits": 5, "context": 1000}, UsageError, "belong to"),
        ({"bits": 5, "verify": -1}, UsageError, "wanted 0 to"),
        ({"bits": 8, "also": ["int4"]}, UsageError, "wanted fp8-block or mxfp4"),
        ({"fit": "b200x2"}, UsageError, "fits as it is"),
        ({"fit": "b200"}, UsageError, "GPUxCOUNT"),
        ({"fit": "b2x8"}, UsageError, "b2"),
        ({"bits": 5, "gb": 5}, UsageError, "one of them"),
        ({"bits": -1}, UsageError, "wanted a number above 0"),
        ({"gb": float("nan")}, UsageError, "wanted a number above 0"),
        ({"bits": 2}, UsageError, "still take"),
        ({"bits": 17}, UsageError, "as it is"),
        ({"bits": 8, "output": tmp_path / "there.yaml"}, OutputError, "exists already"),
    ):
        with pytest.raises(error, match=wanted):
            search(source, data=file, **options)
    quantize(source, tmp_path / "nvfp4")
    with pytest.raises(UnsupportedError, match="already quantized"):
        search(tmp_path / "nvfp4", data=file, bits=8)


def test_fp8_keeps_what_it_can() -> None:
    """Within half a step of E4M3 (2^-4 of the value), or of its smallest step under the tile's scale."""
    weight = np.random.default_rng(0).standard_normal((130, 200)).astype(np.float32)
    [rounded] = fp8_block.FORMAT.rounded([weight])
    step = np.abs(weight).max() / 448 * 2**-9
    assert (np.abs(rounded - weight) <= np.maximum(np.abs(weight) * 2**-4, step)).all()
    assert (rounded != weight).any()
    assert fp8_block.FORMAT.bytes((130, 200)) == 130 * 200 + 4 * 4


def test_mxfp4_keeps_what_it_can() -> None:
    """What its numbers can say comes back; a block's largest loses at most a quarter of a step of four."""
    exact = np.array([[0.5, 1, 1.5, 2, 3, 4, 6, -6] * 4, [0] * 32], np.float32) * 2.0**-7
    [rounded] = mxfp4.FORMAT.rounded([exact])
    np.testing.assert_array_equal(rounded, exact)
    weight = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    [rounded] = mxfp4.FORMAT.rounded([weight])
    amax = np.abs(weight.reshape(-1, 32)).max(1, keepdims=True)
    assert (np.abs(rounded - weight).reshape(-1, 32) <= amax / 4).all()
    with pytest.raises(UnsupportedError, match="blocks of 32"):
        mxfp4.FORMAT.rounded([weight[:, :40]])


def test_points_of_the_front_and_other_formats(source: Path, tmp_path: Path) -> None:
    """What is verified is measured whole; formats that no recipe may have are measured, with the reason."""
    found = search(source, data=[str(data(tmp_path, (60, 40)))], bits=11, verify=3, also=["fp8-block"]).as_json()
    verified = [row for row in found["front"] if row["kl"] is not None]
    assert 2 <= len(verified) <= 3
    everything = next(row for row in found["usual"] if row["name"] == "everything")
    assert verified[-1]["kl"] == pytest.approx(everything["kl"])
    assert list(found["not_offered"]) == ["fp8-block"]
    for group in found["groups"]:
        other = group["others"]["fp8-block"]
        assert 0 < other["kl"] < group["kl"]
        assert group["bytes_after"] < other["bytes"] < group["bytes_before"]
    assert found["beside_published"]["bytes"] <= found["usual"][0]["bytes"]


def test_a_machine_as_budget(tmp_path: Path) -> None:
    """As many layers' experts stay as they are as the planner finds room for, and no more."""
    layers = list(range(3, 78))
    choices = [Choice(count, 0.0, count) for count in range(len(layers) + 1)]

    def text(choice: Choice) -> str:
        left = layers[choice.saved :]
        overrides = [{"layers": left, "roles": {"routed_expert": "keep"}}] if left else []
        document = {"version": 1, "name": "x", "roles": {"routed_expert": "nvfp4"}, "layers": {"overrides": overrides}}
        return yaml.safe_dump(document)

    options = SearchOptions(fit="b200x8", context=131072)
    model = on_paper("GLM-5.2", CONFIGS["GLM-5.2"], "bf16")
    found, plan = fitting(model, options, choices, text)
    assert 0 < found.saved < len(layers)
    assert plan.fits
    file = tmp_path / "one-less.yaml"
    file.write_text(text(choices[found.saved - 1]))
    one_less = model.with_recipe(str(file))
    assert not plan_for(one_less, find_gpu("b200"), 8, PlanOptions(context=131072)).fits
    with pytest.raises(UsageError, match="does not fit"):
        fitting(model, SearchOptions(fit="b200x1"), choices, text)


def test_rounding_on_a_device_is_the_codecs() -> None:
    """The same numbers in torch and numpy: zeros, subnormal scales, ties and saturated blocks included."""
    chance = np.random.default_rng(1)
    weights = [
        chance.standard_normal((48, 64)).astype(np.float32) * 10.0 ** chance.integers(-6, 3, (48, 1)) for _ in "ab"
    ]
    weights = [weight.astype(np.float32) for weight in weights]
    weights[0][:4] = 0
    weights[1][4] = np.tile([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 6], 8)
    wanted = nvfp4.FORMAT.rounded(weights)
    found = max_rounded([torch.from_numpy(weight) for weight in weights])
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
