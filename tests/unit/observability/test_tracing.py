"""Spans when tracing is on, nearly nothing when it is off, and trace context that passes through."""

from __future__ import annotations

import timeit
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from perdure.errors import Failed, Invalid
from perdure.observability.context import is_trace_parent, received_trace
from perdure.observability.names import Attribute, SpanName
from perdure.observability.tracing import (
    Tracer,
    configure_tracing,
    current_trace_parent,
    trace_headers,
    trace_metadata,
    tracer_of,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exported: InMemorySpanExporter) -> Iterator[TracerProvider]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported))
    yield provider
    provider.shutdown()


def ended(exported: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exported.get_finished_spans()}


def test_spans_nest_and_carry_attributes(provider: TracerProvider, exported: InMemorySpanExporter) -> None:
    tracer = tracer_of(provider)
    outer = tracer.span(f"{SpanName.TURN} concierge", {Attribute.AGENT_NAME: "concierge"})
    with outer, tracer.span(f"{SpanName.MODEL_CALL} m") as span:
        assert span.recording
        span.set(Attribute.INPUT_TOKENS, 7)
    spans = ended(exported)
    turn, chat = spans["invoke_agent concierge"], spans["chat m"]
    assert turn.attributes == {"gen_ai.agent.name": "concierge"}
    assert chat.attributes == {"gen_ai.usage.input_tokens": 7}
    assert chat.parent is not None
    assert chat.parent.span_id == turn.context.span_id


def test_a_failure_marks_the_span_without_its_text(provider: TracerProvider, exported: InMemorySpanExporter) -> None:
    with pytest.raises(Failed), tracer_of(provider).span("chat m"):
        raise Failed("model_rejected", "what the user said")
    span = ended(exported)["chat m"]
    assert span.attributes == {"error.type": "model_rejected"}
    assert span.status.status_code.name == "ERROR"
    assert "what the user said" not in span.to_json()


@pytest.mark.parametrize("contents", [False, True])
def test_contents_are_left_out_unless_wanted(
    contents: bool, provider: TracerProvider, exported: InMemorySpanExporter
) -> None:
    with tracer_of(provider, contents=contents).span("execute_tool t", {Attribute.TOOL_ARGUMENTS: "{}"}) as span:
        span.set(Attribute.TOOL_RESULT, "secret")
    shown = {"gen_ai.tool.call.arguments": "{}", "gen_ai.tool.call.result": "secret"} if contents else {}
    assert ended(exported)["execute_tool t"].attributes == shown


def test_a_received_trace_is_continued_and_sent_on(provider: TracerProvider, exported: InMemorySpanExporter) -> None:
    with received_trace(PARENT), tracer_of(provider).span("here"):
        sent = trace_headers()["traceparent"]
    span = ended(exported)["here"]
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == TRACE
    assert sent == f"00-{TRACE}-{span.context.span_id:016x}-01"


def test_a_run_accepted_elsewhere_keeps_its_trace(provider: TracerProvider, exported: InMemorySpanExporter) -> None:
    tracer = tracer_of(provider)
    with tracer.span("sweep"), tracer.span("turn", parent=PARENT):
        pass
    assert TRACE in ended(exported)["turn"].to_json()


def test_a_trace_passes_through_a_service_that_does_not_trace() -> None:
    with received_trace(PARENT), Tracer().span("nothing"):
        assert trace_metadata() == (("traceparent", PARENT),)
    assert current_trace_parent() == ""


@pytest.mark.parametrize(
    "text",
    ["", "x", PARENT[:-1], PARENT.upper(), f"00-{'0' * 32}-b7ad6b7169203331-01", f"ff{PARENT[2:]}", PARENT + "-x"],
)
def test_a_malformed_trace_parent_is_ignored(text: str) -> None:
    assert not is_trace_parent(text)
    with received_trace(PARENT), received_trace(text):
        assert current_trace_parent() == PARENT


def test_without_an_endpoint_tracing_is_off_and_costs_nearly_nothing() -> None:
    tracer = configure_tracing(None, service="x")
    assert not tracer.on

    def once() -> None:
        with tracer.span("chat m"):
            pass

    assert min(timeit.repeat(once, number=10_000, repeat=5)) / 10_000 < 1e-6


def test_a_wrong_endpoint_is_refused() -> None:
    with pytest.raises(Invalid, match="http://localhost:4318"):
        configure_tracing("collector:4317", service="x")


def test_with_an_endpoint_tracing_is_on() -> None:
    tracer = configure_tracing("http://127.0.0.1:9", service="x")
    assert tracer.on
    tracer.close()


def test_what_is_over_is_recorded_once_with_its_own_times(
    provider: TracerProvider, exported: InMemorySpanExporter
) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    tracer = tracer_of(provider)
    ended = began + timedelta(seconds=2)
    tracer.record("invoke_agent a", {"perdure.run": "r"}, parent=parent, began=began, ended=ended)
    (span,) = exported.get_finished_spans()
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == 2_000_000_000
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == "ab" * 16
