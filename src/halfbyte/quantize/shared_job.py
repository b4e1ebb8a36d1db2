"""What the parts of a job agree on: its fingerprint and options, in their place, written by whoever is first."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from halfbyte.errors import OutputError, said
from halfbyte.quantize.options import QuantizeOptions
from halfbyte.quantize.place import Place
from halfbyte.recipes.recipe import Recipe
from halfbyte.text import json_of

JOB = "job.json"
SHARED = ("recipe", "rounding", "input_scale", "max_shard_bytes", "force", "overwrite")
"""Options that bytes depend on, and whether an old checkpoint may be replaced."""


def shared_job(place: Place, job: str, options: QuantizeOptions) -> None:
    """Agree on the job with the other parts. job: its fingerprint. Raises OutputError if theirs is another."""
    stored = read_job(place)
    if stored is None:
        recipe = options.recipe
        chosen = recipe if isinstance(recipe, Recipe) else Recipe.named(recipe)
        document = {name: getattr(options, name) for name in SHARED} | {"recipe": chosen.model_dump(mode="json")}
        scale = options.input_scale
        if isinstance(scale, Path) or (isinstance(scale, str) and os.path.exists(scale)):
            document["input_scale"] = str(Path(scale).resolve())
        place.create(JOB, json.dumps({"job": job, "options": document}).encode())
        stored = read_job(place)
    if stored is None or stored["job"] != job:
        raise OutputError(
            f"{place.where}: holds parts of another job (other source, recipe, options or version)",
            hint=said("give all parts the same source and options, or choose another folder"),
        )


def read_job(place: Place) -> dict[str, Any] | None:
    """What the parts agreed on, None if none has begun. Raises OutputError for a damaged file."""
    content = place.read(JOB)
    if content is None:
        return None
    try:
        found = json_of(content)
    except ValueError:
        found = None
    if (
        not isinstance(found, dict)
        or not isinstance(found.get("job"), str)
        or not isinstance(found.get("options"), dict)
    ):
        staging = f"{place.where}/.halfbyte"
        raise OutputError(f"{staging}/{JOB}: is damaged", hint=f"remove {staging} and begin again")
    return found


def with_stored(options: QuantizeOptions, stored: dict[str, Any]) -> QuantizeOptions:
    """The options, those that are left at their defaults as the parts had them."""
    defaults = {field.name: field.default for field in fields(QuantizeOptions)}
    kept = {
        name: value
        for name, value in stored["options"].items()
        if name in SHARED and getattr(options, name) == defaults[name]
    }
    if "recipe" in kept:
        kept["recipe"] = Recipe.model_validate(kept["recipe"])
    return replace(options, **kept)
