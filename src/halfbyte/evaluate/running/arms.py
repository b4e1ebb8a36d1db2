"""A real run: candidate and baseline asked the same items, their logs kept and resumed in one work folder."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from halfbyte.disk import is_missing, read_regular
from halfbyte.errors import OutputError
from halfbyte.evaluate.harnesses.reading import read_arm
from halfbyte.evaluate.running.asking import Sampling, ask
from halfbyte.evaluate.running.checkers import check_reference
from halfbyte.evaluate.running.targets import Target
from halfbyte.evaluate.samples import Arm
from halfbyte.evaluate.suites import read_items
from halfbyte.progress import Progress

_RUN_FILE = "run.json"
_RUN_FILE_LIMIT_BYTES = 1_000_000


@dataclass(frozen=True)
class Answers:
    """What both arms said. conditions: what was asked of whom and how. log: the work folder."""

    candidate: Arm
    baseline: Arm | None
    conditions: dict[str, Any]
    log: Path


def answers(
    suite_file: Path,
    candidate: Target,
    baseline: Target | None,
    sampling: Sampling,
    limit: int | None,
    work: Path,
    progress: Progress,
) -> Answers:
    """Ask what is not answered yet. Raises DataError; OutputError for a work folder of another run."""
    items = read_suite(suite_file, limit)
    conditions = {
        "suite": suite_file.stem,
        "items": len(items),
        "items_sha256": hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest(),
        "candidate": candidate.name,
        "baseline": None if baseline is None else baseline.name,
        **asdict(sampling),
    }
    _claim(work, conditions)
    cluster = "cluster" if any(item.get("cluster") is not None for item in items) else None
    arms = []
    for name, target in (("candidate", candidate), ("baseline", baseline)):
        if target is not None:
            ask(suite_file.stem, items, target, sampling, work / name, progress)
            arms.append(read_arm(work / name, cluster))
    return Answers(arms[0], arms[1] if baseline is not None else None, conditions, work)


def read_suite(suite_file: Path, limit: int | None) -> list[dict[str, Any]]:
    """The first `limit` items, each with a reference its checker can use. Where some name a cluster, the others are
    one each."""
    items: list[dict[str, Any]] = []
    for item in read_items(suite_file):
        if limit is not None and len(items) >= limit:
            break
        check_reference(item, f"{suite_file}: item {item['id']}")
        items.append(item)
    if any(item.get("cluster") is not None for item in items):
        items = [item | {"cluster": str(item.get("cluster") or f"item {item['id']}")} for item in items]
    return items


def earlier(work: Path) -> dict[str, Any]:
    """What the run in a work folder is; empty if there is none. Raises OutputError."""
    path = work / _RUN_FILE
    if is_missing(path):
        return {}
    try:
        there = json.loads(read_regular(path, _RUN_FILE_LIMIT_BYTES, OutputError))
    except ValueError:
        there = None
    if not isinstance(there, dict):
        raise OutputError(f"{path}: damaged", hint="choose another work folder")
    return there


def _claim(work: Path, conditions: dict[str, Any]) -> None:
    """Write what this run is, or find that it is the one that is there."""
    there = earlier(work)
    if not there:
        try:
            work.mkdir(parents=True, exist_ok=True)
            (work / f"{_RUN_FILE}.new").write_text(json.dumps(conditions, indent=2), "utf-8")
            (work / f"{_RUN_FILE}.new").replace(work / _RUN_FILE)
        except OSError as error:
            raise OutputError(f"{work}: {error.strerror}") from None
        return
    for key, value in conditions.items():
        if there.get(key) != value:
            raise OutputError(
                f"{work}: holds another run: its {key} is {there.get(key)!r}, wanted {value!r}",
                hint="choose a work folder of its own",
            )


def scores(arm: Arm) -> Sequence[dict[str, Any]]:
    """By suite, of an arm without a baseline: n items scored, the mean in percent, states."""
    rows = []
    for name, samples in arm.suites.items():
        means: dict[str, list[float]] = {}
        for sample in samples:
            if sample.score is not None:
                means.setdefault(sample.item, []).append(sample.score)
        mean = sum(sum(found) / len(found) for found in means.values()) / len(means) if means else None
        rows.append(
            {
                "name": name,
                "verdict": None,
                "n": len(means),
                "candidate": None if mean is None else 100 * mean,
                "baseline": None,
                "difference": None,
                "interval": None,
                "margin": None,
                "truncated": {"candidate": sum(sample.truncated for sample in samples), "baseline": None},
                "failed": {"candidate": sum(sample.state == "failed" for sample in samples), "baseline": None},
            }
        )
    return rows
