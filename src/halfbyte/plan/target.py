"""What is planned for: a checkpoint folder, a remote checkpoint (headers only), or a config with a recipe."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.collection import no_garbage_collection
from halfbyte.checkpoint.source import INDEX_NAME, Checkpoint, read_json
from halfbyte.errors import CheckpointError, UnsupportedError, said
from halfbyte.models import FAMILIES, architecture_of, roles_of
from halfbyte.models.architecture import Architecture
from halfbyte.plan.recipes import groups_on_paper, recipe_of_config, storage_by_recipe
from halfbyte.plan.weight_groups import WeightGroup, groups_of_checkpoint

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Model:
    """name: what the user gave. recipe: of a paper model, or None for one whose tensors were read."""

    name: str
    config: dict[str, Any]
    arch: Architecture
    groups: tuple[WeightGroup, ...]
    recipe: str | None

    @property
    def checkpoint_bytes(self) -> int:
        """Tensor bytes on disk, MTP layers and (on paper) the vision tower included."""
        vision = self.arch.vision_bytes if self.recipe is not None else 0
        return sum(group.bytes for group in self.groups) + vision

    @property
    def has_mtp(self) -> bool:
        return any(group.mtp for group in self.groups)

    def with_recipe(self, recipe: str) -> "Model":
        """The same model in another format, on paper."""
        groups = tuple(groups_on_paper(self.arch, storage_by_recipe(recipe)))
        return Model(self.name, self.config, self.arch, groups, recipe)


def resolve(target: str, recipe: str | None = None) -> Model:
    """Read a target. Raises CheckpointError, UnsupportedError or RecipeError; never reads a weight."""
    with no_garbage_collection():
        return _resolve(target, recipe)


def _resolve(target: str, recipe: str | None) -> Model:
    path = Path(target)
    # os.path, unlike Path, has no OSError for a name that is too long
    if target.startswith(("http://", "https://")) or (not os.path.exists(target) and HUB_NAME.fullmatch(target)):
        return _remote(target, recipe)
    if os.path.isdir(target):
        if recipe is None and (any(path.glob("*.safetensors")) or (path / INDEX_NAME).exists()):
            with Checkpoint.open(path) as checkpoint:
                return _from_headers(target, checkpoint.config, checkpoint)
        path = path / "config.json"
    if not os.path.isfile(path):
        raise CheckpointError(
            f"{target[:300]}: no such checkpoint",
            hint=said("give a folder, a config.json with {recipe}, a hub name (owner/name) or an https:// base URL"),
        )
    return on_paper(target, read_json(path), recipe)


def on_paper(name: str, config: dict[str, Any], recipe: str | None) -> Model:
    """A model from its config alone; without a recipe, in the format its own `quantization_config` states."""
    arch = architecture_of(config)
    chosen = recipe if recipe is not None else recipe_of_config(config)
    return Model(name, config, arch, tuple(groups_on_paper(arch, storage_by_recipe(chosen))), chosen)


def _from_headers(name: str, config: dict[str, Any], checkpoint: Any) -> Model:
    arch = architecture_of(config)
    if FAMILIES[arch.model_type].paper_only or "text_config" in config:
        raise UnsupportedError(
            f"{name}: tensors of model_type {config['model_type']!r} are not known by name",
            hint=said("plan it on paper: give its config.json with {recipe}"),
        )
    groups = tuple(groups_of_checkpoint(checkpoint.tensors.values(), roles_of(config)))
    return Model(name, config, arch, groups, None)


def _remote(target: str, recipe: str | None) -> Model:
    from halfbyte.checkpoint.remote import RemoteCheckpoint, read_remote_config  # httpx is slow to import

    if recipe is not None:
        return on_paper(target, read_remote_config(target), recipe)
    remote = RemoteCheckpoint.open(target)
    return _from_headers(target, remote.config, remote)
