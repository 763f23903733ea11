"""Normalises the readings of a collection."""

from __future__ import annotations

from typing import Any

from agents.data_processor.logic import average, process

from perdure import StepAgent, StepContext

processor = StepAgent("data_processor")


@processor.step(name="process", effect="idempotent")
async def process_readings(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    """The readings, each with its value normalised to its range."""
    collected = message["data"]
    processed = process(collected["readings"])
    state = await context.get_state()
    count = state.get("processed_count", 0) + 1
    await context.set_memory(f"processed_data_{count}", processed)
    await context.update_state(
        processed_count=count,
        last_processed_time=context.now(),
        average_processing_time=average(state.get("average_processing_time", 0.0), count, context.elapsed_s()),
        status="active",
    )
    return {"collection_id": collected["collection_id"], "processed": processed}
