"""Traces by OpenTelemetry: the spans that `rag.telemetry` tells of, sent to a collector by OTLP over HTTP.

Nothing of it is imported where no endpoint is set. What is sent are names of stages, ids, counts and seconds. No proxy
and no netrc of the environment is asked; the standard variables OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME and
OTEL_RESOURCE_ATTRIBUTES are heard. The owner of OpenTelemetry. Knows no stage.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from api.version import product_version
from rag.errors import Misconfigured
from rag.settings import Settings
from rag.telemetry import Fact, Tracer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

#: Where a collector takes spans, below the endpoint.
PATH = "/v1/traces"
#: Seconds that one sending may take: what can not be sent is lost, and holds up nobody's end for longer.
SECONDS = 5
#: The spans of what came from outside.
FROM_OUTSIDE = "request"


@contextmanager
def opened_tracer(settings: Settings, kind: str) -> Iterator[Tracer | None]:
    """Yield what sends the spans of a process of this kind, None where the settings name no endpoint.

    What is left is sent at the end. Raises `Misconfigured` if the extra is not installed or the endpoint is no URL.
    """
    endpoint = settings.traces_to
    if endpoint is None:
        yield None
        return
    if urlsplit(endpoint).scheme not in {"http", "https"} or not urlsplit(endpoint).hostname:
        raise Misconfigured("The endpoint for traces must be an http or https URL such as http://127.0.0.1:4318.")
    provider = _provider(endpoint, kind, settings.observe.trace_share)
    try:
        yield OpenTelemetry(provider)
    finally:
        provider.shutdown()


def _provider(endpoint: str, kind: str, share: float) -> TracerProvider:
    try:
        import requests
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise Misconfigured(
            "Traces need the extra `observe`: pip install 'citewell[observe]', or unset the endpoint."
        ) from error
    session = requests.Session()
    session.trust_env = False
    whole = endpoint.rstrip("/")
    whole = whole if whole.endswith(PATH) else whole + PATH
    resource = Resource.create({"service.version": product_version(), "citewell.process": kind})
    if resource.attributes.get("service.name") in {None, "unknown_service"}:
        resource = resource.merge(Resource({"service.name": "citewell"}))
    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)), resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(whole, timeout=SECONDS, session=session)))
    return provider


class OpenTelemetry:
    """A `rag.telemetry.Tracer` over a provider."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("citewell", product_version())
        self._wire = TraceContextTextMapPropagator()
        self._kinds = {True: SpanKind.SERVER, False: SpanKind.INTERNAL}

    def begin(self, name: str, within: str | None, facts: Mapping[str, Fact], ago: float = 0.0) -> Stretch:
        """See `rag.telemetry.Tracer`; a ``within`` that is no ``traceparent`` begins a trace of its own."""
        from opentelemetry.context import Context

        context = self._wire.extract({"traceparent": within} if within else {}, Context())
        kind = self._kinds[name == FROM_OUTSIDE]
        start = time.time_ns() - round(ago * 1e9)
        return Stretch(self._tracer.start_span(name, context, kind, _named(facts), start_time=start))


class Stretch:
    """A `rag.telemetry.Span`."""

    def __init__(self, span: Span) -> None:
        self._span = span
        known = span.get_span_context()
        self.place = f"00-{known.trace_id:032x}-{known.span_id:016x}-{int(known.trace_flags):02x}"

    def rename(self, name: str) -> None:
        """See `rag.telemetry.Span`."""
        self._span.update_name(name)

    def tell(self, **facts: Fact) -> None:
        """See `rag.telemetry.Span`."""
        self._span.set_attributes(_named(facts))

    def end(self, failed: str | None = None, *, ago: float = 0.0) -> None:
        """See `rag.telemetry.Span`."""
        from opentelemetry.trace import Status, StatusCode

        if not self._span.is_recording():
            return
        if failed is not None:
            self._span.set_attribute("error.type", failed)
            self._span.set_status(Status(StatusCode.ERROR, failed))
        self._span.end(time.time_ns() - round(ago * 1e9))


def _named(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    """Return facts under names of ours, but for those that have one of the conventions already."""
    return {name if "." in name else f"citewell.{name}": fact for name, fact in facts.items()}
