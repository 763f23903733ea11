"""A pipeline run as people and HTTP see it."""

from __future__ import annotations

import orjson

from perdure.errors import NotFound
from perdure.pipeline.state import PipelineState, Step, StepStatus
from perdure.run.control import Control
from perdure.types import Json, JsonObject


def describe(state: PipelineState, control: Control, run: int) -> JsonObject:
    """The run: `pipeline, key, status, input, outputs` (by step), `steps`, moments, and where there is such `error`.

    Raises: NotFound (`run_unknown`).
    """
    info = control.run(run)
    if info is None:
        raise NotFound("run_unknown", f"run {run} is unknown; check the id")
    shown: JsonObject = {
        "pipeline": state.pipeline,
        "key": info.key,
        "status": "paused" if info.paused else info.status,
        "input": orjson.loads(state.input),
        "outputs": {name: orjson.loads(step.output) for name, step in state.steps.items() if step.output},
        "steps": [_step(step) for step in state.steps.values()],
        "accepted_at": state.accepted_at,
        "ended_at": state.ended_at or None,
    }
    if "error" in info.result:
        shown["error"] = info.result["error"]
    if "reason" in info.result:
        shown["reason"] = info.result["reason"]
    return shown


def _step(step: Step) -> Json:
    shown: JsonObject = {
        "step": step.spec.name,
        "app": step.spec.app or None,
        "depends_on": list(step.spec.depends_on),
        "status": step.status.value,
        "attempts": step.attempt,
        "ready_at": step.ready_at or None,
        "started_at": step.started_at or step.ready_at or None,
        "ended_at": step.ended_at or None,
    }
    if step.status is StepStatus.RETRYING:
        shown["next_attempt_at"] = step.due
    if step.fault is not None:
        shown["error"] = {"code": step.fault.code, "message": step.fault.message}
    if step.because:
        shown["skipped_because"] = f"{step.because} had no output"
    return shown
