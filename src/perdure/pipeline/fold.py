"""How each event changes a pipeline run. Pure: no clock, no random, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from perdure.pipeline.events import RetryPlanned, StepGaveUp, StepReady, StepSkipped
from perdure.pipeline.graph import load_graph
from perdure.pipeline.state import Fault, PipelineState, Step, StepStatus
from perdure.run.control import Position
from perdure.run.event import Accepted, Closed, Event, Reserved, Settled, TimerFired

FOLD_VERSION = "1"

UNKNOWN = "outcome_unknown"
"""Code of a step of which nobody can say whether it happened."""

_UNSETTLED = frozenset({StepStatus.READY, StepStatus.RUNNING})


def retry_timer(key: str) -> str:
    """Name of the timer that begins the attempt with `key`."""
    return f"retry:{key}"


def fold(state: PipelineState, event: Event, at: Position) -> PipelineState:
    """The run after `event`."""
    folder = _FOLDERS.get(type(event))
    return state if folder is None else folder(state, event, at)


def _accepted(state: PipelineState, event: Accepted, at: Position) -> PipelineState:
    if state.run:
        return state
    graph = load_graph(event.payload.get("graph"))
    return PipelineState(
        run=at.n,
        pipeline=event.kind.partition("/")[2],
        input=orjson.dumps(event.payload.get("input")).decode(),
        accepted_at=at.at,
        steps={spec.name: Step(spec) for spec in graph},
    )


def _put(state: PipelineState, step: Step) -> PipelineState:
    return replace(state, steps={**state.steps, step.spec.name: step})


def _ready(state: PipelineState, event: StepReady, at: Position) -> PipelineState:
    step = state.steps.get(event.step)
    if step is None or step.status is not StepStatus.WAITING:
        return state
    key = _key(state, step, at)
    return _put(state, replace(step, status=StepStatus.READY, key=key, origin=key, attempt=1, ready_at=at.at))


def _key(state: PipelineState, step: Step, at: Position) -> str:
    """`{run}.{commit of the decision}.{index of the step}`: the same after any crash, never given twice."""
    return f"{state.run}.{at.n}.{list(state.steps).index(step.spec.name)}"


def _skipped(state: PipelineState, event: StepSkipped, at: Position) -> PipelineState:
    step = state.steps.get(event.step)
    if step is None or step.status is not StepStatus.WAITING:
        return state
    return _put(state, replace(step, status=StepStatus.SKIPPED, because=event.because, ended_at=at.at))


def _by_key(state: PipelineState, key: str) -> Step | None:
    return next((step for step in state.steps.values() if step.key == key), None)


def _reserved(state: PipelineState, event: Reserved, at: Position) -> PipelineState:
    step = _by_key(state, event.key)
    if step is None or step.status not in _UNSETTLED:
        return state
    began = step.started_at or at.at
    return _put(state, replace(step, status=StepStatus.RUNNING, calls=step.calls + 1, started_at=began))


def _settled(state: PipelineState, event: Settled, at: Position) -> PipelineState:
    step = _by_key(state, event.key)
    if step is None or step.status not in _UNSETTLED:
        return state
    step = replace(step, calls=max(step.calls, step.attempt), ended_at=at.at)
    if not event.ok:
        fault = _fault(event)
        return _put(state, replace(step, status=StepStatus.STUMBLED, fault=fault))
    output = "" if event.content == "null" else event.content
    step = replace(step, status=StepStatus.DONE, output=output, order=state.settled + 1, fault=None)
    return replace(_put(state, step), settled=state.settled + 1)


def _fault(event: Settled) -> Fault:
    """What `do` recorded, or the plain words of the planner."""
    if event.unknown:
        return Fault(UNKNOWN, event.content, retryable=False)
    try:
        said = orjson.loads(event.content)
    except orjson.JSONDecodeError:
        said = None
    if isinstance(said, dict) and "code" in said:
        return Fault(str(said["code"]), str(said.get("message", "")), bool(said.get("retryable", True)))
    return Fault("step_failed", event.content)


def _retry(state: PipelineState, event: RetryPlanned, at: Position) -> PipelineState:
    step = state.steps.get(event.step)
    if step is None or step.status is not StepStatus.STUMBLED:
        return state
    key = _key(state, step, at)
    again = replace(step, status=StepStatus.RETRYING, key=key, attempt=event.attempt, due=event.due, ended_at="")
    return _put(state, again)


def _timer(state: PipelineState, event: TimerFired, at: Position) -> PipelineState:
    for step in state.steps.values():
        if step.status is StepStatus.RETRYING and event.name == retry_timer(step.key):
            return _put(state, replace(step, status=StepStatus.READY, due=""))
    return state


def _gave_up(state: PipelineState, event: StepGaveUp, at: Position) -> PipelineState:
    step = state.steps.get(event.step)
    if step is None or step.status is not StepStatus.STUMBLED:
        return state
    fault = Fault(event.code, event.message, retryable=False)
    return _put(state, replace(step, status=StepStatus.FAILED, fault=fault))


def _closed(state: PipelineState, event: Closed, at: Position) -> PipelineState:
    return replace(state, ended_at=at.at) if event.run == state.run else state


_FOLDERS: dict[type, Callable[[PipelineState, Any, Position], PipelineState]] = {
    Accepted: _accepted,
    StepReady: _ready,
    StepSkipped: _skipped,
    Reserved: _reserved,
    Settled: _settled,
    RetryPlanned: _retry,
    TimerFired: _timer,
    StepGaveUp: _gave_up,
    Closed: _closed,
}
