"""Answers right and wrong, by checker."""

from typing import Any

import pytest

from halfbyte.errors import DataError
from halfbyte.evaluate.running.checkers import check_reference, checked, is_right, refuses
from halfbyte.evaluate.running.judge import grade_of
from halfbyte.evaluate.suites import CHECKERS


@pytest.mark.parametrize(
    ("checker", "reference", "right", "wrong"),
    [
        ("exact", "yes", ["yes", " yes\n", "<think>no, no</think>\nyes"], ["Yes", "yes.", "<think>yes</think>no", ""]),
        (
            "choice",
            "B",
            ["B", "The answer is B.", "A or C? Answer: **B**", "정답은 B", r"\boxed{B}"],
            ["A", "b", "none"],
        ),
        ("regex", r"^v\d+$", ["v12"], ["v", "a v12"]),
        ("numeric", 1234.5, ["1,234.5", "so 7 + 1 gives 1234.5", "1.2345e3"], ["1234.6", "none", "1234.5 and 3"]),
        ("numeric", "0", ["0", "-0.0"], ["1"]),
        (
            "json-schema",
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}},
            ['{"a": 1}', '```json\n{"a": 1}\n```'],
            ['{"a": "1"}', "{}", "no", '{"a": 1'],
        ),
        (
            "python",
            "assert double(4) == 8",
            ["def double(x):\n    return 2 * x", "Here:\n```python\ndef double(x):\n    return x + x\n```\nDone."],
            [
                "def double(x):\n    return x",
                "def double(:",
                "def double(x):\n    raise SystemExit(1)",
                "raise SystemExit(0)",
                "import os\nos._exit(0)",
                "\0",
            ],
        ),
    ],
)
def test_right_and_wrong(checker: str, reference: Any, right: list[str], wrong: list[str]) -> None:
    assert [text for text in right if not is_right(checker, text, reference)] == []
    assert [text for text in wrong if is_right(checker, text, reference)] == []


@pytest.mark.parametrize(
    "code",
    ["while True: pass", "x = bytearray(4 << 30)", "open('big', 'wb').write(bytes(64 << 20))"],
    ids=["endless", "memory", "file"],
)
def test_python_runs_under_limits(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("halfbyte.evaluate.running.python_test.SECONDS", 1)
    assert not is_right("python", code, "pass")


@pytest.mark.parametrize(
    ("checker", "reference"), [("regex", "("), ("regex", 3), ("numeric", "many"), ("json-schema", {"type": 3})]
)
def test_a_reference_that_no_answer_can_meet_is_refused_first(checker: str, reference: Any) -> None:
    with pytest.raises(DataError, match=f"item a: reference is none for checker {checker}"):
        check_reference({"checker": checker, "reference": reference}, "item a")


def test_every_checker_of_the_contract_is_known() -> None:
    for checker in CHECKERS:
        check_reference({"checker": checker, "reference": "1" if checker != "json-schema" else "{}"}, "x")


@pytest.mark.parametrize(
    ("checker", "reference", "text"),
    [
        ("choice", "A", "no letter"),
        ("numeric", 3, "three"),
        ("json-schema", {}, "{"),
        ("exact", "a", "<think>a</think>"),
    ],
)
def test_what_cannot_be_read_is_wrong_and_said(checker: str, reference: Any, text: str) -> None:
    assert checked(checker, text, reference) is None
    assert not is_right(checker, text, reference)


def test_refusals() -> None:
    refused = ["I'm sorry, but", "I cannot help", "I can't", "<think>x</think>As an AI", "죄송하지만", "Sorry, no."]
    assert [text for text in refused if not refuses(text)] == []
    assert [text for text in ("I can do that", "The answer is I", "sorrel", "") if refuses(text)] == []


def test_grades() -> None:
    assert grade_of("Same. GRADE: CORRECT") is True
    assert grade_of("<think>GRADE: CORRECT</think>No.\n**GRADE: INCORRECT**") is False
    assert grade_of("it is correct") is None
