"""Counters and times, for Prometheus and, when an OTLP endpoint is set, for OpenTelemetry.

The registry is an object that the caller makes and hands in, so two services in one process do not share figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from perdure.observability.names import Label, MetricName
from perdure.observability.tracing import signal_url

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import CollectorRegistry

FAST_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""For store writes: one through the sidecar takes about a millisecond."""

SLOW_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""For turns, tools and models: from a scripted model to a long chain of tools."""


class Counter(Protocol):
    """A number that only grows."""

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add `amount`; every label of the metric must be given."""
        ...


class Histogram(Protocol):
    """How values are spread."""

    def observe(self, value: float, **labels: str) -> None:
        """Note one value, in the metric's unit."""
        ...


class Gauge(Protocol):
    """A number that goes up and down."""

    def set(self, value: float, **labels: str) -> None:
        """The value now."""
        ...


@dataclass(frozen=True, slots=True)
class Metrics:
    """All metrics of a service. Labels in brackets."""

    turns: Counter  # [agent, status]
    turn_seconds: Histogram  # [agent]
    steps: Counter  # [kind]
    tool_calls: Counter  # [tool, outcome]
    tool_seconds: Histogram  # [tool]
    model_calls: Counter  # [model, outcome]
    model_seconds: Histogram  # [model]
    model_tokens: Counter  # [model, direction]
    store_writes: Counter  # [store, outcome]
    store_write_seconds: Histogram  # [store]
    store_write_bytes: Counter  # [store]
    conflicts: Counter  # [store]
    claims: Counter  # [kind]
    adoptions: Counter  # [reason]
    parked_runs: Counter  # [reason]
    active_runs: Gauge


def make_metrics(registry: CollectorRegistry | None = None, meter: Meter | None = None) -> Metrics:
    """Metrics that show up in `registry` (a new one if not given) and, if given, in `meter`."""
    from prometheus_client import CollectorRegistry

    from perdure.observability.instruments import Instruments

    make = Instruments(registry if registry is not None else CollectorRegistry(), meter)
    agent, kind, tool, model, store, reason = (
        (Label.AGENT,), (Label.KIND,), (Label.TOOL,), (Label.MODEL,), (Label.STORE,), (Label.REASON,),
    )  # fmt: skip
    return Metrics(
        turns=make.counter(MetricName.TURNS, "Turns that ended", (*agent, Label.STATUS)),
        turn_seconds=make.histogram(MetricName.TURN_SECONDS, "From accepted to ended", agent, SLOW_BUCKETS_S),
        steps=make.counter(MetricName.STEPS, "Actions of runs", kind),
        tool_calls=make.counter(MetricName.TOOL_CALLS, "Tool calls", (*tool, Label.OUTCOME)),
        tool_seconds=make.histogram(MetricName.TOOL_SECONDS, "Duration of tool calls", tool, SLOW_BUCKETS_S),
        model_calls=make.counter(MetricName.MODEL_CALLS, "Model calls", (*model, Label.OUTCOME)),
        model_seconds=make.histogram(MetricName.MODEL_SECONDS, "Duration of model calls", model, SLOW_BUCKETS_S),
        model_tokens=make.counter(MetricName.MODEL_TOKENS, "Tokens as reported", (*model, Label.DIRECTION)),
        store_writes=make.counter(MetricName.STORE_WRITES, "Writes to state stores", (*store, Label.OUTCOME)),
        store_write_seconds=make.histogram(MetricName.STORE_WRITE_SECONDS, "Duration of writes", store, FAST_BUCKETS_S),
        store_write_bytes=make.counter(MetricName.STORE_WRITE_BYTES, "Bytes written", store),
        conflicts=make.counter(MetricName.CONFLICTS, "Writes that somebody else preceded", store),
        claims=make.counter(MetricName.CLAIMS, "Runs claimed by this replica", kind),
        adoptions=make.counter(MetricName.ADOPTIONS, "Runs taken over from another life or replica", reason),
        parked_runs=make.counter(MetricName.PARKED_RUNS, "Runs given up as broken", reason),
        active_runs=make.gauge(MetricName.ACTIVE_RUNS, "Runs this replica drives now"),
    )


def otlp_meter_provider(endpoint: str, *, service: str, every_s: float = 15.0) -> MeterProvider:
    """Exports metrics to `endpoint` over OTLP/HTTP each `every_s`; `.get_meter("perdure")` is for `make_metrics`.

    The caller shuts it down. Raises: Invalid (code `otlp_endpoint_wrong`).
    """
    checked = signal_url(endpoint, "metrics")
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=checked), export_interval_millis=every_s * 1000)
    resource = Resource.create({"service.name": service})
    return MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
