"""Progress of a run: items answered with rate and time left, and what is waited for."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inspect_ai.hooks import Hooks, ModelRetry, SampleEnd, hooks

from halfbyte.progress import Progress

SAY_EVERY_S = 5.0
_watchers: list["_Watch"] = []
_retries: Counter[str] = Counter()
"""Requests that were made again, by sample."""


class _Watch:
    """Counts answers. total: to come in this run, those of an earlier one not among them."""

    def __init__(self, suite: str, total: int, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._suite, self._total, self._progress, self._clock = suite, total, progress, clock
        self._done, self._began = 0, clock()
        self._said = self._began

    def answered(self) -> None:
        self._done += 1
        now = self._clock()
        if now - self._said >= SAY_EVERY_S:
            self._said = now
            rate = self._done / (now - self._began)
            left = max(self._total - self._done, 0) / rate
            self._progress.note(f"{self._suite}: {self._done} of {self._total}, {rate:.2f}/s, {left:.0f} s left")

    def waits(self, data: ModelRetry) -> None:
        why = f"status {data.status_code}" if data.status_code else data.exception_type or "no answer"
        self._progress.note(f"{self._suite}: waiting {data.wait_time:.0f} s after {why}, attempt {data.attempt}")


@hooks(name="halfbyte_progress", description="progress of halfbyte evaluate")
class _Tell(Hooks):
    async def on_sample_end(self, data: SampleEnd) -> None:
        for watch in _watchers:
            watch.answered()

    async def on_model_retry(self, data: ModelRetry) -> None:
        if data.sample_id is not None:
            _retries[data.sample_id] += 1
        for watch in _watchers:
            watch.waits(data)


def retries_of(sample: str) -> int:
    """How often requests of a sample, by inspect's id of it, were made again so far."""
    return _retries[sample]


@contextmanager
def watched(suite: str, total: int, progress: Progress) -> Iterator[None]:
    """Tell `progress` of what happens inside."""
    watch = _Watch(suite, total, progress)
    _watchers.append(watch)
    try:
        yield
    finally:
        _watchers.remove(watch)
