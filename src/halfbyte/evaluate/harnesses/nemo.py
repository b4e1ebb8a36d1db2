"""NeMo Evaluator: `results.jsonl` with the rewards beside the run's bundle, `eval-*.json`.

It writes a reward of 0 for what its own infrastructure lost; those answers are failed here, as are those of a judge
that broke unscorable. Answers cut short are known where its inference log lies beside.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from halfbyte.errors import DataError
from halfbyte.evaluate.harnesses.records import (
    Run,
    check_once,
    cluster_of,
    inner,
    read_lines,
    read_object,
    sampling,
    scored,
    wanted,
)
from halfbyte.evaluate.samples import Sample

NAME = "NeMo Evaluator"
_RESULTS = "results.jsonl"
_INFERENCE_LOG = "inference_log.jsonl"
_LOST = ("infra_error", "system")


def is_here(folder: Path) -> bool:
    return any(folder.rglob(_RESULTS))


def runs(folder: Path, cluster: str | None) -> Iterator[Run]:
    """One run for each bundle. Raises DataError."""
    for path in sorted(folder.rglob(_RESULTS)):
        bundles = sorted(path.parent.glob("eval-*.json"))
        if len(bundles) != 1:
            raise DataError(f"{path}: {len(bundles)} eval-*.json beside it: wanted one", hint="it names the benchmark")
        bundle = read_object(bundles[0])
        name = inner(bundle, "benchmark", "name")
        if not isinstance(name, str):
            raise DataError(f"{bundles[0]}: names no benchmark")
        config = bundle.get("config")
        model = str(inner(bundle, "config", "model") or "")
        yield Run(name, model, path, sampling(config), _samples(path, cluster))


def _samples(path: Path, cluster: str | None) -> list[Sample]:
    cut = _cut(path.parent)
    samples, keys = [], []
    for where, record in read_lines(path):
        key = (wanted(record, "problem_idx", where), record.get("repeat", 0))
        keys.append(key)
        samples.append(_sample(record, key in cut or record.get("finish_reason") == "length", where, cluster))
    check_once(keys, path, "problem and repeat")
    return samples


def _sample(record: dict[str, Any], truncated: bool, where: str, cluster: str | None) -> Sample:
    item = str(record["problem_idx"])
    group = cluster_of(record.get("metadata"), cluster, where)
    details = record.get("scoring_details")
    category = inner(record, "scoring_details", "error_category") or record.get("error_category")
    if category in _LOST:
        return Sample(item, "failed", truncated=truncated, cluster=group)
    if isinstance(details, dict) and inner(details, "judge", "error"):
        return Sample(item, "unscorable", truncated=truncated, cluster=group)
    return scored(item, record.get("reward"), where, truncated=truncated, cluster=group)


def _cut(folder: Path) -> set[tuple[Any, Any]]:
    """Problem and repeat of the answers that ran into the limit."""
    log = folder / _INFERENCE_LOG
    if not log.exists():
        return set()
    records = (record for _, record in read_lines(log))
    return {(r.get("problem_idx"), r.get("repeat", 0)) for r in records if r.get("finish_reason") == "length"}
