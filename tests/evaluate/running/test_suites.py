"""Suites by name: what they ask is the same on every machine, and what they lack is said at once."""

import re
from pathlib import Path
from typing import Any

import pytest

from halfbyte.errors import DataError, HalfbyteError, UsageError
from halfbyte.evaluate.running.catalogue import SuiteOptions, asked_suites
from halfbyte.evaluate.running.recall import lengths_from


def test_long_recall_hides_what_it_asks_for() -> None:
    suites = asked_suites("long-recall", SuiteOptions(lengths="1k,8k"))
    assert [suite.name for suite in suites] == ["long-recall-1k", "long-recall-8k"]
    again = asked_suites("long-recall", SuiteOptions(lengths="8k"))[0]
    assert again.sha256 == suites[1].sha256
    assert len(again.items) == len({item["id"] for item in again.items}) == 40
    for item in again.items:
        language, tokens, depth, needles, _ = item["id"].split("-")
        codes = re.findall(r"\d{5}", item["reference"])
        assert len(codes) == int(needles)
        places = [item["prompt"].index(code) / len(item["prompt"]) for code in codes]
        assert abs(places[0] - int(depth) / 100) < 0.06
        letters = {"en": 4.0, "ko": 1.6}[language] * int(tokens)
        assert letters * 0.95 < len(item["prompt"]) < letters * 1.1
        assert re.search(item["reference"], " and ".join(reversed(codes)))
        assert not re.search(item["reference"], " ".join(codes[1:]))


def test_lengths() -> None:
    assert lengths_from("1M, 8k,500") == [("500", 500), ("8k", 8192), ("1M", 1 << 20)]
    for wrong in ("", "8x", "0k", "9M"):
        with pytest.raises(UsageError, match="lengths"):
            lengths_from(wrong)


def test_korean_is_built_over_the_user_s_copy(tmp_path: Path) -> None:
    (tmp_path / "Law-test.csv").write_text(
        'question,answer,A,B,C,D,Category\n"첫째,\n둘째",2,가,나,다,라,Law\n무엇?,4,가,나,다,라,Law\n', "utf-8"
    )
    (tmp_path / "Law-dev.csv").write_text("question,answer,A,B,C,D\nq,1,a,b,c,d\n", "utf-8")
    tiny, questions = asked_suites("korean", SuiteOptions(data=tmp_path))
    assert (tiny.name, len(tiny.items)) == ("multilingual", 400)
    assert [item["reference"] for item in questions.items] == ["B", "D"]
    assert {item["cluster"] for item in questions.items} == {"Law"}
    assert "첫째,\n둘째" in questions.items[0]["prompt"]
    assert len(questions.about["sha256"]["Law-test.csv"]) == 64
    (tmp_path / "Law-test.csv").write_text("question,answer,A,B,C,D\nq,5,a,b,c,d\n")
    with pytest.raises(DataError, match=r"Law-test\.csv:1: wants question"):
        asked_suites("korean", SuiteOptions(data=tmp_path))
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.csv"):
        asked_suites("korean", SuiteOptions(data=empty))


def test_what_cannot_be_asked() -> None:
    with pytest.raises(UsageError, match="no suite is called"):
        asked_suites("mmlu", SuiteOptions())
    given: dict[str, Any] = {"limit": 0, "temperature": -1.0, "top_p": 0.0, "max_tokens": 0, "epochs": 0}
    for name, value in given.items():
        with pytest.raises(HalfbyteError, match=f"{name}.*wanted"):
            asked_suites("tiny", SuiteOptions(**{name: value}))


def test_the_five_of_the_card_name_all_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        asked_suites("glm-5.2", SuiteOptions(data=tmp_path))
    for name in ("gpqa_diamond.csv", "problems_all.jsonl", "test_data.h5", "IFBench_test.jsonl", "AA-LCR_Dataset.csv"):
        assert name in str(caught.value)
