"""EvalScope: `reviews/MODEL/BENCHMARK_SUBSET.jsonl` with the scores, `predictions/` alike with the answers.

A review whose judge failed is unscorable, or failed where its transport did; a prediction that ended in an error is
failed; one without a review is unscorable. Repeats share a `group_id`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from halfbyte.disk import read_text
from halfbyte.errors import DataError
from halfbyte.evaluate.harnesses.records import (
    Run,
    check_once,
    cluster_of,
    inner,
    read_lines,
    sampling,
    scored,
    wanted,
)
from halfbyte.evaluate.samples import Sample, State

NAME = "EvalScope"
_CONFIG_LIMIT_BYTES = 10_000_000
_USABLE = ("success", "fallback", "degraded")
_CUT = ("max_tokens", "length", "model_length")
_DEFAULT_SUBSET = "_default"
_ASKED = ("few_shot_num", "system_prompt", "prompt_template", "query_template", "few_shot_prompt_template", "filters")


def is_here(folder: Path) -> bool:
    return any(_review_files(folder))


def _review_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.jsonl")):
        if path.parent.parent.name == "reviews" or path.parent.name == "reviews":
            yield path


def runs(folder: Path, cluster: str | None) -> Iterator[Run]:
    """One run for each benchmark of a working folder, its subsets together. Raises DataError."""
    found: dict[tuple[Path, str, str], list[Sample]] = {}
    for path in _review_files(folder):
        nested = path.parent.name != "reviews"
        root = path.parent.parent.parent if nested else path.parent.parent
        model = path.parent.name if nested else root.name
        benchmark, subset = _names(path, root)
        samples = found.setdefault((root, model, benchmark), [])
        samples += _samples(path, root, subset, cluster)
    for (root, model, benchmark), samples in found.items():
        yield Run(benchmark, model, root, _conditions(root, benchmark), samples)


def _names(path: Path, root: Path) -> tuple[str, str]:
    """Benchmark and subset. A file's name joins them; the reports tell where one ends."""
    known = {report.stem for report in (root / "reports").rglob("*.json")} | set(
        _task_config(root).get("datasets") or ()
    )
    for name in sorted((str(name) for name in known), key=len, reverse=True):
        if path.stem.startswith(f"{name}_"):
            return name, path.stem.removeprefix(f"{name}_")
    return path.stem.removesuffix(_DEFAULT_SUBSET), ""


def _samples(path: Path, root: Path, subset: str, cluster: str | None) -> Iterator[Sample]:
    predictions = root / "predictions" / path.relative_to(root / "reviews")
    if not predictions.exists():
        raise DataError(f"{predictions}: missing", hint="predictions/ says which answers were cut short")
    answers = {}
    for where, record in read_lines(predictions):
        index = wanted(record, "index", where)
        if index in answers:
            raise DataError(f"{where}: index {index} stands twice")
        answers[index] = record
    indexes = []
    for where, record in read_lines(path):
        index = wanted(record, "index", where)
        indexes.append(index)
        yield _sample(record, answers.pop(index, {}), where, subset, cluster)
    check_once(indexes, path, "index")
    for index, record in answers.items():
        where = f"{predictions}: index {index}"
        group = cluster_of(record.get("metadata"), cluster, where) if cluster else None
        state: State = "failed" if inner(record, "model_output", "error") else "unscorable"
        yield Sample(f"{subset}:{index}", state, truncated=_is_cut(record), cluster=group)


def _sample(review: dict[str, Any], answer: dict[str, Any], where: str, subset: str, cluster: str | None) -> Sample:
    sample_score = wanted(review, "sample_score", where)
    score = inner(sample_score, "score") or {}
    group = next(
        (sample_score[key] for key in ("group_id", "sample_id") if sample_score.get(key) is not None), review["index"]
    )
    item = f"{subset}:{group}"
    more = {
        "truncated": _is_cut(answer),
        "cluster": cluster_of(sample_score.get("sample_metadata"), cluster, where),
        "output_tokens": inner(answer, "model_output", "usage", "output_tokens"),
    }
    status = str(score.get("status", "success"))
    if inner(answer, "model_output", "error") or status == "transport_error":
        return Sample(item, "failed", **more)
    values = score.get("value")
    if status not in _USABLE or not isinstance(values, dict) or not values:
        return Sample(item, "unscorable", **more)
    main = score.get("main_score_name")
    return scored(item, values[main] if main in values else next(iter(values.values())), where, **more)


def _is_cut(answer: dict[str, Any]) -> bool:
    choices = inner(answer, "model_output", "choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return inner(first, "stop_reason") in _CUT


def _task_config(root: Path) -> dict[str, Any]:
    """The newest snapshot of the run's settings; empty if none was left."""
    paths = sorted((root / "configs").glob("task_config*.yaml"))
    if not paths:
        return {}
    try:
        document = yaml.safe_load(read_text(paths[-1], _CONFIG_LIMIT_BYTES, DataError))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{paths[-1]}: not valid YAML: {str(error)[:120]}") from None
    return document if isinstance(document, dict) else {}


def _conditions(root: Path, benchmark: str) -> dict[str, Any]:
    config = _task_config(root)
    asked = inner(config, "dataset_args", benchmark) or {}
    found = {key: asked[key] for key in _ASKED if isinstance(asked, dict) and asked.get(key) is not None}
    found["evaluation_version"] = inner(config, "evaluation_identity", "benchmarks", benchmark, "evaluation_version")
    found["judges"] = inner(config, "judge", "models") or None
    return sampling(config.get("generation_config")) | {key: value for key, value in found.items() if value is not None}
