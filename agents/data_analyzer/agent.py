"""Looks for anomalies in processed readings."""

from __future__ import annotations

from typing import Any

from agents.data_analyzer.logic import anomalies

from perdure import StepAgent, StepContext

analyzer = StepAgent("data_analyzer")


@analyzer.step(name="analyze", effect="idempotent")
async def analyze_readings(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    """What was found, and how many sources were looked at."""
    data = message["data"]
    found = anomalies(data["processed"])
    results = {"sources": len(data["processed"]), "anomalies": found, "timestamp": context.now()}
    state = await context.get_state()
    count = state.get("analysis_count", 0) + 1
    await context.set_memory(f"analysis_results_{count}", results)
    await context.update_state(
        analysis_count=count,
        last_analysis_time=results["timestamp"],
        anomaly_count=state.get("anomaly_count", 0) + len(found),
        status="active",
    )
    return {"collection_id": data["collection_id"], **results}
