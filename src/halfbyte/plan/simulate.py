"""A discrete-event simulation of one replica: admission, KV use, preemption, latency of every request.

Between two events the batch is constant, so all running sequences gain tokens at one rate: a common counter of steps
replaces a loop over steps, and a request is finished when the counter passes its own mark. An event costs a few heap
operations, which is what makes 100,000 requests a matter of seconds.

The scheduler is SGLang's default and close to vLLM's: first come, first served; prompts are prefilled at once and
delay decoding; a request is admitted when its prompt and one page more fit in the KV cache; when the cache is full the
youngest running request is put back, to be prefilled again with what it had generated.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log2

from halfbyte.plan.throughput import SpeedModel
from halfbyte.plan.trace import Request

PAGE = 64


@dataclass(slots=True)
class _Live:
    """A request in the system. tokens: prompt to prefill; left: tokens still to generate, in steps from `start`."""

    request: Request
    tokens: int
    left: float
    start: float = 0.0
    first_token: float | None = None
    order: int = 0


@dataclass
class Outcome:
    """Latencies in seconds by request, in order of completion, and what the replica did meanwhile."""

    ttft: list[float] = field(default_factory=list)
    tpot: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    output_tokens: int = 0
    input_tokens: int = 0
    preemptions: int = 0
    rejected: int = 0
    busy_seconds: float = 0.0
    end: float = 0.0
    peak_kv_tokens: float = 0.0
    kv_token_seconds: float = 0.0
    peak_running: int = 0


class StepTimes:
    """Step and prefill times with a cache: contexts and prompts are rounded to steps of a sixth of a doubling."""

    def __init__(self, speeds: SpeedModel) -> None:
        self._speeds = speeds
        self._steps: dict[tuple[int, int], float] = {}
        self._prefills: dict[int, float] = {}
        self.tokens_per_step = speeds.tokens_per_step
        self.request_seconds = speeds.factors.request_ms / 1e3

    def step(self, running: int, mean_context: float) -> float:
        key = (running, _bucket(mean_context))
        found = self._steps.get(key)
        if found is None:
            found = self._steps[key] = self._speeds.decode_step_ms(running, 2 ** (key[1] / 6)) / 1e3
        return found

    def prefill(self, tokens: int) -> float:
        key = _bucket(tokens)
        found = self._prefills.get(key)
        if found is None:
            rounded = max(int(2 ** (key / 6)), 1)
            found = self._prefills[key] = self._speeds.prefill_ms(rounded) / 1e3 / rounded / self._speeds.d.kv_ranks
        return found * tokens


def _bucket(tokens: float) -> int:
    return round(6 * log2(max(tokens, 1.0)))


class Replica:
    """One replica, fed in order of arrival. kv_tokens: its whole pool; sequences: most that run at once."""

    def __init__(self, times: StepTimes, kv_tokens: int, sequences: int) -> None:
        self.times, self.capacity, self.most = times, kv_tokens, sequences
        self.now = self.steps = 0.0
        self.waiting: deque[_Live] = deque()
        self.finishing: list[tuple[float, int, _Live]] = []
        self.running: dict[int, _Live] = {}
        self.base_tokens = 0.0  # sum over running of (tokens at admission - steps at admission): KV = base + n * steps
        self.count = 0
        self.outcome = Outcome()

    def run(self, requests: Sequence[Request]) -> Outcome:
        """Simulate to the last completion."""
        for request in requests:
            self._until(request.arrival)
            if request.input + request.output > self.capacity:
                self.outcome.rejected += 1
                continue
            gained = request.output / self.times.tokens_per_step
            self.waiting.append(_Live(request, request.input, gained))
            self._admit()
        self._until(float("inf"))
        self.outcome.end = self.now
        return self.outcome

    @property
    def kv_used(self) -> float:
        return self.base_tokens + len(self.running) * self.steps * self.times.tokens_per_step

    def _until(self, moment: float) -> None:
        """Advance to `moment` by completions and full caches; stays at the last completion if there is no more work."""
        while self.running and self.now < moment:
            batch = len(self.running)
            used = self.kv_used
            step = self.times.step(batch, used / batch)
            to_finish = self.finishing[0][0] - self.steps
            to_full = (self.capacity - used) / (batch * self.times.tokens_per_step)
            # a step's time grows with the context: take it anew after at most an eighth of the present length
            to_drift = max(used / batch / 8, 64.0) / self.times.tokens_per_step
            steps = max(min(to_finish, to_full, to_drift), 0.0)
            if self.now + steps * step > moment:
                self._advance((moment - self.now) / step, step, used)
                self.now = moment
                return
            self._advance(steps, step, used)
            if to_finish <= min(to_full, to_drift):
                self._finish()
                self._admit()
            elif to_full <= to_drift:
                self._preempt()
        if moment != float("inf"):
            self.now = max(self.now, moment)

    def _advance(self, steps: float, step: float, used: float) -> None:
        seconds = steps * step
        self.steps += steps
        self.now += seconds
        self.outcome.busy_seconds += seconds
        self.outcome.kv_token_seconds += used * seconds
        self.outcome.peak_kv_tokens = max(self.outcome.peak_kv_tokens, self.kv_used)

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.most:
            live = self.waiting[0]
            if self.kv_used + live.tokens + PAGE > self.capacity and self.running:
                return
            self.waiting.popleft()
            seconds = self.times.prefill(live.tokens)
            if live.first_token is None:
                self.outcome.queued.append(self.now - live.request.arrival)
            self.now += seconds
            self.outcome.busy_seconds += seconds
            if live.first_token is None:
                live.first_token = self.now
            self.count += 1
            live.start, live.order = self.steps, self.count
            self.running[self.count] = live
            self.base_tokens += live.tokens - self.steps * self.times.tokens_per_step
            heapq.heappush(self.finishing, (self.steps + live.left, self.count, live))
            self.outcome.peak_running = max(self.outcome.peak_running, len(self.running))

    def _remove(self, live: _Live) -> None:
        del self.running[live.order]
        self.base_tokens -= live.tokens - live.start * self.times.tokens_per_step
        while self.finishing and self.finishing[0][1] not in self.running:
            heapq.heappop(self.finishing)
        if not self.running:
            self.base_tokens = self.steps = 0.0  # keep the counters small

    def _finish(self) -> None:
        _, _, live = self.finishing[0]
        self._remove(live)
        request, outcome = live.request, self.outcome
        assert live.first_token is not None
        outcome.ttft.append(live.first_token - request.arrival + self.times.request_seconds)
        outcome.tpot.append((self.now - live.first_token) / max(request.output - 1, 1))
        outcome.total.append(self.now - request.arrival)
        outcome.tenants.append(request.tenant)
        outcome.output_tokens += request.output
        outcome.input_tokens += request.input

    def _preempt(self) -> None:
        """Put the youngest back at the head of the queue; what it generated becomes part of its prompt."""
        live = self.running[max(self.running)]
        if len(self.running) == 1:
            self._finish_early(live)
            return
        done = self.steps - live.start
        self._remove(live)
        live.tokens += int(done * self.times.tokens_per_step)
        live.left = max(live.left - done, 0.0)
        self.waiting.appendleft(live)
        self.outcome.preemptions += 1

    def _finish_early(self, live: _Live) -> None:
        """Alone and still too long by rounding: it ends here."""
        self.finishing[0] = (self.steps, live.order, live)
        self._finish()
