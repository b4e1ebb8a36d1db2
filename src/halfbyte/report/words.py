"""Figures as a report writes them: bytes exact, KL with three decimals, intervals in brackets."""

import math
from collections.abc import Mapping
from typing import Any

from halfbyte.evidence.comparison import Estimate

HEX_DIGITS = 16
"""Of a SHA-256; halfbyte.json has all 64."""


def number(value: float | None, form: str = "{:.3f}") -> str:
    if value is None:
        return "–"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    try:
        return form.format(value)
    except OverflowError:
        return str(value)[:40]


def interval(estimate: Estimate | None, form: str = "{:.3f}") -> str:
    """Mean and 95 % interval."""
    if estimate is None or estimate.mean is None:
        return "–"
    mean = number(estimate.mean, form)
    if estimate.low is None or estimate.high is None:
        return mean
    return f"{mean} [{number(estimate.low, form)}, {number(estimate.high, form)}]"


def size(size_bytes: float) -> str:
    if not abs(size_bytes) < 1e300:
        return str(size_bytes)[:40]
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size_bytes) < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.2f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3f} TB"


def hexadecimal(sha256: str | None) -> str:
    return "–" if sha256 is None else sha256[:HEX_DIGITS]


def short(text: object, most: int = 300) -> str:
    """Words of others, cut where they would fill the page."""
    text = str(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{short(name, 60)} {short(value, 60)}" for name, value in values.items())
