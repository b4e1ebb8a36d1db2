"""PASS, FAIL, INCONCLUSIVE: margins, missing answers, truncation, several suites."""

import numpy as np
import pytest

from halfbyte.errors import DataError
from halfbyte.evaluate.judging import judge
from halfbyte.evaluate.samples import Arm, Sample


def arm(right: int, n: int, suite: str = "s", flipped: int = 0, **more: object) -> Arm:
    """The first `right` of n items right, but for `flipped` that change places at the boundary."""
    scores = [1.0] * right + [0.0] * (n - right)
    for k in range(flipped):
        scores[right - 1 - k], scores[right + k] = 0.0, 1.0
    return Arm("lm-eval", {suite: [Sample(f"i{i}", "scored", score) for i, score in enumerate(scores)]})


def test_the_three_outcomes() -> None:
    assert judge(arm(900, 1000, flipped=5), arm(900, 1000), margin=2).verdict == "PASS"
    assert judge(arm(850, 1000), arm(900, 1000), margin=2).verdict == "FAIL"
    assert judge(arm(80, 100, flipped=10), arm(80, 100), margin=2).verdict == "INCONCLUSIVE"


def test_the_numbers_of_one_suite() -> None:
    found = judge(arm(880, 1000), arm(900, 1000), margin=5)
    suite = found.suites[0]
    assert (suite.n, suite.candidate, suite.baseline) == (1000, 88.0, 90.0)
    assert suite.difference == pytest.approx(-2)
    assert suite.interval[0] < -2 < suite.interval[1]
    assert found.pooled == {"difference": suite.difference, "interval": list(suite.interval), "verdict": found.verdict}
    assert found.as_json()["suites"][0]["truncated"] == {"candidate": 0, "baseline": 0}


def test_no_pair_differs() -> None:
    suite = judge(arm(50, 100), arm(50, 100), margin=3).suites[0]
    half = 100 * 1.6448536**2 / (100 + 1.6448536**2)
    assert suite.interval == (pytest.approx(-half, abs=1e-6), pytest.approx(half, abs=1e-6))
    assert suite.verdict == "PASS"
    assert judge(arm(50, 100), arm(50, 100), margin=2).verdict == "INCONCLUSIVE"


def test_missing_answers_must_not_decide() -> None:
    candidate, baseline = arm(900, 1000), arm(900, 1000)
    assert judge(candidate, baseline, margin=2).verdict == "PASS"
    lost = [Sample(s.item, "failed") if i < 30 else s for i, s in enumerate(candidate.suites["s"])]
    found = judge(Arm("lm-eval", {"s": lost}), baseline, margin=2)
    assert (found.verdict, found.suites[0].n, found.suites[0].missing) == ("INCONCLUSIVE", 970, 30)
    assert found.suites[0].failed == {"candidate": 30, "baseline": 0}
    gone = Arm("lm-eval", {"s": candidate.suites["s"][30:]})
    assert judge(gone, baseline, margin=2).verdict == "INCONCLUSIVE"
    assert judge(gone, baseline, margin=9).verdict == "PASS"


@pytest.mark.parametrize(("count", "verdict"), [(20, "PASS"), (21, "INCONCLUSIVE")])
def test_more_than_two_percent_truncated_says_nothing(count: int, verdict: str) -> None:
    candidate = arm(900, 1000)
    cut = [s._replace(truncated=i < count) for i, s in enumerate(candidate.suites["s"])]
    found = judge(Arm("lm-eval", {"s": cut}), arm(900, 1000), margin=2)
    assert (found.verdict, found.suites[0].verdict) == (verdict, verdict)
    assert found.suites[0].truncated == {"candidate": count, "baseline": 0}


def test_repeats_are_averaged_inside_the_item() -> None:
    draw = np.random.default_rng(1)
    repeated = Arm(
        "x", {"s": [Sample(f"i{i}", "scored", float(draw.random() < 0.8)) for i in range(300) for _ in range(4)]}
    )
    suite = judge(repeated, repeated, margin=5).suites[0]
    assert (suite.n, suite.difference) == (300, 0)
    other = Arm(
        "x", {"s": [Sample(f"i{i}", "scored", float(draw.random() < 0.8)) for i in range(300) for _ in range(4)]}
    )
    found = judge(other, repeated, margin=5).suites[0]
    ours = [np.mean([s.score for s in other.suites["s"] if s.item == f"i{i}"]) for i in range(300)]
    theirs = [np.mean([s.score for s in repeated.suites["s"] if s.item == f"i{i}"]) for i in range(300)]
    assert found.standard_error == pytest.approx(100 * np.std(np.subtract(ours, theirs), ddof=1) / np.sqrt(300))


def test_clusters_are_the_sample() -> None:
    samples = [Sample(f"i{i}", "scored", float(i % 3 > 0), cluster=f"c{i // 10}") for i in range(200)]
    worse = [s._replace(score=0.0) if int(s.item[1:]) // 10 < 3 else s for s in samples]
    found = judge(Arm("x", {"s": worse}), Arm("x", {"s": samples}), margin=5).suites[0]
    assert found.clusters == 20
    assert found.interval[1] - found.interval[0] > 15  # whole clusters fell together


def test_holm_asks_more_of_each_of_many_suites() -> None:
    def several(flipped: int) -> tuple[Arm, Arm]:
        names = [f"s{k}" for k in range(6)]
        ours = Arm("x", {n: arm(900, 1000, n, flipped=flipped).suites[n] for n in names})
        return ours, Arm("x", {n: arm(900, 1000, n).suites[n] for n in names})

    for flipped in range(1, 40):
        found = judge(*several(flipped), margin=1)
        if {suite.unadjusted for suite in found.suites} == {"PASS"} and found.suites[0].verdict == "INCONCLUSIVE":
            break
    else:
        raise AssertionError("no number of flips lies between the two")
    assert found.verdict == found.pooled["verdict"] == "PASS"  # six suites together tell more than one
    errors = [suite.standard_error for suite in found.suites]
    half = 1.6448536269514722 * np.sqrt(np.sum(np.square(errors))) / 6
    assert found.pooled["interval"] == [pytest.approx(-half), pytest.approx(half)]


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="were run by lm-eval and inspect"):
        judge(arm(1, 2), Arm("inspect", arm(1, 2).suites), 1)
    with pytest.raises(DataError, match="'t' is in the candidate alone"):
        judge(Arm("lm-eval", arm(1, 2).suites | arm(1, 2, "t").suites), arm(1, 2), 1)
    ours, theirs = arm(1, 2), arm(1, 2)
    ours.conditions["s"], theirs.conditions["s"] = {"temperature": 1.0}, {"temperature": 0.0}
    with pytest.raises(DataError, match=r"temperature is 1.0 in the candidate, 0.0 in the baseline"):
        judge(ours, theirs, 1)
    with pytest.raises(DataError, match="no item was scored in both"):
        judge(Arm("lm-eval", {"s": [Sample("a", "failed")]}), arm(1, 2), 1)


def test_one_item_or_one_cluster_says_nothing() -> None:
    """Whatever the difference: there is nothing to see a spread in."""
    for ours, theirs in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.25)):
        for cluster, count in (("one", 1), ("one", 5), (None, 1)):
            ours_arm, theirs_arm = (
                Arm("x", {"s": [Sample(str(i), "scored", score, cluster=cluster) for i in range(count)]})
                for score in (ours, theirs)
            )
            found = judge(ours_arm, theirs_arm, margin=2)
            assert (found.verdict, found.suites[0].unadjusted) == ("INCONCLUSIVE", "INCONCLUSIVE")
