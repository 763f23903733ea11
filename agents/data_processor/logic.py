"""Normalising readings: pure."""

from __future__ import annotations

from typing import Any


def normalise(value: float, minimum: float, maximum: float) -> float:
    """Where `value` lies between `minimum` (0) and `maximum` (1); outside it is below 0 or above 1.

    Raises: ValueError when the range is empty.
    """
    if maximum <= minimum:
        raise ValueError(f"the range from {minimum} to {maximum} is empty")
    return (value - minimum) / (maximum - minimum)


def process(readings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every reading with its `normalized` value."""
    return {source: {**reading, "normalized": round(_normalised(reading), 4)} for source, reading in readings.items()}


def _normalised(reading: dict[str, Any]) -> float:
    return normalise(reading["value"], reading["minimum"], reading["maximum"])


def average(before: float, count: int, latest: float) -> float:
    """The average over `count` values, of which `before` was the average of all but the `latest`."""
    return (before * (count - 1) + latest) / count
