"""Kubernetes' quantities: 3, 500m, 16Gi."""

import re
from typing import Any

_FACTORS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18} | {
    f"{letter}i": float(1 << (10 * power)) for power, letter in enumerate("KMGTPE", 1)
}


def quantity(value: Any) -> float:
    """Its number. What is none counts as 0: the shape of a document is checked elsewhere."""
    if isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float):
        return float(value)
    found = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?\d+)?)([a-zA-Z]{0,2})", str(value).strip())
    if found is None or found[2] not in _FACTORS:
        return 0.0
    try:
        return float(found[1]) * _FACTORS[found[2]]
    except ValueError:
        return 0.0
