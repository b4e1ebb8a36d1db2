"""Where the time of a pass went, layer by layer, and what memory it took."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch

from halfbyte.process import peak_rss_bytes


@dataclass
class LayerStats:
    """Seconds of one layer. read: in the reading thread. wait: of the computation, for it. copy: bytes to weights.

    On a GPU, copy and compute are times of the device, measured by events; elsewhere of the computing thread.
    """

    layer: int
    bytes: int = 0
    read: float = 0.0
    wait: float = 0.0
    copy: float = 0.0
    compute: float = 0.0
    wall: float = 0.0

    @property
    def overlap(self) -> float:
        """Time of the slower of reading and computing, as a share of the whole: 1 where the faster one is hidden."""
        return max(self.read, self.copy + self.compute) / self.wall if self.wall else 1.0


@dataclass
class Stats:
    layers: list[LayerStats] = field(default_factory=list)

    @property
    def peak_rss_bytes(self) -> int:
        return peak_rss_bytes()

    @property
    def peak_cuda_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else None

    def total(self) -> LayerStats:
        """Sums over the layers that were run (not those that were resumed)."""
        total = LayerStats(-1)
        for one in self.layers:
            for name in ("bytes", "read", "wait", "copy", "compute", "wall"):
                setattr(total, name, getattr(total, name) + getattr(one, name))
        return total

    def as_json(self) -> dict[str, Any]:
        total = self.total()
        return {
            "seconds": {name: round(getattr(total, name), 3) for name in ("read", "wait", "copy", "compute", "wall")},
            "bytes": total.bytes,
            "overlap": round(total.overlap, 4),
            "peak_rss_bytes": self.peak_rss_bytes,
            "peak_cuda_bytes": self.peak_cuda_bytes,
            "layers": [{name: round(value, 4) for name, value in asdict(one).items()} for one in self.layers],
        }


class Clock:
    """Measures one layer."""

    def __init__(self, stats: LayerStats, device: torch.device) -> None:
        self.stats, self._cuda = stats, device.type == "cuda"
        self._events: list[tuple[str, Any, Any]] = []
        self._began = perf_counter()

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the time inside to `copy` or `compute`."""
        if self._cuda:
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            stop.record()
            self._events.append((name, start, stop))
            return
        began = perf_counter()
        yield
        setattr(self.stats, name, getattr(self.stats, name) + perf_counter() - began)

    def finish(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()
            for name, start, stop in self._events:
                setattr(self.stats, name, getattr(self.stats, name) + start.elapsed_time(stop) / 1000)
        self.stats.wall = perf_counter() - self._began
