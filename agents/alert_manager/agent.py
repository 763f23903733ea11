"""Raises one alert for each anomaly."""

from __future__ import annotations

from typing import Any

from agents.alert_manager.logic import alert

from perdure import StepAgent, StepContext

manager = StepAgent("alert_manager")


@manager.step(name="alert", effect="idempotent")
async def raise_alerts(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    """The alerts of this run; none is an output, too."""
    data = message["data"]
    now = context.now()
    alerts = [alert(anomaly, now) for anomaly in data["anomalies"]]
    state = await context.get_state()
    if alerts:
        await context.set_memory(f"alerts_{data['collection_id']}", alerts)
    await context.update_state(
        alert_count=state.get("alert_count", 0) + len(alerts),
        last_alert_time=now if alerts else state.get("last_alert_time"),
        status="active",
    )
    return {"collection_id": data["collection_id"], "alerts": alerts}
