"""Recipes: a short table role -> format, with overrides by layer. YAML, typed, unknown keys refused.

What the engines cannot load is refused here, before any work, with the reason; the reasons are facts of vLLM 0.33 and
SGLang 0.5.23. One precision per layer's experts holds by construction: a recipe cannot name an expert.
"""

from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from halfbyte.errors import RecipeError
from halfbyte.formats.modelopt import Algorithm
from halfbyte.models.families import MLA, Role
from halfbyte.models.roles import RoleMap, TensorRole

DEFAULT_RECIPE = "nvfp4-routed-experts"
Format = Literal["nvfp4", "keep"]


def _layer_numbers(value: Any) -> Any:
    """`3`, `"3-5"`, `"3-5, 77"` or a list of these -> a sorted tuple of layer numbers."""
    numbers: set[int] = set()
    for item in value if isinstance(value, list) else str(value).split(","):
        first, dash, last = str(item).strip().partition("-")
        if not (first.isdigit() and (last.isdigit() if dash else True)) or (dash and int(last) < int(first)):
            raise ValueError(f"{item!r} is not a layer number or a range like 3-5")
        numbers.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(numbers))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Override(_Strict):
    """Other formats for some layers."""

    layers: Annotated[tuple[int, ...], BeforeValidator(_layer_numbers)]
    roles: dict[Role, Format]


class Layers(_Strict):
    """keep_first / keep_last: decoder layers at either end that are left as they are, counted by layer number."""

    keep_first: int = Field(default=0, ge=0)
    keep_last: int = Field(default=0, ge=0)
    overrides: tuple[Override, ...] = ()


class Recipe(_Strict):
    """Which roles become NVFP4. Roles that are not named are kept; MTP layers are kept unless `mtp` says otherwise."""

    version: Literal[1]
    name: str = Field(min_length=1)
    description: str = ""
    algorithm: Algorithm = "NVFP4"
    roles: dict[Role, Format]
    layers: Layers = Layers()
    mtp: Format = "keep"

    def quantizes(self, role: TensorRole, num_layers: int) -> bool:
        """Whether this recipe turns the linear `role` into NVFP4."""
        if role.mtp and self.mtp == "keep":
            return False
        chosen = self.roles.get(role.role, "keep")
        if role.layer is not None and not role.mtp:
            if role.layer < self.layers.keep_first or role.layer >= num_layers - self.layers.keep_last:
                return False
            for override in self.layers.overrides:
                if role.layer in override.layers:
                    chosen = override.roles.get(role.role, chosen)
        return chosen == "nvfp4"

    def _quantized_roles(self) -> set[Role]:
        tables = [self.roles, *(override.roles for override in self.layers.overrides)]
        return {role for table in tables for role, chosen in table.items() if chosen == "nvfp4"}

    def check_layers(self, roles: RoleMap) -> None:
        """Raise RecipeError for a layer number that the model does not have."""
        for override in self.layers.overrides:
            for layer in override.layers:
                if layer >= roles.layers:
                    raise RecipeError(
                        f"recipe {self.name}: layer {layer} in layers.overrides, the model has 0 to {roles.layers - 1}"
                    )

    def engine_problems(self, roles: RoleMap) -> list[str]:
        """Why an engine could not load a checkpoint made by this recipe; empty if both can."""
        quantized = self._quantized_roles()
        problems = []
        if Role.ATTENTION in quantized and roles.family.attention is MLA:
            problems.append("attention: kv_b_proj is absorbed per head at load, SGLang's MLA path takes no NVFP4")
        reasons = {
            Role.INDEXER: "vLLM and SGLang fuse wk with weights_proj in BF16; NVFP4 scales are unknown keys there",
            Role.ROUTER: "the router is a plain parameter in SGLang and must not be rounded: it decides top-k",
            Role.LM_HEAD: "vLLM reports the scales of parallel_lm_head as never loaded",
            Role.EMBEDDING: "no engine looks up packed embeddings",
            Role.MTP: "SGLang builds the MTP layer of modelopt_fp4 checkpoints unquantized",
        }
        problems += [f"{role}: {reason}" for role, reason in reasons.items() if role in quantized]
        if self.mtp == "nvfp4":
            problems.append(f"mtp: {reasons[Role.MTP]}")
        return problems


def shipped_recipes() -> dict[str, Any]:
    """Name -> file of the recipes that come with Halfbyte."""
    folder = resources.files("halfbyte.recipes") / "shipped"
    return {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}


def load_recipe(name_or_file: str | Path) -> Recipe:
    """A shipped recipe by name, or a recipe file by path. Raises RecipeError with a suggestion."""
    shipped = shipped_recipes()
    name = str(name_or_file)
    if name in shipped:
        return parse_recipe(shipped[name].read_text("utf-8"), name)
    path = Path(name_or_file)
    try:
        exists = path.is_file()
    except OSError:  # no file can have such a name
        exists = False
    if not exists:
        near = get_close_matches(name, shipped, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"shipped recipes: {', '.join(sorted(shipped))}"
        raise RecipeError(f"no recipe and no file is called {name[:200]!r}", hint=hint)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    return parse_recipe(text, name)


def parse_recipe(text: str, where: str) -> Recipe:
    """A recipe from YAML text. Raises RecipeError naming the first thing wrong, with the nearest known word."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise RecipeError(f"{where}: a recipe is a YAML mapping")
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        raise _explained(error, where) from None
    if Role.NORM in recipe._quantized_roles():
        raise RecipeError(f"{where}: roles.norm: norms have one dimension and cannot be NVFP4")
    if not recipe._quantized_roles():
        raise RecipeError(f"{where}: quantizes nothing", hint="give at least one role the format nvfp4")
    return recipe


def _explained(error: ValidationError, where: str) -> RecipeError:
    """The first validation error as ours, with a did-you-mean for words that are nearly known."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(piece) for piece in first["loc"] if piece != "[key]")
    word = str(first["loc"][-1] if first["type"] == "extra_forbidden" else first["input"])
    if first["type"] == "extra_forbidden":
        model = Override if "overrides" in first["loc"] else Layers if first["loc"][0] == "layers" else Recipe
        known, what = list(model.model_fields), "unknown setting"
    elif "[key]" in first["loc"]:
        known, what = [str(role) for role in Role], "unknown role"
    else:
        known, what = ["nvfp4", "keep", "NVFP4", "W4A16_NVFP4"], first["msg"]
    near = get_close_matches(word, known, n=1)
    suggestion = (
        f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}" if what != first["msg"] else None
    )
    return RecipeError(f"{where}: {path}: {what} ({word[:80]!r})", hint=suggestion)
