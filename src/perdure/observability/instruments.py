"""One instrument, two audiences: what is counted shows in a Prometheus registry and, if there is one, in a meter.

Figures are plain numbers that a scrape reads: a turn counts some twenty things, and Prometheus' own instruments take
a lock for each. So they are counted in one thread only, that of the event loop; any thread may scrape.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

if TYPE_CHECKING:
    from opentelemetry import metrics as otel


class Number:
    """One series of a counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Spread:
    """One series of a histogram: how many values fell into each bucket, the last one without a bound, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0


Cell = TypeVar("Cell", Number, Spread)


class Series(Generic[Cell]):
    """The series of one instrument by their labels, in whatever order a caller names them."""

    __slots__ = ("_by_call", "_by_value", "_make", "names")

    def __init__(self, names: Sequence[str], make: Callable[[], Cell]) -> None:
        self.names = tuple(str(name) for name in names)
        self._make: Callable[[], Cell] = make
        self._by_call: dict[tuple[tuple[str, str], ...], Cell] = {}
        self._by_value: dict[tuple[str, ...], Cell] = {}
        if not names:
            self.of({})

    def of(self, labels: Mapping[str, str]) -> Cell:
        """The series with these labels. Raises: ValueError when they are not the instrument's."""
        key = tuple(labels.items())
        found = self._by_call.get(key)
        if found is None:
            found = self._by_call[key] = self._first(labels)
        return found

    def _first(self, labels: Mapping[str, str]) -> Cell:
        if labels.keys() != set(self.names):
            raise ValueError(f"labels are {', '.join(self.names) or 'none'}; got {', '.join(labels) or 'none'}")
        values = tuple(str(labels[name]) for name in self.names)
        return self._by_value.setdefault(values, self._make())

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], Cell]]:
        return iter(list(self._by_value.items()))  # copied at one stroke: a scrape may run beside the counting


class BothCounter:
    """A `Counter` for Prometheus and OpenTelemetry."""

    __slots__ = ("_name", "_otel", "_series", "_text")

    def __init__(self, name: str, text: str, labels: Sequence[str], twin: otel.Counter | None) -> None:
        self._name, self._text = name, text
        self._series = Series(labels, Number)
        self._otel = twin

    def add(self, amount: float = 1, **labels: str) -> None:
        self._series.of(labels).value += amount
        if self._otel is not None:
            self._otel.add(amount, labels)

    def collect(self) -> Iterable[Metric]:
        """For the registry: the figures now."""
        family = CounterMetricFamily(self._name, self._text, labels=self._series.names)
        for values, number in self._series:
            family.add_metric(values, number.value)
        return (family,)

    describe = collect


class BothHistogram:
    """A `Histogram` for Prometheus and OpenTelemetry."""

    __slots__ = ("_bounds", "_name", "_otel", "_series", "_text")

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], twin: otel.Histogram | None
    ) -> None:
        self._name, self._text, self._bounds = name, text, tuple(bounds)
        self._series = Series(labels, lambda: Spread(bounds))
        self._otel = twin

    def observe(self, value: float, **labels: str) -> None:
        spread = self._series.of(labels)
        spread.counts[bisect_left(self._bounds, value)] += 1  # a bound belongs to its bucket
        spread.total += value
        if self._otel is not None:
            self._otel.record(value, labels)

    def collect(self) -> Iterable[Metric]:
        """For the registry: the figures now."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._series.names)
        bounds = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
        for values, spread in self._series:
            buckets = list(zip(bounds, map(float, accumulate(spread.counts)), strict=True))
            family.add_metric(values, buckets, spread.total)
        return (family,)

    describe = collect


class BothGauge:
    """A `Gauge` for Prometheus and OpenTelemetry."""

    __slots__ = ("_name", "_otel", "_series", "_text")

    def __init__(self, name: str, text: str, labels: Sequence[str], twin: otel._Gauge | None) -> None:
        self._name, self._text = name, text
        self._series = Series(labels, Number)
        self._otel = twin

    def set(self, value: float, **labels: str) -> None:
        self._series.of(labels).value = value
        if self._otel is not None:
            self._otel.set(value, labels)

    def collect(self) -> Iterable[Metric]:
        """For the registry: the figures now."""
        family = GaugeMetricFamily(self._name, self._text, labels=self._series.names)
        for values, number in self._series:
            family.add_metric(values, number.value)
        return (family,)

    describe = collect


class Instruments:
    """Makes them."""

    def __init__(self, registry: CollectorRegistry, meter: otel.Meter | None) -> None:
        self._registry = registry
        self._meter = meter

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> BothCounter:
        """A counter in both worlds."""
        twin = self._meter.create_counter(str(name), description=text) if self._meter else None
        made = BothCounter(str(name), text, labels, twin)
        self._registry.register(made)
        return made

    def histogram(self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float]) -> BothHistogram:
        """A histogram of seconds in both worlds."""
        twin = self._meter.create_histogram(str(name), unit="s", description=text) if self._meter else None
        made = BothHistogram(str(name), text, labels, buckets, twin)
        self._registry.register(made)
        return made

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> BothGauge:
        """A gauge in both worlds."""
        twin = self._meter.create_gauge(str(name), description=text) if self._meter else None
        made = BothGauge(str(name), text, labels, twin)
        self._registry.register(made)
        return made
