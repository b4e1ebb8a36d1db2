"""One span for each answer, sent to an OpenTelemetry collector: who, which model, how many tokens; never a word of it.

Names are OpenTelemetry's for generative AI where it has one. A trace that the client began goes on here.
"""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from halfbyte import __version__
from halfbyte.errors import UnsupportedError
from halfbyte.serve.money import Tokens

TIMEOUT_S = 5


class Told(Protocol):
    """What a span says of a request."""

    @property
    def id(self) -> str: ...
    @property
    def began(self) -> float: ...
    @property
    def status(self) -> str: ...
    @property
    def tokens(self) -> Tokens: ...


class Tracing:
    """Sends in a thread of its own; where the collector is away, spans are dropped and requests go on."""

    def __init__(self, url: str) -> None:
        """url: of the collector, `http://host:4318`. Raises UnsupportedError where OpenTelemetry is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise UnsupportedError(
                "traces need OpenTelemetry's packages", hint="pip install 'halfbyte[otel]'"
            ) from None
        resource = Resource.create({"service.name": "halfbyte", "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{url.rstrip('/')}/v1/traces", timeout=TIMEOUT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("halfbyte.serve")
        self._context = TraceContextTextMapPropagator()

    def record(self, told: Told, tenant: str, model: str, path: str, headers: Mapping[str, str]) -> None:
        """headers: of the client, of which only `traceparent` and `tracestate` are read."""
        parent = self._context.extract(
            {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        )
        ended = time.time_ns()
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": path.removeprefix("/v1/"),
            "gen_ai.request.model": model,
            "gen_ai.usage.input_tokens": told.tokens.prompt,
            "gen_ai.usage.output_tokens": told.tokens.output,
            "halfbyte.usage.cached_tokens": told.tokens.cached,
            "halfbyte.usage.reasoning_tokens": told.tokens.reasoning,
            "halfbyte.tenant": tenant,
            "halfbyte.request": told.id,
            "halfbyte.status": told.status,
        }
        began = ended - int((time.monotonic() - told.began) * 1e9)
        span = self._tracer.start_span("answer", context=parent, attributes=attributes, start_time=began)
        span.end(ended)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
