"""Kueue's admission on the worked examples of its documentation, and a simulated day."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from halfbyte.deploy.simulation.admission import Cohort, Queue, Workload

from .conftest import Ground, halfbyte


def most(cohort: Cohort, queue: str) -> int:
    """Units of one GPU that a queue gets, asked for one by one."""
    count = 0
    while cohort.admit(Workload(f"{queue}-{count}", queue, 1)) is not None:
        count += 1
    return count


def test_borrowing_from_the_cohort() -> None:
    """Kueue, concepts, ClusterQueue, "Borrowing Semantics": quotas of 9 and 12; the first may use 21 while the second
    uses none, and only its own 9 while the second uses all."""
    assert most(Cohort.of([Queue("team-a", 9), Queue("team-b", 12)]), "team-a") == 21
    cohort = Cohort.of([Queue("team-a", 9), Queue("team-b", 12)])
    assert most(cohort, "team-b") == 21
    cohort = Cohort.of([Queue("team-a", 9, borrowing=0), Queue("team-b", 12, borrowing=0)])
    assert (most(cohort, "team-b"), most(cohort, "team-a")) == (12, 9)


def test_a_borrowing_limit() -> None:
    """There, "BorrowingLimit": 9 and 12, the first may borrow 1: 10."""
    assert most(Cohort.of([Queue("team-a", 9, borrowing=1), Queue("team-b", 12)]), "team-a") == 10


def test_a_lending_limit() -> None:
    """There, "LendingLimit": 9 and 12, the second lends 1: the first may use 10, the second all of its 12 still."""
    cohort = Cohort.of([Queue("team-a", 9), Queue("team-b", 12, lending=1)])
    assert most(cohort, "team-a") == 10
    assert most(cohort, "team-b") == 11


def test_what_is_lent_comes_back() -> None:
    """There, "Preemption": reclaimWithinCohort Any takes borrowers of any priority, for what is its own."""
    cohort = Cohort.of([Queue("model", 16, reclaim="Any"), Queue("batch", 0)])
    for number in range(2):
        assert cohort.admit(Workload(f"batch-{number}", "batch", 8, priority=100, order=number)) == []
    victims = cohort.admit(Workload("replica", "model", 8))
    assert victims is not None
    assert [one.name for one in victims] == ["batch-1"]


def test_a_borrower_displaces_only_lower_priorities() -> None:
    queues = [Queue("model", 8, borrowing=16, reclaim="Any", borrow_below=0), Queue("batch", 0), Queue("other", 0)]
    cohort = Cohort.of(queues, shared=16)
    cohort.admit(Workload("own", "model", 8, 100))
    cohort.admit(Workload("batch", "batch", 8, 0))
    cohort.admit(Workload("other", "other", 8, 50))
    victims = cohort.admit(Workload("second", "model", 8, 100))
    assert victims is not None
    assert [one.name for one in victims] == ["batch"]
    assert cohort.admit(Workload("third", "model", 8, 100)) is None


def test_within_a_queue_the_higher_priority_goes_first() -> None:
    cohort = Cohort.of([Queue("q", 8, within=True)])
    cohort.admit(Workload("low", "q", 8, 1))
    assert [one.name for one in cohort.admit(Workload("high", "q", 8, 2)) or []] == ["low"]
    assert cohort.admit(Workload("low", "q", 8, 1)) is None


@pytest.fixture(scope="module")
def day(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, float]], Path]:
    """As much as four of six replicas serve at the peak."""
    plan = json.loads(ground.plan.read_text())
    rate = plan["throughput"]["at_slo"]["requests_per_s"]
    plot = tmp_path_factory.mktemp("day") / "day.svg"
    done = halfbyte(*ground.words("--simulate", round(rate * 2.2 * 86_400), "--plot", plot, "--json"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["fleets"], plot


def test_a_scaled_fleet_costs_less_than_the_fixed_one_that_does_as_well(
    day: tuple[list[dict[str, float]], Path],
) -> None:
    scaled, *fixed = day[0]
    assert scaled["in_time"] > fixed[0]["in_time"]
    assert scaled["usd"] < fixed[-1]["usd"]
    assert scaled["batch_preempted"] > 0
    assert scaled["peak_replicas"] > 2
    for fleet in day[0]:
        assert fleet["usd"] == pytest.approx(4.0 * fleet["gpu_hours"], rel=1e-3)


def test_a_fixed_fleet_holds_its_gpus_all_day(day: tuple[list[dict[str, float]], Path]) -> None:
    last = day[0][-1]
    assert last["gpu_hours"] == 6 * 8 * 24


def test_the_picture_is_a_picture(day: tuple[list[dict[str, float]], Path]) -> None:
    root = ET.fromstring(day[1].read_text())
    lines = [one for one in root.iter() if "mark-line" in one.get("class", "")]
    assert sum(len(line) for line in lines) == 4
    assert not [one for one in root.iter() if one.tag.endswith("script")]


@pytest.mark.parametrize("requests", ["0", "-5", "nan", "inf"])
def test_no_number_of_requests(ground: Ground, requests: str) -> None:
    assert halfbyte(*ground.words("--simulate", requests)).returncode == 2
