"""The domain of the sensor pipeline: readings, normalising, anomalies, alerts."""

from __future__ import annotations

import pytest
from agents.alert_manager.logic import alert
from agents.data_analyzer.logic import anomalies
from agents.data_collector.logic import SENSORS, collect
from agents.data_processor.logic import average, normalise, process

SEEDS = [f"seed-{i}" for i in range(300)]


def test_without_chance_no_reading_is_above_its_threshold() -> None:
    for seed in SEEDS:
        assert anomalies(process(collect(seed, "now", 0.0))) == []


def test_with_certainty_every_collection_has_an_anomaly_within_the_range_of_its_sensor() -> None:
    for seed in SEEDS:
        readings = collect(seed, "now", 1.0)
        assert anomalies(process(readings))
        for sensor in SENSORS:
            assert sensor.low <= readings[sensor.source]["value"] <= sensor.high


def test_the_same_seed_reads_the_same_and_other_seeds_read_otherwise() -> None:
    assert collect("a", "now") == collect("a", "now")
    assert collect("a", "now") != collect("b", "now")


def test_the_chance_is_one_of_a_whole_collection() -> None:
    strange = sum(bool(anomalies(process(collect(seed, "now", 0.1)))) for seed in SEEDS)
    assert 10 <= strange <= 60


def test_normalising_maps_the_range_to_zero_to_one() -> None:
    assert (normalise(15, 15, 35), normalise(25, 15, 35), normalise(35, 15, 35)) == (0, 0.5, 1)
    with pytest.raises(ValueError, match="empty"):
        normalise(1, 2, 2)


def test_a_value_at_its_threshold_is_no_anomaly() -> None:
    assert anomalies({"s": {"value": 30.0, "threshold": 30.0}}) == []


def test_the_running_average_is_the_average() -> None:
    mean = 0.0
    for count, value in enumerate([1.0, 2.0, 6.0], start=1):
        mean = average(mean, count, value)
    assert mean == pytest.approx(3.0)


def test_an_alert_says_what_exceeds_what() -> None:
    raised = alert({"source": "temperature_sensor", "value": 35.42, "threshold": 30.0}, "now")
    assert raised["message"] == "Anomaly detected in temperature_sensor: 35.42 exceeds threshold 30.0"
    assert raised["severity"] == "medium"
