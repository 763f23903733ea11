"""Reads the sensors once for each run."""

from __future__ import annotations

from typing import Any

from agents.data_collector.logic import ANOMALY_CHANCE, collect

from perdure import StepAgent, StepContext
from perdure.errors import Invalid

collector = StepAgent("data_collector")


@collector.step(name="collect", effect="idempotent")
async def collect_readings(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    """Readings of all sensors. The run's input may give `anomaly_chance` (0 to 1)."""
    chance = _chance(message["data"])
    now = context.now()
    readings = collect(context.key, now, chance)  # seeded by the key, so a repeated call reads the same values
    number = (await context.get_state()).get("collection_count", 0) + 1
    await context.set_memory(f"raw_data_{number}", readings)
    await context.update_state(
        collection_count=number, last_collection_time=now, sources=list(readings), status="active"
    )
    return {"collection_id": number, "readings": readings}


def _chance(data: Any) -> float:
    chance = data.get("anomaly_chance", ANOMALY_CHANCE) if isinstance(data, dict) else ANOMALY_CHANCE
    if isinstance(chance, bool) or not isinstance(chance, int | float) or not 0 <= chance <= 1:
        raise Invalid("anomaly_chance_wrong", f"anomaly_chance must be a number from 0 to 1; got {chance!r}")
    return float(chance)
