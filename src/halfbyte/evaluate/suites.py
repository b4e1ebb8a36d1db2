"""The suites there are: what is asked, how many items, how accurate the baseline is before anything is run.

Item counts: GPQA diamond 198; SciCode 338 sub-problems of its 80 problems; IFBench 294 in its published answers; AA-LCR
100; tau2 telecom's base split 114. Accuracies of glm-5.2: FP8 as published on the card of GLM-5.2-NVFP4. Those of tiny:
BF16, `benchmarks/quantize/rounding_tasks.py`.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halfbyte.disk import open_regular
from halfbyte.errors import DataError, UsageError

UNKNOWN_ACCURACY = 0.5
"""Of a suite that was never run: where the variance is largest."""
LINE_LIMIT_BYTES = 10_000_000
CHECKERS = ("exact", "choice", "regex", "numeric", "json-schema", "python", "judge")


@dataclass(frozen=True)
class Suite:
    """name: as reports say it. accuracy: of the baseline, 0 to 1; assumed where `known` is not."""

    name: str
    items: int
    accuracy: float
    known: bool = True


PUBLISHED: dict[str, tuple[Suite, ...]] = {
    "glm-5.2": (
        Suite("gpqa-diamond", 198, 0.8952),
        Suite("scicode", 338, 0.4985),
        Suite("ifbench", 294, 0.7495),
        Suite("aa-lcr", 100, 0.6938),
        Suite("tau2-telecom", 114, 0.979),
    ),
    "tiny": (
        Suite("code", 400, 285 / 400),
        Suite("instruction_following", 400, 311 / 400),
        Suite("long_context", 300, 273 / 300),
        Suite("multilingual", 400, 373 / 400),
        Suite("reasoning", 400, 368 / 400),
        Suite("tool_use", 400, 369 / 400),
    ),
}
BUILT = ("long-recall", "korean")
"""Suites whose items are made, or read from the user's copy: how many, the run says."""
DEFAULT_SUITE = "glm-5.2"


def suites_of(name_or_file: str) -> tuple[Suite, ...]:
    """Suites by name, or of a file of items. Raises UsageError, DataError."""
    if name_or_file in PUBLISHED:
        return PUBLISHED[name_or_file]
    path = Path(name_or_file)
    if not name_or_file.endswith(".jsonl"):
        raise no_such_suite(name_or_file)
    return (Suite(path.stem, sum(1 for _ in read_items(path)), UNKNOWN_ACCURACY, known=False),)


def no_such_suite(name: str) -> UsageError:
    known = ", ".join([*PUBLISHED, *BUILT])
    return UsageError(f"no suite is called {name[:80]!r}", hint=f"known: {known}; or a .jsonl file of items")


def read_items(path: Path) -> Iterator[dict[str, Any]]:
    """Items of a suite file, one JSON object a line. Raises DataError naming the line at fault."""
    seen: dict[str, int] = {}
    number = 0
    try:
        with os.fdopen(open_regular(path, DataError), "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT_BYTES + 1), b""), 1):
                if len(line) > LINE_LIMIT_BYTES:
                    raise DataError(f"{path}:{number}: a line of over {LINE_LIMIT_BYTES} bytes is no item")
                if line.strip():
                    item = checked_item(line, f"{path}:{number}")
                    if item["id"] in seen:
                        raise DataError(
                            f"{path}:{number}: id {item['id'][:80]!r} is that of line {seen[item['id']]} too"
                        )
                    seen[item["id"]] = number
                    yield item
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not seen:
        raise DataError(f"{path}: holds no items")


def checked_item(line: bytes, where: str) -> dict[str, Any]:
    """One item. Raises DataError."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {str(error)[:120]}") from None
    if not isinstance(item, dict):
        raise DataError(f"{where}: is no JSON object")
    if not isinstance(item.get("id"), str) or not item["id"]:
        raise DataError(f"{where}: has no id", hint="each item wants an id of its own, by which runs are paired")
    if isinstance(item.get("prompt"), str) == isinstance(item.get("messages"), list):
        raise DataError(f"{where}: wants either prompt (text) or messages (a list)")
    if item.get("checker") not in CHECKERS:
        seen = str(item.get("checker"))[:40]
        raise DataError(f"{where}: checker is {seen!r}", hint=f"known: {', '.join(CHECKERS)}")
    if "reference" not in item:
        raise DataError(f"{where}: has no reference to check against")
    return item
