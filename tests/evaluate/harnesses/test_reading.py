"""Answers of lm-eval, EvalScope and NeMo Evaluator: the same verdict, whoever ran them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from halfbyte.errors import DataError
from halfbyte.evaluate.harnesses.reading import read_arm
from halfbyte.evaluate.judging import judge

from . import folders

Writer = Callable[..., Path]
WRITERS: list[Writer] = [folders.lm_eval, folders.evalscope, folders.nemo]
REPEATED: list[Writer] = [folders.evalscope, folders.nemo]
RIGHT = [[float(i % 5 != 0)] for i in range(100)]
WORSE = [[float(i % 4 != 0)] for i in range(100)]


@pytest.mark.parametrize("write", WRITERS)
def test_the_verdict_is_that_of_the_scores(write: Writer, tmp_path: Path) -> None:
    found = judge(read_arm(write(tmp_path / "a", WORSE)), read_arm(write(tmp_path / "b", RIGHT)), margin=20)
    suite = found.suites[0]
    assert (suite.n, suite.candidate, suite.baseline, suite.verdict) == (100, 75.0, 80.0, "PASS")
    assert suite.difference == pytest.approx(-5)
    assert (suite.truncated["candidate"], suite.failed["candidate"]) == (0, 0)


@pytest.mark.parametrize(
    ("write", "name"), [(folders.lm_eval, "our_own_task"), (folders.evalscope, "our_own_task"), (folders.nemo, "a/b")]
)
def test_a_suite_is_named_as_the_harness_names_its_task(write: Writer, name: str, tmp_path: Path) -> None:
    assert list(read_arm(write(tmp_path, RIGHT, task=name)).suites) == [name]


@pytest.mark.parametrize("write", REPEATED)
def test_repeats_are_averaged_inside_the_item(write: Writer, tmp_path: Path) -> None:
    twice = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
    suite = judge(read_arm(write(tmp_path / "a", twice)), read_arm(write(tmp_path / "b", twice)), margin=20).suites[0]
    assert (suite.n, suite.candidate, suite.mcnemar_p) == (4, 62.5, None)


@pytest.mark.parametrize("write", REPEATED)
def test_what_the_infrastructure_lost_is_failed_not_wrong(write: Writer, tmp_path: Path) -> None:
    lost: folders.Scores = [[None] if i < 10 else score for i, score in enumerate(RIGHT)]
    found = judge(read_arm(write(tmp_path / "a", lost)), read_arm(write(tmp_path / "b", RIGHT)), margin=5)
    suite = found.suites[0]
    assert (suite.n, suite.failed, suite.difference) == (90, {"candidate": 10, "baseline": 0}, 0.0)
    assert suite.verdict == "INCONCLUSIVE", "ten of a hundred answers missing may hide a loss of ten points"


@pytest.mark.parametrize("write", REPEATED)
def test_answers_cut_short_are_counted(write: Writer, tmp_path: Path) -> None:
    found = judge(read_arm(write(tmp_path / "a", RIGHT, cut=3)), read_arm(write(tmp_path / "b", RIGHT)), margin=20)
    assert found.suites[0].truncated == {"candidate": 3, "baseline": 0}
    assert found.verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("write", WRITERS)
def test_items_cluster_by_a_field(write: Writer, tmp_path: Path) -> None:
    arms = [read_arm(write(tmp_path / name, scores), "passage") for name, scores in (("a", WORSE), ("b", RIGHT))]
    assert judge(arms[0], arms[1], margin=20).suites[0].clusters == 25
    with pytest.raises(DataError, match="'chapter'"):
        read_arm(tmp_path / "a", "chapter")


@pytest.mark.parametrize("write", WRITERS)
def test_other_sampling_is_refused_by_name(write: Writer, tmp_path: Path) -> None:
    arms = [read_arm(write(tmp_path / str(t), RIGHT, temperature=t)) for t in (0.25, 0.75)]
    with pytest.raises(DataError, match=r"temperature is 0\.25 in the candidate, 0\.75 in the baseline"):
        judge(arms[0], arms[1], margin=2)


def test_another_harness_or_suite_is_refused(tmp_path: Path) -> None:
    ours = read_arm(folders.lm_eval(tmp_path / "a", RIGHT))
    with pytest.raises(DataError, match="lm-eval and NeMo Evaluator"):
        judge(ours, read_arm(folders.nemo(tmp_path / "b", RIGHT)), margin=2)
    with pytest.raises(DataError, match=r"is in the (baseline|candidate) alone"):
        judge(ours, read_arm(folders.lm_eval(tmp_path / "c", RIGHT, task="other")), margin=2)


def test_one_folder_is_one_model_s_one_run(tmp_path: Path) -> None:
    folders.lm_eval(tmp_path / "two", RIGHT, task="x", model="a")
    folders.lm_eval(tmp_path / "two", RIGHT, task="y", model="b")
    with pytest.raises(DataError, match="two models: 'a' and 'b'"):
        read_arm(tmp_path / "two")
    folders.nemo(tmp_path / "twice" / "one", RIGHT)
    folders.nemo(tmp_path / "twice" / "two", RIGHT)
    with pytest.raises(DataError, match="was run twice"):
        read_arm(tmp_path / "twice")
    folders.nemo(tmp_path / "mixed" / "n", RIGHT)
    folders.evalscope(tmp_path / "mixed" / "e", RIGHT)
    with pytest.raises(DataError, match="EvalScope and NeMo Evaluator"):
        read_arm(tmp_path / "mixed")


@pytest.mark.parametrize("folder", ["", "missing"])
def test_no_answers(folder: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_arm(tmp_path / folder)
    assert "reviews/" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text[:-20], ":200: not valid JSON"),
        (lambda text: text.replace('"exact_match": 0.0', '"exact_match": 40.0', 1), ":1: exact_match: a score of 40.0"),
        (lambda text: text.replace('"doc_id": 1,', '"doc_id": 0,', 1), "doc_id 0 stands twice"),
        (lambda text: text.replace('"doc_id": 0, ', "", 1), ":1: has no doc_id"),
        (lambda text: "[]\n", ":1: not a JSON object"),
        (lambda text: "", "names no metric|holds no answers"),
    ],
)
def test_a_spoilt_line_is_named(spoil: Callable[[str], str], told: str, tmp_path: Path) -> None:
    folders.lm_eval(tmp_path, RIGHT)
    (path,) = tmp_path.rglob("samples_*.jsonl")
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DataError, match=told):
        read_arm(tmp_path)


def test_evalscope_wants_its_predictions(tmp_path: Path) -> None:
    folders.evalscope(tmp_path, RIGHT)
    (path,) = (tmp_path / "predictions").rglob("*.jsonl")
    lines = path.read_text().splitlines()
    extra = json.loads(lines[0]) | {"index": 100}
    path.write_text("\n".join([*lines, json.dumps(extra)]))
    samples = read_arm(tmp_path).suites["gpqa"]
    assert [sample.state for sample in samples[-2:]] == ["scored", "unscorable"], "an answer that nobody reviewed"
    path.unlink()
    with pytest.raises(DataError, match="predictions"):
        read_arm(tmp_path)
