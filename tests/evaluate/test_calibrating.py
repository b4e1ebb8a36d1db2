"""One model against itself."""

import numpy as np
import pytest

from halfbyte.errors import DataError
from halfbyte.evaluate.calibrating import noise
from halfbyte.evaluate.samples import Arm, Sample
from halfbyte.numbers.agreement import flip_rate, intraclass_correlation, within_variance


def test_by_hand() -> None:
    scores = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert flip_rate(scores) == 0.25
    assert within_variance(scores) == 0.125
    # between: 2 * var([1, 0, .5, 0]) = 2 * 0.229167
    assert intraclass_correlation(scores) == pytest.approx((0.4583333 - 0.125) / (0.4583333 + 0.125), abs=1e-6)
    assert intraclass_correlation(np.ones((3, 2))) is None


def test_icc_of_known_truth() -> None:
    draw = np.random.default_rng(1)
    ability = draw.normal(0, 2, (4000, 1))
    assert intraclass_correlation(ability + draw.normal(0, 1, (4000, 5))) == pytest.approx(0.8, abs=0.02)


def test_an_arm() -> None:
    draw = np.random.default_rng(2)
    samples = [
        Sample(f"i{i}", "scored", float(draw.random() < 0.8), epoch=epoch) for i in range(200) for epoch in (1, 2, 3)
    ]
    found = noise(Arm("inspect", {"s": samples}), margin=20)
    suite = found.suites[0]
    assert (suite.n, suite.runs, len(found.verdicts)) == (200, 3, 2)
    assert suite.flip_rate == pytest.approx(0.32, abs=0.06)
    assert suite.smallest_margin == pytest.approx(100 * 2.4865 * np.sqrt(0.32 / 200), rel=0.2)
    assert found.as_json()["false_verdicts"] == 0
    with pytest.raises(DataError, match="two runs"):
        noise(Arm("inspect", {"s": samples[::3]}), margin=20)
