"""Suites by name, or of a user's file: the items that a run asks, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from halfbyte.errors import UsageError, said
from halfbyte.evaluate.running import korean, recall, tiny
from halfbyte.evaluate.running.checkers import check_reference
from halfbyte.evaluate.running.suite import AskedSuite, Sampling
from halfbyte.evaluate.suites import no_such_suite, read_items

GLM, TINY, RECALL, KOREAN = "glm-5.2", "tiny", "long-recall", "korean"


@dataclass(frozen=True)
class SuiteOptions:
    """limit: items of each suite. What is None is the suite's own. data: folder of the user's copies.

    lengths: of long-recall. sandbox: of SciCode, docker or local.
    """

    limit: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    epochs: int | None = None
    seed: int | None = None
    data: Path | None = None
    lengths: str = recall.LENGTHS
    sandbox: str = "docker"

    def of(self, sampling: Sampling) -> Sampling:
        given = {name: getattr(self, name) for name in ("temperature", "top_p", "max_tokens", "epochs", "seed")}
        return replace(sampling, **{name: value for name, value in given.items() if value is not None})


def asked_suites(name_or_file: str, options: SuiteOptions) -> tuple[AskedSuite, ...]:
    """Raises UsageError, DataError, UnsupportedError."""
    _check(options)
    found = _suites(name_or_file, options)
    return tuple(
        replace(one, items=one.items[: options.limit], sampling=options.of(one.sampling)) for one in found if one.items
    )


def _check(options: SuiteOptions) -> None:
    for name in ("limit", "epochs", "max_tokens"):
        count = getattr(options, name)
        if count is not None and count < 1:
            raise UsageError(said(f"{{{name}}} {{value}}: wanted at least 1", value=count))
    if options.temperature is not None and not 0 <= options.temperature <= 5:
        raise UsageError(said("{temperature} {value:g}: wanted 0 to 5", value=options.temperature))
    if options.top_p is not None and not 0 < options.top_p <= 1:
        raise UsageError(said("{top_p} {value:g}: wanted more than 0 and at most 1", value=options.top_p))


def _suites(name: str, options: SuiteOptions) -> Sequence[AskedSuite]:
    if name == GLM:
        from halfbyte.evaluate.running.glm import glm_suites

        return glm_suites(options.data, options.sandbox)
    if name == TINY:
        return _tiny(tiny.TASKS, options.data)
    if name == RECALL:
        sampling = Sampling(max_tokens=recall.MAX_TOKENS)
        return [
            AskedSuite(f"{RECALL}-{length}", tuple(recall.recall_items(tokens)), sampling, about={"tokens": tokens})
            for length, tokens in recall.lengths_from(options.lengths)
        ]
    if name == KOREAN:
        return [*_tiny(("multilingual",), None), *_questions(options.data)]
    if not name.endswith(".jsonl"):
        raise no_such_suite(name)
    items = read_suite(Path(name))
    return [AskedSuite(Path(name).stem, items, Sampling(), roles=_roles(items))]


def _tiny(tasks: Sequence[str], data: Path | None) -> list[AskedSuite]:
    folder = tiny.tasks_folder(data)
    sampling = Sampling(max_tokens=tiny.MAX_TOKENS)
    return [AskedSuite(name, tuple(tiny.read_task(folder, name)), sampling) for name in tasks]


def _questions(data: Path | None) -> list[AskedSuite]:
    if data is None:
        return []
    items, hashes = korean.read_questions(data)
    return [AskedSuite("kmmlu", tuple(items), Sampling(), about={"sha256": hashes})]


def _roles(items: Sequence[dict[str, Any]]) -> frozenset[str]:
    return frozenset({"judge"} if any(item["checker"] == "judge" for item in items) else ())


def read_suite(path: Path) -> tuple[dict[str, Any], ...]:
    """Items of a user's file, each with a reference its checker can use. Where some name a cluster, the others are one
    each. Raises DataError."""
    items = []
    for item in read_items(path):
        check_reference(item, f"{path}: item {item['id']}")
        items.append(item)
    if any(item.get("cluster") is not None for item in items):
        items = [item | {"cluster": str(item.get("cluster") or f"item {item['id']}")} for item in items]
    return tuple(items)
