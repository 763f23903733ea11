"""Finding anomalies: pure. A value is one when it is above its sensor's threshold."""

from __future__ import annotations

from typing import Any


def anomalies(processed: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The anomalies, in the order of the sources."""
    return [
        {"source": source, "value": reading["value"], "threshold": reading["threshold"]}
        for source, reading in processed.items()
        if reading["value"] > reading["threshold"]
    ]
