"""What Prometheus is told. Labels are tenants of the ledger and the served model only, so their number is bounded."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from halfbyte import __version__
from halfbyte.serve.door.upstream import Upstreams
from halfbyte.serve.money import KINDS, PICO, Tokens

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
PER_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1)
REQUEST_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
TENANT_MODEL = ("tenant", "model")


disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One door's."""

    def __init__(self, upstreams: Upstreams) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered, by HTTP status.", *TENANT_MODEL, "code")
        self.ended = self._counter("requests_settled", "Requests settled, by how they ended.", *TENANT_MODEL, "status")
        what = "Tokens settled. cached is part of prompt, reasoning part of output."
        self.tokens = self._counter("tokens", what, *TENANT_MODEL, "type")
        self.cost = self._counter("cost_usd", "Dollars settled.", *TENANT_MODEL)
        what = "Requests refused, by reason; tenant is empty for unknown keys."
        self.refused = self._counter("refused", what, "tenant", "reason")
        self.restarts = self._counter("engine_restarts", "Restarts of an engine that this door runs.")
        self.first = self._histogram("time_to_first_token", "From the request to its first text.", SECONDS)
        self.each = self._histogram("time_per_output_token", "Of streams, after the first token.", PER_TOKEN_SECONDS)
        self.duration = self._histogram("request_duration", "From the request to its end.", REQUEST_SECONDS)
        self.reserved = self._gauge("reserved_tokens", "Tokens reserved by running requests.", "tenant")
        self._gauge("build_info", "1, with the version.", "version").labels(__version__).set(1)
        self.registry.register(_Load(upstreams))

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"halfbyte_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"halfbyte_{name}", what, labels, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"halfbyte_{name}_seconds", what, TENANT_MODEL, buckets=buckets, registry=self.registry)

    def settled(self, tenant: str, model: str, status: str, tokens: Tokens, pico: int) -> None:
        self.ended.labels(tenant, model, status).inc()
        for kind in KINDS:
            if number := getattr(tokens, kind):
                self.tokens.labels(tenant, model, kind).inc(number)
        if pico:
            self.cost.labels(tenant, model).inc(pico / PICO)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Load(Collector):
    """What runs and waits now."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def collect(self) -> Iterable[Metric]:
        queue = self._upstreams.queue
        yield GaugeMetricFamily("halfbyte_queue_requests", "Requests that wait for a slot.", value=queue.requests)
        yield GaugeMetricFamily("halfbyte_queue_tokens", "Tokens reserved by those that wait.", value=queue.tokens)
        running = GaugeMetricFamily("halfbyte_running_requests", "Requests at each upstream.", labels=("upstream",))
        outstanding = GaugeMetricFamily("halfbyte_outstanding_tokens", "Tokens reserved there.", labels=("upstream",))
        alive = GaugeMetricFamily("halfbyte_upstream_up", "1 where it answers.", labels=("upstream",))
        for number, member in enumerate(self._upstreams.members):
            running.add_metric((str(number),), member.running)
            outstanding.add_metric((str(number),), member.outstanding)
            alive.add_metric((str(number),), int(member.healthy))
        yield from (running, outstanding, alive)
