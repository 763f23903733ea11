"""Simulated sensors: pure, and the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor reads between `low` and `high`; above `threshold` a value is an anomaly."""

    source: str
    unit: str
    low: float
    high: float
    threshold: float


SENSORS = (
    Sensor("temperature_sensor", "celsius", 15.0, 35.0, 30.0),
    Sensor("humidity_sensor", "percent", 30.0, 80.0, 70.0),
    Sensor("pressure_sensor", "hPa", 980.0, 1030.0, 1010.0),
)

ANOMALY_CHANCE = 0.1
"""How likely a collection holds at least one anomaly."""


def collect(seed: str, at: str, chance: float = ANOMALY_CHANCE) -> dict[str, dict[str, Any]]:
    """One reading of every sensor, by source. With probability `chance` one or more are above their threshold."""
    dice = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    strange: set[str] = set()
    if dice.random() < chance:
        count = dice.randint(1, len(SENSORS))
        strange = {sensor.source for sensor in dice.sample(SENSORS, count)}
    return {sensor.source: _reading(dice, sensor, sensor.source in strange, at) for sensor in SENSORS}


def _reading(dice: random.Random, sensor: Sensor, strange: bool, at: str) -> dict[str, Any]:
    # A hundredth above the threshold and below it: rounding never moves a value across.
    value = (
        dice.uniform(sensor.threshold + 0.01, sensor.high)
        if strange
        else dice.uniform(sensor.low, sensor.threshold - 0.01)
    )
    return {
        "value": round(value, 2),
        "unit": sensor.unit,
        "minimum": sensor.low,
        "maximum": sensor.high,
        "threshold": sensor.threshold,
        "timestamp": at,
    }
