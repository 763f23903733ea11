"""Spans. Off unless an endpoint is given; then each costs well under a microsecond."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from perdure.errors import Invalid, PerdureError
from perdure.observability.context import received_trace_parent
from perdure.observability.names import CONTENT_ATTRIBUTES, Attribute

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer as OtelTracer

AttributeValue: TypeAlias = "str | bool | int | float | list[str]"
Attributes: TypeAlias = Mapping[str, AttributeValue]

TRACE_PARENT = "traceparent"


class Span:
    """A piece of work being traced; this one is what `Tracer` gives when tracing is off."""

    __slots__ = ()

    @property
    def recording(self) -> bool:
        """Whether anybody will see it; ask before computing an attribute that costs something."""
        return False

    def set(self, name: str, value: AttributeValue) -> None:
        """Add an attribute."""

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_OFF = Span()


class RecordedSpan(Span):
    """A span that is exported. An exception that leaves it marks it as failed, without the exception's text."""

    __slots__ = ("_contents", "_open", "_span")

    def __init__(self, opening: AbstractContextManager[OtelSpan], contents: bool) -> None:
        self._open = opening
        self._contents = contents
        self._span: OtelSpan | None = None

    @property
    def recording(self) -> bool:
        return True

    def set(self, name: str, value: AttributeValue) -> None:
        if self._span is not None and (self._contents or name not in CONTENT_ATTRIBUTES):
            self._span.set_attribute(str(name), value)

    def __enter__(self) -> Span:
        self._span = self._open.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and isinstance(error, Exception):
            self._mark_failed(error)
        self._open.__exit__(kind, error, trace)

    def _mark_failed(self, error: Exception) -> None:
        from opentelemetry.trace import StatusCode

        if self._span is not None:
            name = error.code if isinstance(error, PerdureError) else type(error).__qualname__
            self._span.set_attribute(Attribute.ERROR_TYPE.value, name)
            self._span.set_status(StatusCode.ERROR, name)


class Tracer:
    """Makes spans. Handed around like a clock; without an OpenTelemetry tracer inside it does nothing."""

    __slots__ = ("_close", "_contents", "_tracer")

    def __init__(
        self, tracer: OtelTracer | None = None, *, contents: bool = False, close: Callable[[], None] | None = None
    ) -> None:
        self._tracer = tracer
        self._contents = contents
        self._close = close

    @property
    def on(self) -> bool:
        """Whether spans are recorded."""
        return self._tracer is not None

    def span(self, name: str, attributes: Attributes | None = None, *, parent: str = "") -> Span:
        """`with tracer.span("chat gpt-5", {...}) as span:` – a child of the current span.

        `parent` is a W3C `traceparent` to belong to instead (of a run that was accepted earlier or elsewhere);
        without it and without a current span, the one that the work was received with.
        """
        if self._tracer is None:
            return _OFF
        kept = {str(key): value for key, value in (attributes or {}).items() if self._may_show(key)}
        opening = self._tracer.start_as_current_span(
            name,
            context=_context_of(parent),
            attributes=kept,
            record_exception=False,
            set_status_on_exception=False,
        )
        return RecordedSpan(opening, self._contents)

    def record(
        self, name: str, attributes: Attributes, *, parent: str, began: datetime, ended: datetime, failed: bool = False
    ) -> None:
        """A span of something that is over, and perhaps began in another process."""
        if self._tracer is None:
            return
        from opentelemetry.trace import StatusCode

        kept = {str(key): value for key, value in attributes.items() if self._may_show(key)}
        span = self._tracer.start_span(
            name, context=_context_of(parent), attributes=kept, start_time=int(began.timestamp() * 1e9)
        )
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(int(ended.timestamp() * 1e9))

    def close(self) -> None:
        """Export what is still held back; blocks for some seconds at most."""
        if self._close is not None:
            self._close()

    def _may_show(self, name: str) -> bool:
        return self._contents or name not in CONTENT_ATTRIBUTES


def configure_tracing(
    endpoint: str | None, *, service: str, contents: bool = False, for_libraries: bool = False
) -> Tracer:
    """A tracer that exports to `endpoint` over OTLP/HTTP (like `http://localhost:4318`), or one that is off.

    With `for_libraries` the provider becomes the process's own, so that FastAPI traces its requests too; that can
    be done once in a process.

    Raises: Invalid (code `otlp_endpoint_wrong`).
    """
    if not endpoint:
        return Tracer()
    checked = signal_url(endpoint, "traces")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=checked)))
    if for_libraries:
        from opentelemetry import trace

        trace.set_tracer_provider(provider)
    return tracer_of(provider, contents=contents)


def tracer_of(provider: TracerProvider, *, contents: bool = False) -> Tracer:
    """A tracer over a provider that the caller has set up."""
    return Tracer(provider.get_tracer("perdure"), contents=contents, close=provider.shutdown)


def signal_url(endpoint: str, signal: str) -> str:
    """Where `signal` (traces, metrics) goes: the endpoint is a base address, as OTEL_EXPORTER_OTLP_ENDPOINT is.

    Raises: Invalid (code `otlp_endpoint_wrong`).
    """
    if not endpoint.startswith(("http://", "https://")):
        raise Invalid("otlp_endpoint_wrong", f"OTLP endpoint {endpoint!r} must be like http://localhost:4318")
    return f"{endpoint.rstrip('/')}/v1/{signal}"


def current_trace_parent() -> str:
    """The `traceparent` to send on: of the current span, else the one received, else empty.

    So a trace passes through a service that does not trace itself.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")  # not loaded: nobody has opened a span
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    return received_trace_parent()


def trace_headers() -> dict[str, str]:
    """Headers that carry the trace; empty when there is none."""
    parent = current_trace_parent()
    return {TRACE_PARENT: parent} if parent else {}


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """The same as gRPC metadata."""
    return tuple(trace_headers().items())


def _context_of(parent: str) -> Any:
    """The OpenTelemetry context to start a span in; None means the current one."""
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    if not parent:
        if trace.get_current_span().get_span_context().is_valid:
            return None
        parent = received_trace_parent()
    return TraceContextTextMapPropagator().extract({TRACE_PARENT: parent}) if parent else None
