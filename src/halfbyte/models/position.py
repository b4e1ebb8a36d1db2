"""Which layer and expert a tensor is of, by its name alone, where no config.json is at hand: for showing, never for
deciding. `RoleMap` decides, and knows which names a model can have."""

import re
from typing import NamedTuple

_POSITION = re.compile(r"\.layers\.(\d{1,6})\.(?:[^.]+\.)*?experts\.(\d{1,6})\.")


class Position(NamedTuple):
    layer: int
    expert: int


def position_of(name: str) -> Position | None:
    """`model.layers.3.mlp.experts.17.up_proj` is expert 17 of layer 3; None for what is no single expert's."""
    found = _POSITION.search(f".{name}")
    return Position(int(found.group(1)), int(found.group(2))) if found else None
