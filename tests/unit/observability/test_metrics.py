"""Metrics for Prometheus and OpenTelemetry from one place."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from perdure.observability.metrics import make_metrics


def test_what_is_counted_shows_up_in_the_registry_given() -> None:
    registry = CollectorRegistry()
    metrics = make_metrics(registry)
    metrics.turns.add(agent="a", status="done")
    metrics.turns.add(2, agent="a", status="failed")
    metrics.store_write_seconds.observe(0.0011, store="s")
    metrics.active_runs.set(3)
    text = generate_latest(registry).decode()
    assert 'perdure_turns_total{agent="a",status="failed"} 2.0' in text
    assert 'perdure_store_write_seconds_bucket{le="0.002",store="s"} 1.0' in text
    assert "perdure_active_runs 3.0" in text


def test_a_value_on_a_bound_counts_in_its_bucket_and_every_larger_one() -> None:
    registry = CollectorRegistry()
    metrics = make_metrics(registry)
    for value in (0.005, 0.0051, 1000.0):
        metrics.turn_seconds.observe(value, agent="a")

    def below(bound: str) -> float | None:
        return registry.get_sample_value("perdure_turn_seconds_bucket", {"agent": "a", "le": bound})

    assert [below("0.005"), below("0.01"), below("300.0"), below("+Inf")] == [1, 2, 2, 3]
    assert registry.get_sample_value("perdure_turn_seconds_count", {"agent": "a"}) == 3
    assert registry.get_sample_value("perdure_turn_seconds_sum", {"agent": "a"}) == 0.005 + 0.0051 + 1000.0


def test_labels_are_the_same_in_any_order_and_never_others() -> None:
    registry = CollectorRegistry()
    metrics = make_metrics(registry)
    metrics.turns.add(agent="a", status="done")
    metrics.turns.add(status="done", agent="a")
    with pytest.raises(ValueError, match="labels are agent, status; got agent"):
        metrics.turns.add(agent="a")
    assert registry.get_sample_value("perdure_turns_total", {"agent": "a", "status": "done"}) == 2


def test_two_services_in_one_process_do_not_share_figures() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    make_metrics(first).adoptions.add(reason="start")
    make_metrics(second)
    assert first.get_sample_value("perdure_adoptions_total", {"reason": "start"}) == 1
    assert second.get_sample_value("perdure_adoptions_total", {"reason": "start"}) is None


def test_the_same_figures_go_to_opentelemetry() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    metrics = make_metrics(meter=provider.get_meter("perdure"))
    metrics.model_tokens.add(7, model="m", direction="input")
    metrics.turn_seconds.observe(1.5, agent="a")
    metrics.active_runs.set(2)
    data = reader.get_metrics_data()
    assert data is not None
    found = {each.name for each in data.resource_metrics[0].scope_metrics[0].metrics}
    provider.shutdown()
    assert found == {"perdure_model_tokens", "perdure_turn_seconds", "perdure_active_runs"}


def test_tools_and_models_load_nothing_heavy() -> None:
    heavy = "openai grpc structlog opentelemetry prometheus_client rich httpx2 fastapi dapr"
    code = (
        "import perdure.tools, perdure.llm, perdure.settings, perdure.observability.tracing, sys\n"
        "import perdure.observability.metrics\n"
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
