"""Standard errors of inspect-ai and lm-eval on the same answers: equal where they define the same quantity."""

import math
import statistics
from typing import Any

import numpy as np
import pytest
from inspect_ai.scorer import SampleScore, Score, stderr

from halfbyte.numbers.paired import Pairs


def one_arm(scores: "list[float]", clusters: "list[str] | None" = None) -> float:
    values = np.array(scores)
    return Pairs(values, np.zeros(len(values)), clusters, binary=False).standard_error


@pytest.mark.parametrize("n", [2, 30, 500])
def test_inspect_and_lm_eval(n: int) -> None:
    draw = np.random.default_rng(n)
    scores = [float(value) for value in draw.random(n)]
    samples: Any = [SampleScore(score=Score(value=value)) for value in scores]
    theirs = stderr()(samples)
    assert one_arm(scores) == pytest.approx(theirs, rel=1e-9)
    # lm-eval's mean_stderr: the sample's standard deviation over sqrt(n)
    assert one_arm(scores) == pytest.approx(statistics.stdev(scores) / math.sqrt(n), rel=1e-9)


def test_inspect_clustered() -> None:
    """Its C / (C - 1) is ours; both sum deviations inside a cluster before squaring."""
    draw = np.random.default_rng(1)
    scores, clusters = [float(value) for value in draw.random(90)], [f"c{i // 7}" for i in range(90)]
    samples: Any = [
        SampleScore(score=Score(value=value), sample_metadata={"passage": cluster})
        for value, cluster in zip(scores, clusters, strict=True)
    ]
    theirs = stderr(cluster="passage")(samples)
    assert one_arm(scores, clusters) == pytest.approx(theirs, rel=1e-9)
