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

from halfbyte.errors import RecipeError, UnsupportedError, said
from halfbyte.formats.catalogue import (
    BF16,
    FP8_BLOCK,
    FP8_BLOCK_POWERS,
    INT4,
    INT4_ZERO_POINTS,
    MXFP4,
    NVFP4,
    NVFP4_WEIGHT_ONLY,
    declared,
    stored_bytes,
)
from halfbyte.formats.modelopt import MOE_ALGORITHM, WITH_ACTIVATIONS, format_of
from halfbyte.formats.quantization_block import QuantizationBlock
from halfbyte.models import family_of, promised_tensors
from halfbyte.models.architecture import Architecture
from halfbyte.models.family import Described, Family
from halfbyte.models.roles import Role, TensorRole
from halfbyte.plan.weight_groups import WeightGroup
from halfbyte.recipes.recipe import Recipe

MLPS = (Role.ROUTED_EXPERT, Role.SHARED_EXPERT, Role.DENSE_MLP)
UNQUANTIZED = BF16
KEPT_PROJECTIONS = (
    *("weights_proj", "eh_proj", "compressor_wkv", "compressor_wgate"),
    *("markov_w1", "markov_w2", "confidence_head"),
)
"""Matrices that the published FP8 checkpoints leave in BF16 although their role is quantized."""


@dataclass(frozen=True)
class PaperRecipe:
    """formats: role -> format of its matrices; other roles stay as published. mtp: whether MTP layers follow; drafts:
    format of the experts there, where it is another."""

    name: str
    formats: dict[Role, str]
    mtp: bool = False
    drafts: str | None = None

    def storage(self, tensor: Described, arch: Architecture) -> str:
        chosen = self.formats.get(tensor.role)
        kept = tensor.projection in KEPT_PROJECTIONS or (tensor.mtp and not self.mtp)
        if chosen is None or kept or not tensor.multiplies:
            return tensor.dtype
        return self.drafts if self.drafts and tensor.mtp and tensor.role is Role.ROUTED_EXPERT else chosen


def _table(storage: str, *roles: Role) -> dict[Role, str]:
    return dict.fromkeys(roles, storage)


FP8_AND_MXFP4, FP8_AND_NVFP4 = "fp8-and-mxfp4-experts", "fp8-and-nvfp4-experts"
_V4_TILES = _table(FP8_BLOCK_POWERS, Role.SHARED_EXPERT, Role.ATTENTION, Role.INDEXER, Role.MTP)

PAPER_RECIPES = {
    recipe.name: recipe
    for recipe in (
        PaperRecipe(UNQUANTIZED, {}),
        PaperRecipe(FP8_BLOCK, _table(FP8_BLOCK, *MLPS, Role.ATTENTION, Role.INDEXER), mtp=True),
        PaperRecipe("nvfp4-all", _table(NVFP4, *MLPS, Role.ATTENTION)),
        PaperRecipe("nvfp4-experts-and-mtp", _table(NVFP4, Role.ROUTED_EXPERT), mtp=True),
        PaperRecipe("mxfp4-experts", _table(MXFP4, Role.ROUTED_EXPERT), mtp=True),
        PaperRecipe(FP8_AND_MXFP4, _V4_TILES | _table(MXFP4, Role.ROUTED_EXPERT), mtp=True),
        PaperRecipe(FP8_AND_NVFP4, _V4_TILES | _table(NVFP4, Role.ROUTED_EXPERT), mtp=True, drafts=MXFP4),
        PaperRecipe("int4-experts", _table(INT4, Role.ROUTED_EXPERT)),
        PaperRecipe("int4-experts-asymmetric", _table(INT4_ZERO_POINTS, Role.ROUTED_EXPERT)),
    )
}

PUBLISHED = {
    FP8_BLOCK: FP8_BLOCK,
    MXFP4: "mxfp4-experts",
    INT4: "int4-experts",
    INT4_ZERO_POINTS: "int4-experts-asymmetric",
}
"""Format that a config declares -> the recipe by which such checkpoints are published."""

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
    packed = format_of(recipe.algorithm).name

    def storage(tensor: Described, arch: Architecture) -> str:
        if not tensor.multiplies:
            return tensor.dtype
        role = TensorRole(tensor.role, "", "weight", tensor.layer, None, tensor.projection, tensor.mtp)
        return packed if recipe.quantizes(role, arch.layers) else tensor.dtype

    return storage


def recipe_of_config(config: dict[str, Any]) -> str:
    """The paper recipe that describes a config's own `quantization_config`; `bf16` without one.

    Raises UnsupportedError for a method it cannot name, with the choice of naming a recipe.
    """
    block = QuantizationBlock.of_config(config) or QuantizationBlock.of_config(family_of(config)[1])
    if block is None:
        return UNQUANTIZED
    form = declared(block)
    if form is None:
        method, algorithm = str(block.stated.get("quant_method", "")), str(block.stated.get("quant_algo", ""))
        raise UnsupportedError(
            f"quantization_config of method {method[:40]!r} {algorithm[:40]!r} is not one of the paper recipes",
            hint=said("name one with {recipe}: {known}", known=", ".join(sorted([*PAPER_RECIPES, *Recipe.shipped()]))),
        )
    family, text = family_of(config)
    if form.name == FP8_BLOCK and family.mxfp4_beside_fp8 and text.get("expert_dtype") != "fp8":
        return FP8_AND_NVFP4 if str(block.stated.get(MOE_ALGORITHM)).upper() == WITH_ACTIVATIONS else FP8_AND_MXFP4
    if form.name in PUBLISHED:
        return PUBLISHED[form.name]
    excluded = block.exclusions.value if block.exclusions is not None else []
    return _nvfp4_recipe(excluded, form.name, family, family.read(text))


def _nvfp4_recipe(ignored: object, storage: str, family: Family, arch: Architecture) -> str:
    """By what the exclusion list spares: attention, shared experts, dense MLPs (probed at plausible module paths, and
    at the family's own)."""
    entries = [entry for entry in ignored if isinstance(entry, str)] if isinstance(ignored, list) else []

    def spared(role: Role, *modules: str) -> bool:
        probed = [*modules, *_modules_of(role, family, arch)]
        return any(fnmatchcase(module, entry) for module in probed for entry in entries)

    attention = "layers.5.self_attn.o_proj"
    if not spared(Role.ATTENTION, f"model.{attention}", f"language_model.model.{attention}"):
        return "nvfp4-all"
    if storage == NVFP4_WEIGHT_ONLY:
        return "nvfp4-weight-only"
    if spared(Role.SHARED_EXPERT, "model.layers.5.mlp.shared_experts.up_proj"):
        return "nvfp4-routed-experts"
    return "nvfp4-experts-and-shared" if spared(Role.DENSE_MLP, "model.layers.0.mlp.up_proj") else "nvfp4-mlp"


def _modules_of(role: Role, family: Family, arch: Architecture) -> list[str]:
    """A linear of this role, an o_proj or up_proj from the middle of the model, as a text model alone names it and
    beside towers."""
    found = [one.name for one in family.tensors(arch) if one.role is role and one.projection in ("o_proj", "up_proj")]
    if not found:
        return []
    module = found[len(found) // 2].removesuffix(".weight")
    return [module] if family.wrapping is None else [module, family.wrapping.outer(module)]


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
