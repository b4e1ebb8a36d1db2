"""Suite tiny: its checkers decide as examples/tiny-glm/evaluate.py does, and find its items."""

import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from halfbyte.errors import DataError
from halfbyte.evaluate.running.catalogue import SuiteOptions, asked_suites
from halfbyte.evaluate.running.tiny import TASKS, is_call, is_exact, is_expression, is_pick

TINY = Path(__file__).parents[3] / "examples" / "tiny-glm"


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("tiny_evaluate", TINY / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TINY / "tasks" / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_six_suites_named_as_the_files_with_a_limit_for_each() -> None:
    suites = asked_suites("tiny", SuiteOptions(limit=7, temperature=0.5))
    assert [suite.name for suite in suites] == list(TASKS) == sorted(path.stem for path in (TINY / "tasks").iterdir())
    assert {len(suite.items) for suite in suites} == {7}
    assert {suite.sampling.temperature for suite in suites} == {0.5}
    whole = asked_suites("tiny", SuiteOptions(data=TINY))
    assert [len(suite.items) for suite in whole] == [400, 400, 300, 400, 400, 400]
    with pytest.raises(DataError, match=r"tasks/code\.jsonl"):
        asked_suites("tiny", SuiteOptions(data=TINY / "prose"))


def altered(answer: str) -> list[str]:
    """The answer, and near misses of it."""
    lines = answer.split("\n")
    return [
        answer,
        answer.upper(),
        answer + ".",
        answer[1:],
        "\n".join(lines[1:]),
        "\n".join(lines[:-1]),
        answer.replace(", ", " "),
        answer.replace("1.", "2."),
        f"{answer}\n{lines[-1]}",
        "x",
    ]


@pytest.mark.parametrize(("task", "kind"), [("instruction_following", "pick"), ("code", "exec"), ("code", "exact")])
def test_the_checkers_agree(task: str, kind: str, theirs: ModuleType) -> None:
    items = [row for row in rows(task) if row["check"]["type"] == kind][:12]
    seen: Counter[bool] = Counter()
    for row in items:
        for reply in filter(None, map(str.strip, altered(row["answer"]))):
            wanted = theirs.correct(reply, row)
            if kind == "exact":
                found: bool | None = is_exact(reply, row["answer"])
            else:
                found = (is_pick if kind == "pick" else is_expression)(reply, row["check"])
            assert (found is True) == wanted, (reply, row)
            seen[wanted] += 1
    assert min(seen[True], seen[False]) >= 10


def test_expressions_that_must_not_run() -> None:
    check = {"args": "x", "cases": [[[2], 2]]}
    assert is_expression("x", check) is True
    assert is_expression("x.__class__", check) is None
    assert is_expression("x ** 9999", check) is None


def test_tool_calls() -> None:
    check = {"name": "book", "arguments": {"count": 3, "code": "HN-6183"}}
    call = ("book", {"count": 3, "code": "HN-6183"})
    assert is_call([call], "", check) is True
    assert is_call([("book", {"count": "3", "code": "HN-6183"})], "", check) is True
    assert is_call([("book", {"count": 4, "code": "HN-6183"})], "", check) is False
    assert is_call([call, call], "", check) is False
    assert is_call([call], "and text", check) is False
    assert is_call([], "book", check) is None
