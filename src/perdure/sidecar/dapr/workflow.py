"""The host as a Dapr workflow: a body's steps, said in the workflow SDK's words. Deterministic; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from perdure.sidecar.ports import Again, Drive, HostBody, Pause
from perdure.types import JsonObject

if TYPE_CHECKING:
    from dapr.ext.workflow import DaprWorkflowContext

WORKFLOW = "perdure.run.v1"
ACTIVITY = "perdure.drive.v1"
WAKE = "wake"
WAKE_PAYLOAD: JsonObject = {"wake": True}
"""Never empty: the SDK drops empty payloads of events that it carries into a restarted history."""

FAILURE = "perdure.failure"
"""Under this key the activity says that the drive failed: `transient`, or the reason why it failed for good."""
TRANSIENT = "transient"

RETRY_S = (1, 2, 5, 10, 20, 30)
"""Waits before a drive that failed for a passing reason is repeated; after the last, the history starts over."""

NOTHING = timedelta(0)


class DriveFailed(Exception):
    """A drive failed for a lasting reason, so the host ends as failed."""


HostWorkflow: TypeAlias = "Callable[[DaprWorkflowContext, Any], Generator[Any, Any, Any]]"


def hosting(body: HostBody) -> HostWorkflow:
    """A new workflow function that interprets `body`; the SDK marks what it registers, so never shared."""

    def host(ctx: DaprWorkflowContext, input: Any) -> Generator[Any, Any, Any]:
        steps = body(input)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                return done.value
            match step:
                case Drive(input=given):
                    answer = yield from _driven(ctx, given)
                    if answer is None:
                        ctx.continue_as_new(input, save_events=True)
                        return None
                case Pause(seconds=seconds):
                    answer = yield from _woken(ctx, seconds)
                case Again(input=given):
                    ctx.continue_as_new(given, save_events=True)
                    return None

    return host


def _driven(ctx: DaprWorkflowContext, input: JsonObject) -> Generator[Any, Any, JsonObject | None]:
    """What the drive answered; None when it kept failing for passing reasons."""
    for wait_s in RETRY_S:
        answer: JsonObject = yield ctx.call_activity(ACTIVITY, input=input)
        failure = answer.get(FAILURE)
        if failure is None:
            return answer
        if failure != TRANSIENT:
            raise DriveFailed(str(failure))
        yield ctx.create_timer(timedelta(seconds=wait_s))
    return None


def _woken(ctx: DaprWorkflowContext, seconds: float | None) -> Generator[Any, Any, bool]:
    """Several wakes before or during one pause count as one: the drive reads everything anyway."""
    woken = False
    while not (early := ctx.wait_for_external_event(WAKE, timeout=NOTHING)).is_failed:
        yield early
        woken = True
    if woken or (seconds is not None and seconds <= 0):
        return woken
    timeout = None if seconds is None else timedelta(seconds=seconds)
    try:
        yield ctx.wait_for_external_event(WAKE, timeout=timeout)
    except TimeoutError:
        return False
    return True
