"""Logs that inspect-ai itself writes here, with a model that answers as told."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import inspect_ai
import pytest
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, get_model, modelapi
from inspect_ai.scorer import Score, Scorer, Target, exact, mean, scorer
from inspect_ai.solver import TaskState, generate
from inspect_ai.tool import ToolChoice, ToolInfo

from halfbyte.errors import DataError
from halfbyte.evaluate.harnesses.reading import read_arm
from halfbyte.evaluate.judging import judge

ITEMS = 12


@modelapi(name="scripted")
class Scripted(ModelAPI):
    """Gives the answers it was given, in the order of the requests, and then none."""

    def __init__(self, model_name: str = "", answers: Sequence[str | ModelOutput] = (), **more: Any) -> None:
        super().__init__(model_name, **more)
        self._answers = iter(answers)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        answer = next(self._answers, None)
        if answer is None:
            raise ConnectionError("the server is gone")
        return answer if isinstance(answer, ModelOutput) else ModelOutput.from_content("scripted", answer)


def capitals() -> Task:
    dataset = [Sample(id=f"i{i}", input=f"q{i}", target="yes", metadata={"passage": i // 3}) for i in range(ITEMS)]
    return Task(dataset=dataset, solver=generate(), scorer=exact(), name="capitals")


def run(
    folder: Path,
    answers: Sequence[str | ModelOutput],
    *,
    epochs: int = 1,
    temperature: float = 0.0,
    log_format: Literal["eval", "json"] = "eval",
    **more: Any,
) -> Path:
    model = get_model("scripted/model", memoize=False, answers=answers)
    inspect_ai.eval(
        capitals(),
        model=model,
        log_dir=str(folder),
        log_format=log_format,
        epochs=epochs,
        display="none",
        max_samples=1,
        max_connections=1,
        temperature=temperature,
        **more,
    )
    return folder


RIGHT = ["yes"] * ITEMS


@pytest.mark.parametrize("log_format", ["eval", "json"])
def test_scores_and_epochs(log_format: Literal["eval", "json"], tmp_path: Path) -> None:
    half = ["yes", "no"] * ITEMS
    arm = read_arm(run(tmp_path / "a", half, epochs=2, log_format=log_format))
    assert (arm.harness, list(arm.suites)) == ("inspect", ["capitals"])
    assert len(arm.suites["capitals"]) == 2 * ITEMS
    suite = judge(arm, read_arm(run(tmp_path / "b", RIGHT)), margin=90).suites[0]
    assert (suite.n, suite.candidate, suite.baseline, suite.difference) == (ITEMS, 50.0, 100.0, -50.0)


def test_cut_short_and_clusters(tmp_path: Path) -> None:
    cut = ModelOutput.from_content("scripted", "ye", stop_reason="max_tokens")
    arm = read_arm(run(tmp_path, [cut, *RIGHT[1:]]), "passage")
    samples = arm.suites["capitals"]
    assert sum(sample.truncated for sample in samples) == 1
    assert {sample.cluster for sample in samples} == {"0", "1", "2", "3"}
    with pytest.raises(DataError, match="'chapter'"):
        read_arm(tmp_path, "chapter")


def test_a_sample_that_ended_in_an_error_is_failed(tmp_path: Path) -> None:
    arm = read_arm(run(tmp_path, RIGHT[:-1], fail_on_error=False))
    states = [sample.state for sample in arm.suites["capitals"]]
    assert (states.count("scored"), states.count("failed")) == (ITEMS - 1, 1)


def test_what_an_interrupted_run_never_asked_is_failed(tmp_path: Path) -> None:
    arm = read_arm(run(tmp_path, RIGHT[:4], fail_on_error=True))
    states = [sample.state for sample in arm.suites["capitals"]]
    assert (len(states), states.count("scored"), states.count("failed")) == (ITEMS, 4, ITEMS - 4)


def test_other_sampling_is_refused(tmp_path: Path) -> None:
    arms = [read_arm(run(tmp_path / str(t), RIGHT, temperature=t)) for t in (0.0, 1.0)]
    with pytest.raises(DataError, match="temperature"):
        judge(arms[0], arms[1], margin=2)
    assert GenerateConfig(temperature=1.0).temperature == arms[1].conditions["capitals"]["temperature"]


def test_the_same_task_run_twice_is_refused(tmp_path: Path) -> None:
    run(tmp_path, RIGHT)
    run(tmp_path, RIGHT)
    with pytest.raises(DataError, match="run twice"):
        read_arm(tmp_path)


def test_a_damaged_log_is_named(tmp_path: Path) -> None:
    (log,) = run(tmp_path, RIGHT).glob("*.eval")
    log.write_bytes(log.read_bytes()[:200])
    with pytest.raises(DataError, match="inspect cannot read this log"):
        read_arm(tmp_path)


def test_other_json_files_are_no_logs(tmp_path: Path) -> None:
    run(tmp_path, RIGHT)
    (tmp_path / "logs.json").write_text(json.dumps({"status": "fine"}))
    assert len(read_arm(tmp_path).suites["capitals"]) == ITEMS


@scorer(metrics={"*": [mean()]})
def by_part() -> Scorer:
    """As inspect-evals scores SciCode: a dict of sub-problems; here the answer names those that are right."""

    async def score(state: TaskState, target: Target) -> Score:
        right = state.output.completion.split()
        return Score(value={step: float(step in right) for step in target.text.split()})

    return score


def run_parts(folder: Path, answers: Sequence[str], *, are_steps: bool = True) -> Path:
    dataset = [
        Sample(
            id=str(i),
            input=f"q{i}",
            target=f"{i}.1 {i}.2",
            metadata={"sub_steps": [{"step_number": f"{i}.{k}"} for k in (1, 2)]} if are_steps else {},
        )
        for i in range(len(answers))
    ]
    task = Task(dataset=dataset, solver=generate(), scorer=by_part(), name="scicode")
    model = get_model("scripted/model", memoize=False, answers=answers)
    inspect_ai.eval(task, model=model, log_dir=str(folder), display="none", max_samples=1, max_connections=1)
    return folder


def test_scicode_is_scored_by_sub_problem_and_clustered_by_problem(tmp_path: Path) -> None:
    arms = [
        read_arm(run_parts(tmp_path / "a", ["0.1", "1.1 1.2", "2.2"])),
        read_arm(run_parts(tmp_path / "b", ["0.1 0.2", "1.1 1.2", "2.1 2.2"])),
    ]
    suite = judge(arms[0], arms[1], margin=90).suites[0]
    assert (suite.n, suite.clusters) == (6, 3)
    assert (suite.candidate, suite.baseline) == (pytest.approx(100 * 4 / 6), 100.0)


def test_a_score_of_several_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"several parts \(0\.1, 0\.2\)"):
        read_arm(run_parts(tmp_path, ["0.1"], are_steps=False))
