"""Kueue's admission on the worked examples of its documentation, and a simulated day."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from halfbyte.deploy.simulation.admission import Cohort, Flavors, Policy, Queue, Workload

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


def two_flavors(
    when_can_borrow: Policy = "MayStopSearch",
    when_can_preempt: Policy = "TryNextFlavor",
    *,
    first: tuple[int, int] = (8, 8),
    second: tuple[int, int] = (8, 8),
) -> Flavors:
    """A queue and batch work beside it. first, second: a flavor's nominal quota of the queue, and of the cohort."""
    cohorts = {
        name: Cohort.of(
            [Queue("model", nominal, reclaim="Any", within=True, borrow_below=0), Queue("batch", 0)], shared
        )
        for name, (nominal, shared) in (("first", first), ("second", second))
    }
    return Flavors(cohorts, {"model": ("first", "second")}, when_can_borrow, when_can_preempt)


def where(flavors: Flavors, name: str) -> str | None:
    admitted = flavors.admit(Workload(name, "model", 8, 100))
    return None if admitted is None else admitted.flavor


def filled(flavors: Flavors, *names: str) -> None:
    """With batch work, as much as there is."""
    for flavor in names:
        cohort = flavors.cohorts[flavor]
        while (found := cohort.attempt(Workload("w", "batch", 8))) is not None:
            cohort.take(Workload(f"batch-{flavor}-{len(cohort.admitted)}", "batch", 8), found)


def test_the_first_flavor_with_room_and_then_the_next() -> None:
    """Kueue, concepts, ClusterQueue, "Flavors and borrowing semantics": the flavors of a group in order."""
    flavors = two_flavors(first=(8, 0), second=(8, 0))
    assert [where(flavors, name) for name in ("a", "b", "c")] == ["first", "second", None]
    flavors.release("a")
    assert where(flavors, "c") == "first"


def test_where_it_can_borrow_the_search_may_stop() -> None:
    """There, "FlavorFungibility": whenCanBorrow MayStopSearch, the default, borrows in the first flavor; TryNextFlavor
    finds the second, where there is room without borrowing."""
    for policy, expected in (("MayStopSearch", "first"), ("TryNextFlavor", "second")):
        flavors = two_flavors(policy)  # type: ignore[arg-type]
        assert where(flavors, "own") == "first"
        assert where(flavors, "more") == expected


def test_where_it_can_preempt_the_next_is_tried_first() -> None:
    """There: whenCanPreempt TryNextFlavor, the default, displaces nobody while another flavor has room."""
    flavors = two_flavors(first=(8, 8), second=(0, 8))
    filled(flavors, "first")
    assert flavors.cohorts["first"].used("batch") == 16
    assert where(flavors, "a") == "second"
    assert flavors.cohorts["first"].used("batch") == 16


def test_important_work_stays_on_the_better_flavor() -> None:
    """Kueue's KEP 582, story 1: whenCanPreempt MayStopSearch displaces lower priorities in the first flavor rather than
    running in the second."""
    flavors = two_flavors(when_can_preempt="MayStopSearch", first=(8, 8), second=(0, 8))
    filled(flavors, "first")
    admitted = flavors.admit(Workload("a", "model", 8, 100))
    assert admitted is not None
    assert admitted.flavor == "first"
    assert [one.queue for one in admitted.victims] == ["batch"]


@pytest.mark.parametrize(
    ("first", "second", "busy", "expected"),
    [
        ((0, 8), (8, 0), (), "second"),  # room with borrowing, then room without: both looked at
        ((8, 0), (0, 8), ("first",), "second"),  # taking back one's own, then room with borrowing
        ((0, 8), (8, 0), ("first", "second"), "second"),  # displacing while borrowing, then taking back one's own
        ((8, 0), (8, 0), ("first", "second"), "first"),  # equals: the first of them
    ],
)
def test_the_order_of_what_is_feasible(
    first: tuple[int, int], second: tuple[int, int], busy: tuple[str, ...], expected: str
) -> None:
    """There, `preference` with both policies TryNextFlavor: (fit, no borrowing), (fit, borrowing), (preempting, no
    borrowing), (preempting, borrowing)."""
    flavors = two_flavors("TryNextFlavor", first=first, second=second)
    filled(flavors, *busy)
    assert where(flavors, "a") == expected


def test_a_flavor_where_nobody_can_be_displaced_is_passed_over() -> None:
    flavors = two_flavors(first=(0, 8), second=(0, 8))
    flavors.cohorts["first"].admit(Workload("equal", "batch", 8, 100))
    assert where(flavors, "a") == "second"
    assert where(flavors, "b") is None


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
