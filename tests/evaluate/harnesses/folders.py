"""Folders of answers as each harness lays them out: scores by item, and by repeat where there are several."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Scores = Sequence[Sequence[float | None]]
"""By item, by repeat. None: lost by the infrastructure."""


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def lm_eval(folder: Path, scores: Scores, *, task: str = "ours", temperature: float = 0.0, model: str = "m") -> Path:
    """As lm_eval 0.4.13 --log_samples writes them; two filters, the first of them counts."""
    time = "2026-11-01T10-11-12.345678"
    records = []
    for kept in ("strict-match", "flexible-extract"):
        for i, repeats in enumerate(scores):
            (score,) = repeats
            shown = score if kept == "strict-match" else 1.0
            records.append(
                {
                    "doc_id": i,
                    "doc": {"question": f"q{i}", "passage": f"p{i // 4}"},
                    "target": "1",
                    "arguments": {},
                    "resps": [["1"]],
                    "filtered_resps": ["1"],
                    "filter": kept,
                    "metrics": ["exact_match"],
                    "doc_hash": str(i),
                    "exact_match": shown,
                }
            )
    write_lines(folder / model / f"samples_{task}_{time}.jsonl", records)
    results = {
        "results": {task: {"exact_match,strict-match": 0.5}},
        "configs": {task: {"task": task, "generation_kwargs": {"temperature": temperature, "until": ["\n"]}}},
        "versions": {task: 3.0},
        "n-shot": {task: 5},
        "config": {"model": "local-chat-completions", "gen_kwargs": None},
        "model_name": model,
    }
    (folder / model / f"results_{time}.json").write_text(json.dumps(results), "utf-8")
    return folder


def evalscope(
    folder: Path,
    scores: Scores,
    *,
    task: str = "gpqa",
    cut: int = 0,
    temperature: float = 1.0,
    model: str = "m",
) -> Path:
    """As EvalScope 1.14 writes them: repeats are samples of their own that share a group."""
    reviews, predictions, index = [], [], 0
    for group, repeats in enumerate(scores):
        for score in repeats:
            value = {} if score is None else {"acc": score}
            status = "transport_error" if score is None else "success"
            reviews.append(
                {
                    "index": index,
                    "sample_score": {
                        "score": {"value": value, "status": status, "main_score_name": "acc"},
                        "sample_id": index,
                        "group_id": group,
                        "sample_metadata": {"passage": f"p{group // 4}"},
                    },
                }
            )
            stop = "max_tokens" if index < cut else "stop"
            answer = {"choices": [{"message": {"content": "A"}, "stop_reason": stop}], "usage": {"output_tokens": 7}}
            predictions.append({"index": index, "model": model, "model_output": answer})
            index += 1
    write_lines(folder / "reviews" / model / f"{task}_default.jsonl", reviews)
    write_lines(folder / "predictions" / model / f"{task}_default.jsonl", predictions)
    config = {"datasets": [task], "generation_config": {"temperature": temperature, "seed": 42, "timeout": 60}}
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "task_config_1.yaml").write_text(json.dumps(config), "utf-8")
    return folder


def nemo(
    folder: Path, scores: Scores, *, task: str = "gpqa", temperature: float = 1.0, model: str = "m", cut: int = 0
) -> Path:
    """As nemo-evaluator 0.3 writes them: what the infrastructure lost has a reward of 0."""
    records: list[dict[str, Any]] = []
    log: list[dict[str, Any]] = []
    for i, repeats in enumerate(scores):
        for repeat, score in enumerate(repeats):
            details = {"error_category": "infra_error", "error": "503"} if score is None else {"method": "exact"}
            records.append(
                {
                    "problem_idx": i,
                    "repeat": repeat,
                    "reward": 0.0 if score is None else score,
                    "scoring_details": details,
                    "metadata": {"passage": f"p{i // 4}"},
                    "model_response": "A",
                }
            )
            log.append({"problem_idx": i, "repeat": repeat, "finish_reason": "length" if len(log) < cut else "stop"})
    write_lines(folder / "run" / "results.jsonl", records)
    write_lines(folder / "run" / "inference_log.jsonl", log)
    bundle = {
        "run_id": f"eval-20261101T000000Z-{task}",
        "config": {"model": model, "temperature": temperature, "max_tokens": 64, "seed": 1},
        "benchmark": {"name": task, "samples": len(scores), "scores": {}},
    }
    (folder / "run" / f"eval-20261101T000000Z-{task.replace('/', '_')}.json").write_text(json.dumps(bundle), "utf-8")
    return folder
