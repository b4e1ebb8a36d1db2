"""What is planned for: a checkpoint folder, a remote checkpoint (headers only), or a config with a recipe."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.checkpoint.collection import no_garbage_collection
from halfbyte.checkpoint.files import Files
from halfbyte.checkpoint.index import INDEX_NAME, SHARD_SUFFIX
from halfbyte.checkpoint.json_file import read_json
from halfbyte.checkpoint.names import REMOTE_SECONDS
from halfbyte.checkpoint.source import Opened, read_config, read_headers
from halfbyte.checkpoint.targets import files_of
from halfbyte.errors import CheckpointError, said
from halfbyte.models import architecture_of, roles_of
from halfbyte.models.architecture import Architecture
from halfbyte.plan.recipes import groups_on_paper, recipe_of_config, storage_by_recipe
from halfbyte.plan.weight_groups import WeightGroup, groups_of_checkpoint


@dataclass(frozen=True)
class PlannedModel:
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

    def with_recipe(self, recipe: str) -> "PlannedModel":
        """The same model in another format, on paper."""
        groups = tuple(groups_on_paper(self.arch, storage_by_recipe(recipe)))
        return PlannedModel(self.name, self.config, self.arch, groups, recipe)


def resolve(target: str, recipe: str | None = None, seconds: float = REMOTE_SECONDS) -> PlannedModel:
    """Read a target. seconds: for all that is asked of a server.

    Raises CheckpointError, UnsupportedError or RecipeError; never reads a weight."""
    with no_garbage_collection():
        return _resolve(target, recipe, seconds)


def _resolve(target: str, recipe: str | None, seconds: float) -> PlannedModel:
    files = files_of(target, seconds=seconds)
    if files is not None:
        try:
            return _of_files(target, files, recipe)
        finally:
            files.close()
    if not os.path.isfile(target):  # unlike Path.is_file, no OSError for a name that is too long
        raise CheckpointError(
            f"{target[:300]}: no such checkpoint",
            hint=said("give a folder, a config.json with {recipe}, a hub name (owner/name) or an https:// base URL"),
        )
    return on_paper(target, read_json(Path(target)), recipe)


def _of_files(target: str, files: Files, recipe: str | None) -> PlannedModel:
    """By the headers, unless a recipe is named or a folder holds a config and no weights."""
    listing = files.listing() if not files.remote else None
    has_weights = listing is None or INDEX_NAME in listing or any(name.endswith(SHARD_SUFFIX) for name in listing)
    if recipe is not None or not has_weights:
        return on_paper(target, read_config(files), recipe)
    return _from_headers(target, read_headers(files))


def on_paper(name: str, config: dict[str, Any], recipe: str | None) -> PlannedModel:
    """A model from its config alone; without a recipe, in the format its own `quantization_config` states."""
    arch = architecture_of(config)
    chosen = recipe if recipe is not None else recipe_of_config(config)
    return PlannedModel(name, config, arch, tuple(groups_on_paper(arch, storage_by_recipe(chosen))), chosen)


def _from_headers(name: str, opened: Opened) -> PlannedModel:
    config = opened.config
    arch = architecture_of(config)
    groups = tuple(groups_of_checkpoint(opened.tensors, roles_of(config)))
    return PlannedModel(name, config, arch, groups, None)
