"""lm-eval: `samples_TASK_TIME.jsonl`, one line for a document and filter, beside `results_TIME.json`.

A task's score is the first metric of its first filter, the one its reports show first. Answers cut short are not
recorded by lm-eval.
"""

import re
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

NAME = "lm-eval"
_PREFIX, _RESULTS = "samples_", "results_"
_TIME = re.compile(r"_\d{4}-\d\d-\d\d[^_]*$")


def is_here(folder: Path) -> bool:
    return any(folder.rglob(f"{_PREFIX}*.jsonl"))


def runs(folder: Path, cluster: str | None) -> Iterator[Run]:
    """One run for each samples file. Raises DataError."""
    for path in sorted(folder.rglob(f"{_PREFIX}*.jsonl")):
        name = path.stem.removeprefix(_PREFIX)
        results = _results_beside(path, name.rpartition("_")[2])
        task = _task(name, results)
        metric, samples = _samples(path, cluster)
        conditions = {"metric": metric} | _conditions(results, task)
        yield Run(task, _model(results, path), path, conditions, samples)


def _results_beside(path: Path, time: str) -> dict[str, Any]:
    for results in (path.with_name(f"{_RESULTS}{time}.json"), *sorted(path.parent.glob(f"{_RESULTS}*.json"))):
        if results.exists():
            return read_object(results)
    raise DataError(f"{path}: has no results_*.json beside it", hint="it says how the answers were sampled")


def _task(name: str, results: dict[str, Any]) -> str:
    """The task that a samples file is of: one that the results know, or what stands before the time."""
    known = [task for key in ("configs", "results") for task in results.get(key) or ()]
    fitting = [task for task in known if name == task or name.startswith(f"{task}_")]
    return max(fitting, key=len) if fitting else _TIME.sub("", name)


def _samples(path: Path, cluster: str | None) -> tuple[str, list[Sample]]:
    """Metric and filter as the harness writes them, and the documents."""
    metric, chosen, samples = "", None, []
    for where, record in read_lines(path):
        chosen = record.get("filter", "none") if chosen is None else chosen
        if record.get("filter", "none") != chosen:
            continue
        metric = metric or _metric(record, where)
        samples.append(
            scored(
                str(wanted(record, "doc_id", where)),
                record.get(metric),
                f"{where}: {metric}",
                cluster=cluster_of(record.get("doc"), cluster, where),
            )
        )
    check_once((sample.item for sample in samples), path, "doc_id")
    return f"{metric},{chosen}", samples


def _metric(record: dict[str, Any], where: str) -> str:
    """The first metric that is one number for a document."""
    names = record.get("metrics")
    for name in names if isinstance(names, list) else ():
        if isinstance(record.get(name), (bool, int, float)):
            return str(name)
    raise DataError(f"{where}: names no metric with a number for each document")


def _conditions(results: dict[str, Any], task: str) -> dict[str, Any]:
    found = sampling(inner(results, "configs", task, "generation_kwargs"))
    found |= sampling(inner(results, "config", "gen_kwargs"))
    found["num_fewshot"] = inner(results, "n-shot", task)
    found["version"] = inner(results, "versions", task)
    for key in ("system_instruction_sha", "chat_template_sha", "fewshot_as_multiturn"):
        found[key] = results.get(key)
    return {key: value for key, value in found.items() if value is not None}


def _model(results: dict[str, Any], path: Path) -> str:
    return str(results.get("model_name") or path.parent.name)
