"""From anomalies to alerts: pure."""

from __future__ import annotations

from typing import Any

HIGH_ABOVE = 1.2
"""From this part of the threshold on an alert is `high`: a fifth above is no measuring error."""


def alert(anomaly: dict[str, Any], at: str) -> dict[str, Any]:
    """The alert for one anomaly."""
    source, value, threshold = anomaly["source"], anomaly["value"], anomaly["threshold"]
    return {
        "source": source,
        "value": value,
        "threshold": threshold,
        "severity": "high" if value > threshold * HIGH_ABOVE else "medium",
        "message": f"Anomaly detected in {source}: {value} exceeds threshold {threshold}",
        "timestamp": at,
    }
