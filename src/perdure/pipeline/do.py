"""The one effect of a pipeline run: handle a step, here or at another app, and say what came of it."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from perdure.clock import parse_rfc3339
from perdure.effect import Effect
from perdure.errors import Broken, Failed, Invalid, NotFound, PerdureError
from perdure.messaging.message import joined
from perdure.observability.context import log_context
from perdure.observability.names import Attribute, SpanName
from perdure.observability.tracing import AttributeValue, Tracer
from perdure.pipeline.decide import StepAction
from perdure.pipeline.remote import RemoteSteps
from perdure.pipeline.server import StepCall, StepServer
from perdure.run.control import RunInfo
from perdure.run.event import Settled
from perdure.run.kind import Doing

FINAL = frozenset({"step_output_wrong", "step_refused", "step_unknown"})
"""Faults that another attempt would meet again."""


@dataclass(frozen=True, slots=True)
class Effects:
    """Does the steps of one pipeline."""

    pipeline: str
    here: StepServer
    away: RemoteSteps
    tracer: Tracer

    async def step(self, action: StepAction, doing: Doing) -> Settled:
        """The outcome. Raises: Transient when it is not known yet and the same call is to be made again."""
        attributes: dict[str, AttributeValue] = {str(Attribute.RUN): doing.run_id, str(Attribute.ATTEMPT): action.call}
        name = f"{SpanName.STEP} {action.name}"
        with (
            log_context(agent=self.pipeline, run=doing.run_id, caller=doing.by),
            self.tracer.span(name, attributes, parent=doing.trace),
        ):
            try:
                content = await self._answer(action, call_of(action, doing))
            except (Failed, Invalid, NotFound, Broken) as error:
                return _fault(action, error)
        return Settled(action.key, content)

    def ended(self, run_id: str, info: RunInfo) -> None:
        """The run's own span, from the moment it was accepted, in whichever process that was."""
        began, ended = parse_rfc3339(info.at), parse_rfc3339(info.ended)
        attributes: dict[str, AttributeValue] = {str(Attribute.RUN): run_id}
        name = f"{SpanName.PIPELINE} {self.pipeline}"
        failed = info.status == "failed"
        self.tracer.record(name, attributes, parent=info.trace, began=began, ended=ended, failed=failed)

    async def _answer(self, action: StepAction, call: StepCall) -> str:
        spec = action.spec
        if spec.app:
            return await self.away.call(spec.app, spec.name, call, spec.timeout_s)
        return await self.here.handle_here(spec.name, call)

    async def reconcile(self, action: StepAction, doing: Doing) -> Settled | None:
        """The outcome of a step that was cut here, if it was kept together with the state it changed."""
        answer = await self.here.answered(call_of(action, doing).key)
        return None if answer is None else Settled(action.key, answer)


def call_of(action: StepAction, doing: Doing) -> StepCall:
    """The call; its key and its message are the same in every attempt, everywhere."""
    subject = doing.run_id.rpartition("-")[0]
    message = joined(action.arrivals)
    return StepCall(f"{subject}.{action.origin}", doing.run_id, action.call, doing.fence, message)


def _fault(action: StepAction, error: PerdureError) -> Settled:
    # A `once` call that was cut at its time limit may have happened, just as one that was cut by a crash.
    cut = error.code == "step_timed_out" and action.spec.effect is Effect.ONCE
    if cut or error.code == "step_in_doubt":
        return Settled(action.key, error.message, ok=False, unknown=True)
    retryable = error.code not in FINAL and not isinstance(error, Invalid | NotFound)
    content = orjson.dumps({"code": error.code, "message": error.message, "retryable": retryable})
    return Settled(action.key, content.decode(), ok=False)
