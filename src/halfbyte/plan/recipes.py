"""Formats by role for checkpoints on paper: the recipes that `quantize` ships, and those of other tools.

`fp8-block`, `mxfp4-experts` and `int4-experts` describe published checkpoints that Halfbyte does not write; the NVFP4
recipes whose names `quantize` knows are read from there, so the two cannot drift apart.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from halfbyte.errors import CheckpointError, RecipeError, UnsupportedError, said
from halfbyte.formats.sizes import INT4_GROUP, stored_bytes
from halfbyte.models import family_of, promised_tensors
from halfbyte.models.architecture import Architecture
from halfbyte.models.family import Described
from halfbyte.models.roles import Role, TensorRole
from halfbyte.plan.weight_groups import WeightGroup
from halfbyte.recipes.recipe import Recipe

MLPS = (Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP)
KEPT_PROJECTIONS = ("weights_proj", "eh_proj")
"""Matrices that the published FP8 checkpoints leave in BF16 although their role is quantized."""


@dataclass(frozen=True)
class PaperRecipe:
    """formats: role -> format of its matrices; other roles stay as published. mtp: whether MTP layers follow."""

    name: str
    formats: dict[Role, str]
    mtp: bool = False

    def storage(self, tensor: Described, arch: Architecture) -> str:
        chosen = self.formats.get(tensor.role)
        matrix = len(tensor.shape) == 2 and tensor.projection is not None
        if chosen is None or not matrix or tensor.projection in KEPT_PROJECTIONS or (tensor.mtp and not self.mtp):
            return tensor.dtype
        return chosen


def _table(storage: str, *roles: Role) -> dict[Role, str]:
    return dict.fromkeys(roles, storage)


PAPER_RECIPES = {
    recipe.name: recipe
    for recipe in (
        PaperRecipe("bf16", {}),
        PaperRecipe("fp8-block", _table("fp8-block", *MLPS, Role.ATTENTION, Role.INDEXER), mtp=True),
        PaperRecipe("nvfp4-all", _table("nvfp4", *MLPS, Role.ATTENTION)),
        PaperRecipe("nvfp4-experts-and-mtp", _table("nvfp4", Role.ROUTED_EXPERT), mtp=True),
        PaperRecipe("mxfp4-experts", _table("mxfp4", Role.ROUTED_EXPERT), mtp=True),
        PaperRecipe("int4-experts", _table("int4", Role.ROUTED_EXPERT)),
        PaperRecipe("int4-experts-asymmetric", _table("int4-zp", Role.ROUTED_EXPERT)),
    )
}

Storage = Callable[[Described, Architecture], str]


def storage_by_recipe(name_or_file: str) -> Storage:
    """The format rule of a recipe. Raises RecipeError naming the nearest known recipe."""
    paper = PAPER_RECIPES.get(name_or_file)
    if paper is not None:
        return paper.storage
    if name_or_file not in Recipe.shipped() and not Path(name_or_file).is_file():
        known = sorted([*PAPER_RECIPES, *Recipe.shipped()])
        near = get_close_matches(name_or_file, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise RecipeError(f"no recipe and no file is called {name_or_file[:200]!r}", hint=hint)
    recipe = Recipe.named(name_or_file)
    packed = "nvfp4" if recipe.algorithm == "NVFP4" else "nvfp4-w4a16"

    def storage(tensor: Described, arch: Architecture) -> str:
        if len(tensor.shape) != 2 or tensor.projection is None:
            return tensor.dtype
        role = TensorRole(tensor.role, "", "weight", tensor.layer, None, tensor.projection, tensor.mtp)
        return packed if recipe.quantizes(role, arch.layers) else tensor.dtype

    return storage


def recipe_of_config(config: dict[str, Any]) -> str:
    """The paper recipe that describes a config's own `quantization_config`; `bf16` without one.

    Raises UnsupportedError for a method it cannot name, with the choice of naming a recipe.
    """
    block = config.get("quantization_config") or family_of(config)[1].get("quantization_config")
    if not block:
        return "bf16"
    if not isinstance(block, dict):
        raise CheckpointError(f"config.json: quantization_config is {str(block)[:80]!r}, wanted an object")
    method = str(block.get("quant_method", ""))
    algorithm = str(block.get("quant_algo", ""))
    if method == "fp8":
        return "fp8-block"
    if method == "mxfp4":
        return "mxfp4-experts"
    int4 = _int4_recipe(block) if method == "compressed-tensors" else None
    if int4 is not None:
        return int4
    if method == "modelopt" and algorithm in ("NVFP4", "W4A16_NVFP4"):
        return _nvfp4_recipe(block.get("ignore") or block.get("exclude_modules") or [], algorithm)
    raise UnsupportedError(
        f"quantization_config of method {method[:40]!r} {algorithm[:40]!r} is not one of the paper recipes",
        hint=said("name one with {recipe}: {known}", known=", ".join(sorted([*PAPER_RECIPES, *Recipe.shipped()]))),
    )


def _int4_recipe(block: dict[str, Any]) -> str | None:
    """Group-32 INT4, with or without zero points; None for anything else that compressed-tensors can hold."""
    groups = block.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if isinstance(weights, dict) and weights.get("num_bits") == 4 and weights.get("type", "int") == "int":
            if weights.get("group_size", INT4_GROUP) != INT4_GROUP:
                return None
            return "int4-experts" if weights.get("symmetric", True) else "int4-experts-asymmetric"
    return None


def _nvfp4_recipe(ignored: object, algorithm: str) -> str:
    """By what the exclusion list spares: attention, shared experts, dense MLPs (probed at plausible module paths)."""
    entries = [entry for entry in ignored if isinstance(entry, str)] if isinstance(ignored, list) else []

    def spared(*modules: str) -> bool:
        return any(fnmatchcase(module, entry) for module in modules for entry in entries)

    if not spared("model.layers.5.self_attn.o_proj", "language_model.model.layers.5.self_attn.o_proj"):
        return "nvfp4-all"
    if algorithm == "W4A16_NVFP4":
        return "nvfp4-weight-only"
    if spared("model.layers.5.mlp.shared_experts.up_proj"):
        return "nvfp4-routed-experts"
    return "nvfp4-experts-and-shared" if spared("model.layers.0.mlp.up_proj") else "nvfp4-mlp"


def groups_on_paper(arch: Architecture, storage: Storage) -> list[WeightGroup]:
    """All weights of a model in the formats a recipe gives them."""
    groups = []
    for tensor in promised_tensors(arch):
        chosen = storage(tensor, arch)
        size = tensor.count * stored_bytes(tensor.shape, chosen)
        groups.append(
            WeightGroup(
                tensor.role, tensor.mtp, tensor.layer, tensor.projection, tensor.shape, tensor.count, chosen, size
            )
        )
    return groups
