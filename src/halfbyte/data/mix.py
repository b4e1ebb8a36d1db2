"""Shipped mixes: named lists of data sets with shares, so that a calibration can be repeated from its name."""

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml


@dataclass(frozen=True)
class MixedSet:
    """One data set of a mix. samples: rows taken of it. category: label of its rows that carry none."""

    name: str
    category: str
    samples: int


@dataclass(frozen=True)
class Mix:
    name: str
    seed: int
    sets: tuple[MixedSet, ...]


@cache
def shipped_mixes() -> dict[str, Mix]:
    """Name -> mix, from the YAML files beside this module."""
    mixes = {}
    for entry in (resources.files("halfbyte.data") / "mixes").iterdir():
        if entry.name.endswith(".yaml"):
            document = yaml.safe_load(entry.read_text("utf-8"))
            sets = tuple(MixedSet(**row) for row in document["sets"])
            mixes[document["name"]] = Mix(document["name"], document["seed"], sets)
    return mixes
