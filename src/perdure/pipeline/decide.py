"""What a pipeline run does next. Pure: no clock, no random, no I/O; moments come from the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from perdure.effect import Effect
from perdure.messaging.message import Arrival
from perdure.pipeline.events import RetryPlanned, StepGaveUp, StepReady, StepSkipped
from perdure.pipeline.fold import retry_timer
from perdure.pipeline.graph import StepSpec
from perdure.pipeline.state import ENDED, PipelineState, Step, StepStatus
from perdure.run.control import Control
from perdure.run.event import Closed, Event
from perdure.run.kind import Act, Action, Done, Verdict, Wait

LONGEST_DELAY_S = 3600.0
"""Doubling ends here: an hour is longer than any outage one waits out without a person."""

ASKED = frozenset({StepStatus.READY, StepStatus.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class StepAction(Action):
    """Handle one step with these messages; `call` counts from 1 and grows with each retry."""

    spec: StepSpec
    origin: str
    call: int
    arrivals: tuple[Arrival, ...]


def decide(state: PipelineState, control: Control) -> Verdict:
    """Start what is ready, skip what will never be, plan retries, close the run."""
    current = control.current
    if current is None:
        return Done()
    if current.cancel is not None:
        return Act(record=(Closed(current.n, "cancelled", {"reason": current.cancel}),))
    failed = next((step for step in state.steps.values() if step.status is StepStatus.FAILED), None)
    if failed is not None:
        return _failing(state, control, failed)
    records = (*_after_faults(state), *_after_outputs(state))
    if records:
        return Act(record=records)
    if all(step.status in ENDED for step in state.steps.values()):
        return Act(record=(Closed(state.run, "done"),))
    timers = tuple(
        (retry_timer(step.key), step.due) for step in state.steps.values() if step.status is StepStatus.RETRYING
    )
    actions = tuple(_action(state, step) for step in state.steps.values() if step.status in ASKED)
    return Act(actions=actions, timers=timers) if actions else Wait(state.run, (), timers)


def _failing(state: PipelineState, control: Control, failed: Step) -> Verdict:
    """Nothing new starts; what was reserved is asked for until its outcome is known."""
    left = [step for step in state.steps.values() if step.status in ASKED and step.key in control.effects]
    if left:
        return Act(actions=tuple(_action(state, step) for step in left))
    fault = failed.fault
    code, message = (fault.code, fault.message) if fault else ("step_failed", "the step failed")
    error: Event = Closed(
        state.run,
        "failed",
        {"error": {"code": code, "message": f"step {failed.spec.name!r}: {message}", "step": failed.spec.name}},
    )
    return Act(record=(error,))


def _after_faults(state: PipelineState) -> Iterator[Event]:
    for step in state.steps.values():
        fault = step.fault
        if step.status is not StepStatus.STUMBLED or fault is None:
            continue
        if fault.retryable and step.attempt <= step.spec.max_retries:
            yield RetryPlanned(state.run, step.spec.name, step.attempt + 1, _due(step))
        else:
            yield StepGaveUp(state.run, step.spec.name, fault.code, fault.message)


def _due(step: Step) -> str:
    seconds = min(step.spec.retry_delay_s * 2.0 ** (step.attempt - 1), LONGEST_DELAY_S)
    moment = datetime.fromisoformat(step.ended_at) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _after_outputs(state: PipelineState) -> Iterator[Event]:
    for step in state.steps.values():
        if step.status is not StepStatus.WAITING:
            continue
        needed = [state.steps[name] for name in step.spec.depends_on]
        without = next((each for each in needed if _gives_nothing(each)), None)
        if without is not None:
            yield StepSkipped(state.run, step.spec.name, without.spec.name)
        elif all(each.status is StepStatus.DONE for each in needed):
            yield StepReady(state.run, step.spec.name)


def _gives_nothing(step: Step) -> bool:
    return step.status is StepStatus.SKIPPED or (step.status is StepStatus.DONE and not step.output)


def _action(state: PipelineState, step: Step) -> StepAction:
    spec = step.spec
    # An app that is called keeps receipts by key: it is asked again with the same key without harm.
    effect = Effect.IDEMPOTENT if spec.app and spec.effect is Effect.ONCE else spec.effect
    return StepAction(
        key=step.key,
        run=state.run,
        name=spec.name,
        effect=effect,
        spec=spec,
        reconcilable=not spec.app,
        origin=step.origin,
        call=step.attempt,
        arrivals=_arrivals(state, step),
    )


def _arrivals(state: PipelineState, step: Step) -> tuple[Arrival, ...]:
    """What the step depends on, in the order of arrival; an entry step receives the run's input."""
    if not step.spec.depends_on:
        return (Arrival("", state.input, str(state.run), state.accepted_at),)
    needed = sorted((state.steps[name] for name in step.spec.depends_on), key=lambda each: each.order)
    return tuple(each.arrival for each in needed)
