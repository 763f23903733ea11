"""One instrument, two audiences: what is counted goes to a Prometheus registry and, if there is one, to a meter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import prometheus_client as prometheus

if TYPE_CHECKING:
    from opentelemetry import metrics as otel


Instrument = TypeVar("Instrument", prometheus.Counter, prometheus.Histogram, prometheus.Gauge)


class Series(Generic[Instrument]):
    """The series of one instrument by their labels. Found once: finding one again takes longer than adding to it."""

    __slots__ = ("_found", "_instrument")

    def __init__(self, instrument: Instrument, labelled: bool) -> None:
        self._instrument: Instrument = instrument
        self._found: dict[tuple[tuple[str, str], ...], Instrument] = {} if labelled else {(): instrument}

    def of(self, labels: Mapping[str, str]) -> Instrument:
        """The series with these labels."""
        key = tuple(labels.items())
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._instrument.labels(**labels)
        return found


class BothCounter:
    """A `Counter` for Prometheus and OpenTelemetry."""

    __slots__ = ("_otel", "_series")

    def __init__(self, counter: prometheus.Counter, twin: otel.Counter | None, labelled: bool) -> None:
        self._series = Series(counter, labelled)
        self._otel = twin

    def add(self, amount: float = 1, **labels: str) -> None:
        self._series.of(labels).inc(amount)
        if self._otel is not None:
            self._otel.add(amount, labels)


class BothHistogram:
    """A `Histogram` for Prometheus and OpenTelemetry."""

    __slots__ = ("_otel", "_series")

    def __init__(self, histogram: prometheus.Histogram, twin: otel.Histogram | None, labelled: bool) -> None:
        self._series = Series(histogram, labelled)
        self._otel = twin

    def observe(self, value: float, **labels: str) -> None:
        self._series.of(labels).observe(value)
        if self._otel is not None:
            self._otel.record(value, labels)


class BothGauge:
    """A `Gauge` for Prometheus and OpenTelemetry."""

    __slots__ = ("_otel", "_series")

    def __init__(self, gauge: prometheus.Gauge, twin: otel._Gauge | None, labelled: bool) -> None:
        self._series = Series(gauge, labelled)
        self._otel = twin

    def set(self, value: float, **labels: str) -> None:
        self._series.of(labels).set(value)
        if self._otel is not None:
            self._otel.set(value, labels)


class Instruments:
    """Makes them."""

    def __init__(self, registry: prometheus.CollectorRegistry, meter: otel.Meter | None) -> None:
        self._registry = registry
        self._meter = meter

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> BothCounter:
        """A counter in both worlds."""
        made = prometheus.Counter(str(name), text, _names(labels), registry=self._registry)
        return BothCounter(
            made, self._meter.create_counter(str(name), description=text) if self._meter else None, bool(labels)
        )

    def histogram(self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> BothHistogram:
        """A histogram of seconds in both worlds."""
        made = prometheus.Histogram(str(name), text, _names(labels), registry=self._registry, buckets=tuple(buckets))
        twin = self._meter.create_histogram(str(name), unit="s", description=text) if self._meter else None
        return BothHistogram(made, twin, bool(labels))

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> BothGauge:
        """A gauge in both worlds."""
        made = prometheus.Gauge(str(name), text, _names(labels), registry=self._registry)
        return BothGauge(
            made, self._meter.create_gauge(str(name), description=text) if self._meter else None, bool(labels)
        )


def _names(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(label) for label in labels)
