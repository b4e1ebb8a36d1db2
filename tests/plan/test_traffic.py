"""The traffic simulation: conservation, determinism, queueing theory, preemption, and its speed."""

import random
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from halfbyte.errors import UnsupportedError, UsageError
from halfbyte.plan.memory import MemoryPlan, plan_memory
from halfbyte.plan.simulate import Replica, StepTimes
from halfbyte.plan.sizing import outcome_json, replicas_for_slo, simulate_trace
from halfbyte.plan.throughput import SpeedModel
from halfbyte.plan.trace import Request, read_trace, reasoning_traffic, write_csv
from halfbyte.plan.work import work_of
from halfbyte.plan.workload import Workload

from .models import paper, server

GLM = paper()


def parts() -> tuple[SpeedModel, MemoryPlan]:
    memory = plan_memory(GLM.groups, GLM.arch, server(GLM, mtp_tokens=3))
    return SpeedModel(work_of(GLM.groups, GLM.arch, memory)), memory


class FixedTimes(StepTimes):
    """Constant step and prefill times, for checks by hand."""

    def __init__(self, step: float, prefill: float) -> None:
        self._step, self._prefill, self.tokens_per_step, self.request_seconds = step, prefill, 1.0, 0.0

    def step(self, running: int, mean_context: float) -> float:
        return self._step

    def prefill(self, tokens: int) -> float:
        return self._prefill


def test_one_request_by_hand() -> None:
    outcome = Replica(FixedTimes(0.01, 0.5), 10_000, 8).run([Request(3.0, 100, 200, "a")])
    assert outcome.ttft == [0.5]
    assert outcome.total == [pytest.approx(0.5 + 200 * 0.01)]
    assert outcome.end == pytest.approx(5.5)
    assert (outcome.output_tokens, outcome.input_tokens, outcome.preemptions) == (200, 100, 0)


def test_a_single_server_queue_is_m_d_1() -> None:
    """One sequence at a time, deterministic service of 1 s at load 0.5: mean wait rho / (2 (1 - rho)) = 0.5 s."""
    draw, clock, requests = random.Random(3), 0.0, []
    for _ in range(40_000):
        clock += draw.expovariate(0.5)
        requests.append(Request(clock, 10, 100, "a"))
    outcome = Replica(FixedTimes(0.01, 0.0), 10_000, 1).run(requests)
    assert sum(outcome.queued) / len(outcome.queued) == pytest.approx(0.5, rel=0.05)


def test_a_full_cache_preempts_and_loses_nothing() -> None:
    requests = [Request(0.0, 400, 400, "a"), Request(0.0, 400, 400, "b")]
    outcome = Replica(FixedTimes(0.01, 0.0), 1000, 8).run(requests)
    assert outcome.preemptions >= 1
    assert outcome.output_tokens == 800
    assert len(outcome.ttft) == 2
    assert outcome.peak_kv_tokens <= 1000 + 1e-6


def test_what_never_fits_is_rejected() -> None:
    outcome = Replica(FixedTimes(0.01, 0.0), 1000, 8).run([Request(0, 900, 200, "a"), Request(1, 10, 10, "a")])
    assert (outcome.rejected, len(outcome.ttft)) == (1, 1)


def test_seeded_and_conserving() -> None:
    model, memory = parts()
    requests = reasoning_traffic(3000, 0.5, seed=5)
    assert requests == reasoning_traffic(3000, 0.5, seed=5) != reasoning_traffic(3000, 0.5, seed=6)
    first, second = (simulate_trace(requests, model, memory)[0] for _ in range(2))
    assert first == second
    assert len(first.ttft) + first.rejected == 3000
    assert first.output_tokens == sum(request.output for request in requests)
    assert min(first.ttft) > 0
    assert first.peak_kv_tokens <= memory.kv_tokens + 1


def test_generated_traffic_is_what_it_says() -> None:
    requests = reasoning_traffic(20_000, 2.0, seed=1)
    assert 20_000 / requests[-1].arrival == pytest.approx(2.0, rel=0.15)
    assert max(request.output for request in requests) > 37_000
    assert [request.arrival for request in requests] == sorted(request.arrival for request in requests)
    tenants = [request.tenant for request in requests]
    assert tenants.count("tenant-1") > 1.8 * tenants.count("tenant-2")


def test_more_replicas_shorten_the_tail_and_are_sized() -> None:
    model, memory = parts()
    requests = reasoning_traffic(4000, 2.0, seed=2)
    one, four = (outcome_json(simulate_trace(requests, model, memory, n), memory) for n in (1, 4))
    assert four["ttft_ms"]["p95"] < one["ttft_ms"]["p95"]
    slo = Workload(slo_ttft_ms=3000, slo_tpot_ms=30)
    needed = replicas_for_slo(requests, model, memory, slo)
    assert needed is not None
    assert needed > 1
    assert replicas_for_slo(requests, model, memory, Workload(slo_tpot_ms=0.01)) is None


@pytest.mark.timeout(60)
def test_a_hundred_thousand_requests_in_seconds() -> None:
    model, memory = parts()
    requests = reasoning_traffic(100_000, 0.5, seed=1)
    outcome = simulate_trace(requests, model, memory)[0]
    assert len(outcome.ttft) == 100_000


def test_csv_round_trip(tmp_path: Path) -> None:
    requests = reasoning_traffic(50, 1.0)
    write_csv(requests, tmp_path / "trace.csv")
    again = read_trace(tmp_path / "trace.csv")
    assert [(r.input, r.output, r.tenant) for r in again] == [(r.input, r.output, r.tenant) for r in requests]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arrival,input\n1,2\n", "no column output"),
        ("arrival,input,output\n", "holds no request"),
        ("arrival,input,output\n1,2,x\n", "row 1: arrival, input and output must be numbers"),
        ("arrival,input,output\nnan,2,3\n", "out of range"),
        ("arrival,input,output\n1,2,-3\n", "out of range"),
    ],
)
def test_bad_traces(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(UsageError, match=words):
        read_trace(tmp_path / "bad.csv")


def test_parquet_says_what_csv_says(tmp_path: Path) -> None:
    requests = reasoning_traffic(50, 1.0)
    write_csv(requests, tmp_path / "trace.csv")
    columns = {name: [getattr(r, name) for r in requests] for name in ("arrival", "input", "output", "tenant")}
    for extra in ({}, {"model": ["glm"] * 50}):  # a column more does no harm
        parquet.write_table(pyarrow.table(columns | extra), tmp_path / "trace.parquet")
        assert read_trace(tmp_path / "trace.parquet") == requests
    assert len(read_trace(tmp_path / "trace.csv")) == 50
    parquet.write_table(pyarrow.table({"arrival": [0.5], "input": [1.0], "output": [7]}), tmp_path / "few.parquet")
    assert read_trace(tmp_path / "few.parquet") == [Request(0.5, 1, 7, "default")]
    parquet.write_table(pyarrow.table({"arrival": [0.0], "input": [None], "output": [7]}), tmp_path / "null.parquet")
    with pytest.raises(UsageError, match="row 1: arrival, input and output must be numbers"):
        read_trace(tmp_path / "null.parquet")
    parquet.write_table(pyarrow.table({"arrival": [0.0], "input": [1]}), tmp_path / "lacks.parquet")
    with pytest.raises(UsageError, match="no column output"):
        read_trace(tmp_path / "lacks.parquet")


def test_missing_and_damaged_traces(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such trace"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"t\.parquet: cannot be read as Parquet"):
        read_trace(tmp_path / "t.parquet")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(UsageError, match="has no column arrival, input, output"):
        read_trace(tmp_path / "empty.csv")


def test_parquet_without_pyarrow_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UnsupportedError, match="needs pyarrow"):
        read_trace(tmp_path / "t.parquet")
