"""Recipes: a short table role -> format, with overrides by layer. YAML, typed, unknown keys refused.

What the engines cannot load is refused here, before any work, with the reason; the reasons are facts of vLLM 0.33 and
SGLang 0.5.23. One precision per layer's experts holds by construction: a recipe cannot name an expert.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field

from halfbyte.engines.packing import REASONS, WHOLE_EXPERTS, halves_apart, why_unpackable
from halfbyte.errors import RecipeError
from halfbyte.formats.modelopt import Algorithm
from halfbyte.models.role_map import RoleMap
from halfbyte.models.roles import Role, TensorRole
from halfbyte.recipes.reading import Table, WrittenFile

Format = Literal["nvfp4", "keep"]

Chosen = Format | dict[str, Format]
"""Of a role: one format, or one for each linear (`{o_proj: nvfp4}`); linears that are not named are kept."""


def _layer_numbers(value: Any) -> Any:
    """`3`, `"3-5"`, `"3-5, 77"` or a list of these -> a sorted tuple of layer numbers."""
    numbers: set[int] = set()
    for item in value if isinstance(value, list) else str(value).split(","):
        first, dash, last = str(item).strip().partition("-")
        if not (first.isdigit() and (last.isdigit() if dash else True)) or (dash and int(last) < int(first)):
            raise ValueError(f"{item!r} is not a layer number or a range like 3-5")
        numbers.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(numbers))


LayerNumbers = Annotated[
    tuple[int, ...], BeforeValidator(_layer_numbers, json_schema_input_type=int | str | list[int | str])
]


class Override(Table):
    """Other formats for some layers."""

    layers: LayerNumbers
    roles: dict[Role, Chosen]


class Layers(Table):
    """keep_first / keep_last: decoder layers at either end that are left as they are, counted by layer number."""

    keep_first: int = Field(default=0, ge=0)
    keep_last: int = Field(default=0, ge=0)
    overrides: tuple[Override, ...] = ()


class Recipe(WrittenFile):
    """Which roles, or which linears of a role, become NVFP4. What is not named is kept, MTP layers too unless `mtp`
    says otherwise."""

    what: ClassVar = "recipe"
    plural: ClassVar = "recipes"
    folder: ClassVar = "shipped"
    error: ClassVar = RecipeError

    version: Literal[1]
    name: str = Field(min_length=1)
    description: str = ""
    algorithm: Algorithm = "NVFP4"
    roles: dict[Role, Chosen]
    layers: Layers = Layers()
    mtp: Format = "keep"

    @classmethod
    def parsed(cls, text: str, where: str) -> Self:
        recipe = super().parsed(text, where)
        if Role.NORM in recipe._quantized_roles():
            raise RecipeError(f"{where}: roles.norm: norms have one dimension and cannot be NVFP4")
        if Role.TOWER in recipe._quantized_roles():
            raise RecipeError(f"{where}: roles.tower: what stands beside the text model is kept as it is")
        if any(isinstance(chosen, dict) for chosen in recipe._chosen(Role.ROUTED_EXPERT)):
            raise RecipeError(f"{where}: roles.routed_expert: {WHOLE_EXPERTS}", hint="give the role one format")
        if not recipe._quantized_roles():
            raise RecipeError(f"{where}: quantizes nothing", hint="give at least one role the format nvfp4")
        return recipe

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
        return (chosen.get(role.projection or "", "keep") if isinstance(chosen, dict) else chosen) == "nvfp4"

    def _chosen(self, role: Role) -> list[Chosen]:
        """All that the recipe says of a role."""
        return [chosen for chosen, _ in self._said(role)]

    def _said(self, role: Role) -> Iterator[tuple[Chosen, tuple[int | None, ...]]]:
        """The same, each with the layers for which it is said; (None,): for all."""
        if role in self.roles:
            yield self.roles[role], (None,)
        for override in self.layers.overrides:
            if role in override.roles:
                yield override.roles[role], override.layers

    def _quantized_roles(self) -> set[Role]:
        return {role for role in Role if any(map(_packs, self._chosen(role)))}

    def check_model(self, roles: RoleMap) -> None:
        """Raise RecipeError for a layer number or a linear that the model does not have."""
        for override in self.layers.overrides:
            for layer in override.layers:
                if layer >= roles.layers:
                    raise RecipeError(
                        f"recipe {self.name}: layer {layer} in layers.overrides, the model has 0 to {roles.layers - 1}"
                    )
        for role in Role:
            for chosen in self._chosen(role):
                for projection in chosen if isinstance(chosen, dict) else ():
                    if projection not in (known := roles.projections(role)):
                        raise RecipeError(
                            f"recipe {self.name}: roles.{role} names {projection[:80]!r}, no linear of this model",
                            hint=f"its linears of this role: {', '.join(known) or 'none'}",
                        )

    def engine_problems(self, roles: RoleMap) -> list[str]:
        """Why an engine could not load a checkpoint made by this recipe; empty if both can."""
        latent, packs, problems = roles.arch.mla is not None, roles.family.packs, list[str]()
        for role in (Role.ATTENTION, *REASONS, Role.SHARED_EXPERT, Role.DENSE_MLP):
            for chosen, layers in self._said(role):
                for layer in layers if _packs(chosen) else ():
                    reasons = _reasons(role, chosen, latent, packs, roles.projections(role, layer))
                    problems += [f"{role}: {reason}" for reason in reasons]
        if self.mtp == "nvfp4":
            problems.append(f"mtp: {REASONS[Role.MTP]}")
        return list(dict.fromkeys(problems))


def _packs(chosen: Chosen) -> bool:
    return "nvfp4" in chosen.values() if isinstance(chosen, dict) else chosen == "nvfp4"


def _reasons(
    role: Role, chosen: Chosen, latent: bool, packs: Mapping[Role, tuple[str, ...]], linears: list[str]
) -> Iterator[str]:
    """Why engines do not load what is chosen for a role. packs: see `Family`. linears: the projections of the role."""
    if isinstance(chosen, str):
        reason = why_unpackable(role, None, latent, packs)
        if reason is not None:
            yield reason
        return
    packed = [name for name, form in chosen.items() if form == "nvfp4"]
    yield from filter(None, (why_unpackable(role, name, latent, packs) for name in packed))
    apart = halves_apart(packed, linears)
    if apart is not None:
        yield f"{apart[0]} is packed and {apart[1]} is not, yet engines fuse the two"
