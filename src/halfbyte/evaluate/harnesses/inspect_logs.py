"""inspect-ai: `.eval` and `.json` logs, read by inspect itself.

A sample that ended in an error is failed, one without a score unscorable; so are those that an interrupted run never
reached failed. Logs of one task that was retried are one run, the latest answer to each item counts.
SciCode's problems are scored by sub-problem: each is an item, clustered by its problem.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halfbyte.disk import open_regular
from halfbyte.errors import DataError, UnsupportedError
from halfbyte.evaluate.harnesses.records import Run, cluster_of, sampling, scored
from halfbyte.evaluate.samples import Sample

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

NAME = "inspect"
_CUT = ("max_tokens", "model_length")
_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""inspect's grades: correct, partial, incorrect, no answer."""
_HEAD_BYTES = 4096
_BULKY = {"events", "events_data", "store", "attachments", "messages", "timelines"}


def is_here(folder: Path) -> bool:
    return any(_logs(folder))


def _logs(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".eval" or (path.suffix == ".json" and _begins_like_a_log(path)):
            yield path


def _begins_like_a_log(path: Path) -> bool:
    """A log's first key is its version; eval sets leave other files beside."""
    try:
        with open(open_regular(path, DataError), "rb") as file:
            head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    except DataError:
        return False
    return re.match(r'\s*\{\s*"version":\s*\d+,\s*"status":', head) is not None


def runs(folder: Path, cluster: str | None) -> Iterator[Run]:
    """One run for each task. Raises DataError, UnsupportedError without inspect-ai."""
    by_task: dict[tuple[str, str], list[tuple[str, Path, EvalLog]]] = {}
    for path in _logs(folder):
        log = _header(path)
        by_task.setdefault((log.eval.task, log.eval.task_id), []).append((log.eval.created, path, log))
    for (task, _), logs in by_task.items():
        logs.sort(key=lambda one: one[0])
        _, path, last = logs[-1]
        samples: dict[tuple[str, int], list[Sample]] = {}
        for _, one, _ in logs:
            samples.update(_samples(one, cluster))
        if last.status != "success":
            _add_unreached(samples, last)
        yield Run(task, last.eval.model, path, _conditions(last), list(chain.from_iterable(samples.values())))


def _header(path: Path) -> "EvalLog":
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        raise UnsupportedError(f"{path}: needs inspect-ai", hint="pip install 'halfbyte[evaluate]'") from None
    try:
        return read_eval_log(path, header_only=True)
    except Exception as error:  # inspect, pydantic, zipfile, zstandard: each with its own
        raise DataError(f"{path}: inspect cannot read this log: {_first_line(error)}") from None


def _samples(path: Path, cluster: str | None) -> Iterator[tuple[tuple[str, int], list[Sample]]]:
    from inspect_ai.log import read_eval_log_samples

    try:
        for sample in read_eval_log_samples(path, all_samples_required=False, exclude_fields=_BULKY):
            yield (str(sample.id), sample.epoch), list(_parts(sample, f"{path}: sample {sample.id}", cluster))
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(f"{path}: inspect cannot read its samples: {_first_line(error)}") from None


def _parts(sample: "EvalSample", where: str, cluster: str | None) -> Iterator[Sample]:
    """Itself, or one for each sub-problem of SciCode. Raises DataError for another score of several parts."""
    score = next(iter((sample.scores or {}).values()), None)
    value = score.value if score is not None and isinstance(score.value, dict) else {}
    steps = [str(step["step_number"]) for step in sample.metadata.get("sub_steps") or () if "step_number" in step]
    if not steps:
        if len(value) > 1:
            names = ", ".join(map(str, value))[:120]
            raise DataError(f"{where}: a score of several parts ({names}): wanted one, or SciCode's sub-problems")
        yield _sample(sample, next(iter(value.values()), None if score is None else score.value), where, cluster)
        return
    for step in value or steps:
        part = _sample(sample, value.get(step), where, cluster)
        yield part._replace(part=step, cluster=part.cluster or part.item)


def _sample(sample: "EvalSample", value: object, where: str, cluster: str | None) -> Sample:
    usage = sample.output.usage
    more: dict[str, Any] = {
        "truncated": bool(sample.output.choices) and sample.output.stop_reason in _CUT,
        "cluster": cluster_of(sample.metadata, cluster, where),
        "output_tokens": usage.output_tokens if usage else None,
        "epoch": sample.epoch,
        "attempts": sample.metadata.get("attempts"),
        "seed": sample.metadata.get("seed"),
    }
    item = str(sample.id)
    if sample.error is not None:
        return Sample(item, "failed", **more)
    if not sample.scores:
        return Sample(item, "unscorable", **more)
    first = next(iter(sample.scores.values()))
    known = first.metadata or {}
    more |= {key: known[key] for key in ("refused", "unparsed") if isinstance(known.get(key), bool)}
    more["judge_failed"] = str(first.reason or "").startswith("judge_")
    if isinstance(value, str):
        value = _LETTERS[value] if value in _LETTERS else _number(value, where)
    return scored(item, value, where, **more)


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: a score of {text[:40]!r}: wanted C, P, I, N or a number from 0 to 1") from None


def _add_unreached(samples: dict[tuple[str, int], list[Sample]], log: "EvalLog") -> None:
    """What an interrupted run was to ask and did not."""
    for item in log.eval.dataset.sample_ids or ():
        for epoch in range(1, (log.eval.config.epochs or 1) + 1):
            samples.setdefault((str(item), epoch), [Sample(str(item), "failed")])


def _conditions(log: "EvalLog") -> dict[str, Any]:
    """Of the plan, the model and the task; what the task was given beside the model's own settings."""
    settings: dict[str, Any] = {}
    for config in (log.eval.model_generate_config, log.plan.config):
        settings |= sampling(json.loads(config.model_dump_json(exclude_none=True)))
    version = log.eval.task_version
    found = settings | {"task_args": log.eval.task_args or None, "task_version": version if version != 0 else None}
    return {key: value for key, value in found.items() if value is not None}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]
